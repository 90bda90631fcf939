//! What a person or a test does to a scenario: start a process, break a GPU, cut it into instances.

mod set;
mod vgpu;

pub use set::{GpuSettings, NodeSettings};

use crate::model::MODELS;
use crate::scenario::{Event, Fault, Gpu, Process, Scenario, ScenarioError};

impl Scenario {
    /// The GPU called `name` (UUID, PCI bus id or index).
    pub fn gpu_mut(&mut self, name: &str) -> Result<&mut Gpu, ScenarioError> {
        let index = self.gpu_index(name)?;
        self.gpus
            .get_mut(index)
            .ok_or_else(|| ScenarioError::UnknownGpu(name.to_owned()))
    }

    /// Puts a process on a GPU. On a GPU in MIG mode it needs an instance that exists.
    pub fn add_process(&mut self, mut process: Process) -> Result<(), ScenarioError> {
        let gpu = self.gpu_mut(&process.gpu)?;
        process.gpu.clone_from(&gpu.uuid);
        if gpu.mig_enabled() {
            let gi = process.gi.ok_or_else(|| {
                ScenarioError::Meaning(format!(
                    "GPU {} is in MIG mode: name an instance (gi, ci)",
                    gpu.uuid
                ))
            })?;
            let ci = *process.ci.get_or_insert(0);
            if !gpu.mig.iter().any(|mig| mig.gi == gi && mig.ci == ci) {
                return Err(ScenarioError::UnknownInstance {
                    gpu: gpu.uuid.clone(),
                    gi,
                    ci,
                });
            }
        } else if process.gi.is_some() || process.ci.is_some() {
            return Err(ScenarioError::Meaning(format!(
                "GPU {} is not in MIG mode",
                gpu.uuid
            )));
        }
        self.processes.push(process);
        Ok(())
    }

    /// Takes every entry of `pid` away and says how many there were.
    pub fn remove_process(&mut self, pid: u32) -> usize {
        let before = self.processes.len();
        self.processes.retain(|process| process.pid != pid);
        before - self.processes.len()
    }

    pub fn add_fault(&mut self, mut fault: Fault) -> Result<(), ScenarioError> {
        if fault.times == 0 && fault.from_call == 0 {
            fault.from_call = 1;
        }
        self.faults.push(fault);
        self.settle()
    }

    /// Takes the faults of `function` away, or all of them.
    pub fn clear_faults(&mut self, function: Option<&str>) -> usize {
        let before = self.faults.len();
        self.faults
            .retain(|fault| function.is_some_and(|function| fault.function != function));
        before - self.faults.len()
    }

    /// Lets a GPU fall off the bus, or brings it back.
    pub fn set_lost(&mut self, gpu: &str, lost: bool) -> Result<(), ScenarioError> {
        self.gpu_mut(gpu)?.lost = lost;
        Ok(())
    }

    /// Takes a GPU out of the node altogether, with its processes; the ones behind it move up.
    pub fn remove_gpu(&mut self, gpu: &str) -> Result<(), ScenarioError> {
        let gone = self.gpus.remove(self.gpu_index(gpu)?);
        self.processes.retain(|process| process.gpu != gone.uuid);
        self.events.retain(|event| event.gpu != gone.uuid);
        let is_gone = |name: &String| *name == gone.uuid || gone.parts().any(|uuid| uuid == *name);
        self.faults
            .retain(|fault| !fault.gpu.as_ref().is_some_and(is_gone));
        Ok(())
    }

    /// Cuts a GPU anew; an empty layout leaves MIG mode. Its processes end, as the driver demands, and an event tells.
    pub fn slice(&mut self, gpu: &str, layout: &[&str]) -> Result<(), ScenarioError> {
        let target = self.gpu_mut(gpu)?;
        let model = MODELS.iter().find(|model| model.name == target.name);
        let Some(model) = model.filter(|_| target.mig_mode.is_some()) else {
            return Err(ScenarioError::Meaning(format!(
                "{} cannot be cut into instances",
                target.name
            )));
        };
        if layout.is_empty() {
            target.mig.clear();
            target.mig_mode = Some(false);
        } else {
            model
                .slice(target, layout)
                .map_err(ScenarioError::Meaning)?;
        }
        let uuid = target.uuid.clone();
        self.processes.retain(|process| process.gpu != uuid);
        let parts: Vec<&str> = self.gpus.iter().flat_map(Gpu::parts).collect();
        self.faults.retain(|fault| {
            fault
                .gpu
                .as_ref()
                .is_none_or(|name| name.starts_with("GPU-") || parts.contains(&name.as_str()))
        });
        self.push_event(&uuid, None, None)
    }

    /// Adds a driver event: an XID, or a change of the MIG layout when there is none.
    pub fn push_event(
        &mut self,
        gpu: &str,
        xid: Option<u64>,
        instance: Option<(u32, u32)>,
    ) -> Result<(), ScenarioError> {
        let gpu = self.gpu_mut(gpu)?.uuid.clone();
        let id = self.last_event() + 1;
        self.events.push(Event {
            id,
            gpu,
            xid,
            gi: instance.map(|(gi, _)| gi),
            ci: instance.map(|(_, ci)| ci),
        });
        Ok(())
    }

    /// The highest event id so far.
    pub fn last_event(&self) -> u64 {
        self.events.iter().map(|event| event.id).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset;
    use crate::scenario::Action;

    #[test]
    fn a_process_needs_an_instance_exactly_where_there_are_some() {
        let mut scenario = preset::build("a100-mig", "t").unwrap();
        scenario.add_process(Process::new("3", 7)).unwrap();
        assert_eq!(scenario.processes[0].gpu, scenario.gpus[3].uuid);
        assert!(scenario.add_process(Process::new("0", 7)).is_err());
        assert!(
            scenario
                .add_process(Process {
                    gi: Some(13),
                    ..Process::new("0", 7)
                })
                .is_err()
        );
        assert!(
            scenario
                .add_process(Process {
                    gi: Some(1),
                    ..Process::new("3", 7)
                })
                .is_err()
        );
        scenario
            .add_process(Process {
                gi: Some(7),
                ..Process::new("0", 7)
            })
            .unwrap();
        assert_eq!(
            (scenario.remove_process(7), scenario.remove_process(7)),
            (2, 0)
        );
    }

    #[test]
    fn cutting_anew_ends_what_ran_there_and_tells() {
        let mut scenario = preset::build("a100-mig", "t").unwrap();
        scenario
            .add_process(Process {
                gi: Some(7),
                ..Process::new("0", 7)
            })
            .unwrap();
        scenario.add_process(Process::new("3", 8)).unwrap();
        let mig = scenario.gpus[0].mig[1].uuid.clone();
        scenario
            .add_fault(Fault {
                gpu: Some(mig),
                ..Fault::new("*", Action::Hang)
            })
            .unwrap();
        scenario.slice("0", &["7g.80gb"]).unwrap();
        scenario.settle().unwrap();
        assert_eq!(scenario.processes.len(), 1);
        assert_eq!((scenario.events.len(), scenario.faults.len()), (1, 0));
        scenario.slice("0", &[]).unwrap();
        assert_eq!(
            (scenario.gpus[0].mig_mode, scenario.last_event()),
            (Some(false), 2)
        );
        scenario.remove_gpu("3").unwrap();
        assert_eq!((scenario.gpus.len(), scenario.processes.len()), (3, 0));
    }
}
