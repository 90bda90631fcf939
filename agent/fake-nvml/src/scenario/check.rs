//! From text to a scenario that holds together, and back.
//!
//! Checked once here, so that the library need not doubt while it answers: names are unique, references lead
//! somewhere, every reference is a UUID.

use std::collections::BTreeSet;

use super::{Action, Gpu, Scenario, Virtualization};

#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("not a scenario: {0}")]
    Syntax(#[from] toml::de::Error),
    #[error("cannot be written as TOML: {0}")]
    Render(#[from] toml::ser::Error),
    #[error("no GPU is called {0:?} (use its UUID, PCI bus id or index)")]
    UnknownGpu(String),
    #[error("GPU {gpu} has no instance {gi}/{ci}")]
    UnknownInstance { gpu: String, gi: u32, ci: u32 },
    #[error("no vGPU is called {0:?} (use its UUID)")]
    UnknownVgpu(String),
    #[error("{0:?} stands twice")]
    Twice(String),
    #[error("{0}")]
    Meaning(String),
}

impl Scenario {
    /// Reads, resolves and checks a scenario.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let mut scenario: Self = toml::from_str(text)?;
        scenario.settle()?;
        Ok(scenario)
    }

    /// The TOML text. Comments of a file that was read are not kept.
    pub fn render(&self) -> Result<String, ScenarioError> {
        Ok(toml::to_string(self)?)
    }

    /// Turns references into UUIDs and refuses what cannot be answered from.
    pub fn settle(&mut self) -> Result<(), ScenarioError> {
        self.check_devices()?;
        let mut processes = std::mem::take(&mut self.processes);
        for process in &mut processes {
            process.gpu = self.uuid_of(&process.gpu)?;
        }
        self.processes = processes;
        let mut events = std::mem::take(&mut self.events);
        for event in &mut events {
            event.gpu = self.uuid_of(&event.gpu)?;
        }
        self.events = events;
        let mut faults = std::mem::take(&mut self.faults);
        for fault in &mut faults {
            if let Some(name) = fault.gpu.take() {
                let is_part = self
                    .gpus
                    .iter()
                    .flat_map(Gpu::parts)
                    .any(|uuid| uuid == name);
                fault.gpu = Some(if is_part { name } else { self.uuid_of(&name)? });
            }
            match fault.action {
                Action::Return if fault.code.is_none() => {
                    return Err(ScenarioError::Meaning(format!(
                        "the fault in {} needs a code",
                        fault.function
                    )));
                }
                Action::Delay if fault.ms.is_none() => {
                    return Err(ScenarioError::Meaning(format!(
                        "the delay in {} needs ms",
                        fault.function
                    )));
                }
                _ => {}
            }
        }
        self.faults = faults;
        if !matches!(self.process_element_bytes, 16 | 24 | 32) {
            return Err(ScenarioError::Meaning(
                "process_element_bytes is 16, 24 or 32".to_owned(),
            ));
        }
        Ok(())
    }

    /// The GPU that a person means by a UUID, a PCI bus id or an index.
    pub fn gpu_index(&self, name: &str) -> Result<usize, ScenarioError> {
        let by_name = |gpu: &Gpu| gpu.uuid == name || gpu.pci_bus_id.eq_ignore_ascii_case(name);
        self.gpus
            .iter()
            .position(by_name)
            .or_else(|| {
                name.parse::<usize>()
                    .ok()
                    .filter(|index| *index < self.gpus.len())
            })
            .ok_or_else(|| ScenarioError::UnknownGpu(name.to_owned()))
    }

    fn uuid_of(&self, name: &str) -> Result<String, ScenarioError> {
        let index = self.gpu_index(name)?;
        self.gpus
            .get(index)
            .map(|gpu| gpu.uuid.clone())
            .ok_or_else(|| ScenarioError::UnknownGpu(name.to_owned()))
    }

    fn check_devices(&self) -> Result<(), ScenarioError> {
        let mut names = BTreeSet::new();
        let mut unique = |name: String| {
            if names.contains(&name) {
                return Err(ScenarioError::Twice(name));
            }
            names.insert(name);
            Ok(())
        };
        for gpu in &self.excluded {
            unique(gpu.uuid.clone())?;
            unique(gpu.pci_bus_id.to_ascii_lowercase())?;
            if super::gpu::pci_numbers(&gpu.pci_bus_id).is_none() {
                let text = format!("{:?} is not a PCI bus id", gpu.pci_bus_id);
                return Err(ScenarioError::Meaning(text));
            }
        }
        for gpu in &self.gpus {
            unique(gpu.uuid.clone())?;
            unique(gpu.pci_bus_id.to_ascii_lowercase())?;
            if gpu.pci_numbers().is_none() {
                return Err(ScenarioError::Meaning(format!(
                    "{:?} is not a PCI bus id",
                    gpu.pci_bus_id
                )));
            }
            for links in &gpu.nvlink {
                links.check()?;
            }
            for vgpu in &gpu.vgpu {
                unique(vgpu.uuid.clone())?;
                vgpu.check()?;
                let there = |gi: u32| gpu.mig_enabled() && gpu.mig.iter().any(|mig| mig.gi == gi);
                if vgpu.gi.is_some_and(|gi| !there(gi)) || (vgpu.time_sliced && vgpu.gi.is_none()) {
                    return Err(ScenarioError::Meaning(format!(
                        "vGPU {:?}: gi names a GPU instance of its GPU, and time_sliced needs one",
                        vgpu.uuid
                    )));
                }
                if gpu.virtualization != Virtualization::HostVgpu {
                    return Err(ScenarioError::Meaning(format!(
                        "{} holds vGPUs and is no vGPU host: virtualization = \"host-vgpu\"",
                        gpu.uuid
                    )));
                }
            }
            for (slot, mig) in gpu.slotted_mig() {
                unique(mig.uuid.clone())?;
                unique(format!("{} slot {slot}", gpu.uuid))?;
                unique(format!("{} instance {}/{}", gpu.uuid, mig.gi, mig.ci))?;
                if gpu.mig_enabled() && slot >= gpu.slots() {
                    return Err(ScenarioError::Meaning(format!(
                        "{} has no slot {slot}; see mig_slots",
                        gpu.uuid
                    )));
                }
                if mig.slices().is_none() {
                    return Err(ScenarioError::Meaning(format!(
                        "{:?} is not a MIG profile",
                        mig.profile
                    )));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset;

    #[test]
    fn references_become_uuids_and_a_text_survives_a_round_trip() {
        let text = preset::build("a100-mig", "t").unwrap().render().unwrap()
            + "[[process]]\npid = 1\ngpu = \"2\"\n[[fault]]\nfunction = \"*\"\ngpu = \"1\"\naction = \"hang\"\n";
        let scenario = Scenario::parse(&text).unwrap();
        assert_eq!(scenario.processes[0].gpu, scenario.gpus[2].uuid);
        assert_eq!(
            scenario.faults[0].gpu.as_ref(),
            Some(&scenario.gpus[1].uuid)
        );
        assert_eq!(
            Scenario::parse(&scenario.render().unwrap()).unwrap(),
            scenario
        );
    }

    #[test]
    fn what_cannot_be_answered_from_is_refused() {
        let good = preset::build("a100-mig", "t").unwrap();
        let broken = |change: fn(&mut Scenario)| {
            let mut scenario = good.clone();
            change(&mut scenario);
            scenario.settle().unwrap_err().to_string()
        };
        assert!(broken(|s| s.gpus[1].uuid = s.gpus[0].uuid.clone()).contains("twice"));
        assert!(broken(|s| s.gpus[0].mig[1].gi = s.gpus[0].mig[0].gi).contains("twice"));
        assert!(broken(|s| s.gpus[0].mig[0].slot = Some(9)).contains("slot 9"));
        assert!(broken(|s| s.gpus[0].pci_bus_id = "x".into()).contains("PCI"));
        assert!(broken(|s| s.gpus[2].nvlink[0].remote = "y".into()).contains("PCI"));
        assert!(broken(|s| s.process_element_bytes = 20).contains("element"));
        assert!(
            broken(|s| s
                .faults
                .push(crate::scenario::Fault::new("f", Action::Return)))
            .contains("code")
        );
        assert!(Scenario::parse("driver_version = 1").is_err());
    }
}
