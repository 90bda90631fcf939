//! What happens to virtual machines on a host: they start and stop, and their licences come and go.

use toml::value::Datetime;

use crate::model::{types_of, vgpu_uuid};
use crate::scenario::{Licence, Scenario, ScenarioError, Vgpu, Virtualization};

impl Scenario {
    /// Starts a VM with a vGPU of this type on a GPU in `host-vgpu` mode and gives the vGPU's UUID. It has no licence
    /// yet. `memory_mib` is needed for a type that the GPU's model does not have.
    pub fn add_vgpu(
        &mut self,
        gpu: &str,
        type_name: &str,
        vm: &str,
        memory_mib: Option<u64>,
    ) -> Result<String, ScenarioError> {
        let driver_version = Some(self.driver_version.clone());
        let target = self.gpu_mut(gpu)?;
        if target.virtualization != Virtualization::HostVgpu {
            return Err(ScenarioError::Meaning(format!(
                "GPU {} is no vGPU host: set virtualization = \"host-vgpu\"",
                target.uuid
            )));
        }
        let types = types_of(target);
        let known = types.iter().find(|(name, _)| *name == type_name);
        let known = known.map(|(_, memory_mib)| *memory_mib);
        let Some(memory_total_mib) = memory_mib.or(known) else {
            let names: Vec<&str> = types.iter().map(|(name, _)| *name).collect();
            return Err(ScenarioError::Meaning(format!(
                "{} has no vGPU type {type_name:?}; it has {}",
                target.name,
                names.join(", ")
            )));
        };
        let free = |uuid: &String| !target.vgpu.iter().any(|vgpu| vgpu.uuid == *uuid);
        let name = |number: u32| vgpu_uuid(&format!("{}/{vm}/{number}", target.uuid));
        let uuid = (0..).map(name).find(free).unwrap_or_default();
        target.vgpu.push(Vgpu {
            uuid: uuid.clone(),
            type_name: type_name.to_owned(),
            vm: Some(vm.to_owned()),
            gi: None,
            time_sliced: false,
            placement_id: None,
            memory_total_mib,
            memory_used_mib: 0,
            sm_percent: None,
            licence: Some(Licence::Unlicensed),
            licence_expires: None,
            driver_version,
        });
        Ok(uuid)
    }

    /// The vGPU with this UUID.
    pub fn vgpu_mut(&mut self, uuid: &str) -> Result<&mut Vgpu, ScenarioError> {
        self.gpus
            .iter_mut()
            .flat_map(|gpu| &mut gpu.vgpu)
            .find(|vgpu| vgpu.uuid == uuid)
            .ok_or_else(|| ScenarioError::UnknownVgpu(uuid.to_owned()))
    }

    /// Stops the VM that holds it; faults that were planted for it go with it.
    pub fn remove_vgpu(&mut self, uuid: &str) -> Result<(), ScenarioError> {
        self.vgpu_mut(uuid)?;
        for gpu in &mut self.gpus {
            gpu.vgpu.retain(|vgpu| vgpu.uuid != uuid);
        }
        self.faults
            .retain(|fault| fault.gpu.as_deref() != Some(uuid));
        Ok(())
    }

    /// What the guest says of its licence from now on.
    pub fn license_vgpu(
        &mut self,
        uuid: &str,
        licence: Licence,
        expires: Option<Datetime>,
    ) -> Result<(), ScenarioError> {
        let vgpu = self.vgpu_mut(uuid)?;
        vgpu.licence = Some(licence);
        vgpu.licence_expires = expires;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset;
    use crate::scenario::{Action, Fault};

    #[test]
    fn a_vgpu_needs_a_host_and_a_type_and_takes_its_faults_with_it() {
        let mut scenario = preset::build("l40s-vgpu", "t").unwrap();
        let uuid = scenario
            .add_vgpu("1", "NVIDIA L40S-24Q", "7", None)
            .unwrap();
        assert_eq!(
            scenario.vgpu_mut(&uuid).unwrap().memory_total_mib,
            24 * 1024
        );
        let twin = scenario.add_vgpu("1", "Made-Up", "7", Some(5)).unwrap();
        assert_ne!(uuid, twin, "a VM may have several");
        let unknown = scenario.add_vgpu("1", "NVIDIA L40S-9Q", "7", None);
        assert!(unknown.unwrap_err().to_string().contains("L40S-8Q"));
        let fault = Fault {
            gpu: Some(uuid.clone()),
            ..Fault::new("*", Action::Hang)
        };
        scenario.add_fault(fault).unwrap();
        scenario.remove_vgpu(&uuid).unwrap();
        scenario.settle().unwrap();
        assert!(scenario.faults.is_empty() && scenario.remove_vgpu(&uuid).is_err());
        scenario.gpus[1].virtualization = Virtualization::None;
        let refused = scenario.add_vgpu("1", "NVIDIA L40S-8Q", "8", None);
        assert!(refused.unwrap_err().to_string().contains("host-vgpu"));
        assert!(
            scenario.settle().is_err(),
            "a vGPU on a GPU that is no host"
        );
    }
}
