//! Settings of a node and of one GPU that no other edit makes.

use crate::scenario::{Excluded, Gpu, Scenario, ScenarioError, Virtualization};

/// What to change of the node; `None` leaves as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSettings {
    /// The driver's version, such as `560.35.03`; NVML's own follows it.
    pub driver: Option<String>,
    /// What every `nvmlInit*` answers from now on: 0, 9 (driver not loaded), 18 (library mismatch), 999, ...
    pub init_return: Option<u32>,
    /// Element size of the `_v3` process lists in bytes: 16, 24 or 32.
    pub element_bytes: Option<u32>,
}

/// What to change of one GPU; `None` leaves as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuSettings {
    /// In degrees Celsius.
    pub temperature_c: Option<u32>,
    /// How busy the GPU and its memory are, in percent; on a GPU in MIG mode NVML does not tell.
    pub utilization_gpu: Option<u32>,
    pub utilization_memory: Option<u32>,
    pub virtualization: Option<Virtualization>,
    /// Whether its vGPUs that are on GPU instances share them by turns.
    pub time_sliced: Option<bool>,
    /// The driver leaves it out from now on; what the scenario said of it is lost.
    pub excluded: bool,
}

impl Scenario {
    /// Changes what the driver says of itself.
    pub fn set_node(&mut self, settings: &NodeSettings) {
        if let Some(driver) = &settings.driver {
            let nvml = self.nvml_version.split('.').next().unwrap_or("12");
            self.nvml_version = format!("{nvml}.{driver}");
            self.driver_version.clone_from(driver);
        }
        if let Some(code) = settings.init_return {
            self.init_return = code;
        }
        if let Some(bytes) = settings.element_bytes {
            self.process_element_bytes = bytes;
        }
    }

    /// Changes one GPU, called by UUID, PCI bus id or index.
    pub fn set_gpu(&mut self, gpu: &str, settings: &GpuSettings) -> Result<(), ScenarioError> {
        let target = self.gpu_mut(gpu)?;
        change(&mut target.temperature_c, settings.temperature_c);
        change(&mut target.utilization_gpu, settings.utilization_gpu);
        change(&mut target.utilization_memory, settings.utilization_memory);
        if let Some(mode) = settings.virtualization {
            target.virtualization = mode;
        }
        if let Some(by_turns) = settings.time_sliced {
            time_slice(target, by_turns)?;
        }
        if settings.excluded {
            let excluded = Excluded {
                uuid: target.uuid.clone(),
                pci_bus_id: target.pci_bus_id.clone(),
            };
            self.remove_gpu(gpu)?;
            self.excluded.push(excluded);
        }
        Ok(())
    }
}

fn change(value: &mut Option<u32>, to: Option<u32>) {
    *value = to.or(*value);
}

/// Of the vGPUs on GPU instances: elsewhere NVML knows no turns.
fn time_slice(gpu: &mut Gpu, by_turns: bool) -> Result<(), ScenarioError> {
    let mut some = false;
    for vgpu in gpu.vgpu.iter_mut().filter(|vgpu| vgpu.gi.is_some()) {
        vgpu.time_sliced = by_turns;
        some = true;
    }
    some.then_some(()).ok_or_else(|| {
        ScenarioError::Meaning(format!(
            "GPU {} has no vGPU on a GPU instance that others could share by turns",
            gpu.uuid
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset;

    #[test]
    fn each_setting_changes_what_it_names_and_nothing_else() {
        let mut scenario = preset::build("l40s-vgpu", "t").unwrap();
        let before = scenario.clone();
        scenario.set_node(&NodeSettings::default());
        scenario.set_gpu("0", &GpuSettings::default()).unwrap();
        assert_eq!(scenario, before);
        scenario.set_node(&NodeSettings {
            driver: Some("560.35.03".to_owned()),
            init_return: Some(18),
            element_bytes: Some(16),
        });
        assert_eq!(scenario.driver_version, "560.35.03");
        assert_eq!(scenario.nvml_version, "12.560.35.03");
        assert_eq!(
            (scenario.init_return, scenario.process_element_bytes),
            (18, 16)
        );
        let busy = GpuSettings {
            temperature_c: Some(91),
            utilization_gpu: Some(97),
            utilization_memory: Some(3),
            ..GpuSettings::default()
        };
        scenario.set_gpu("0", &busy).unwrap();
        let gpu = &scenario.gpus[0];
        let seen = (gpu.temperature_c, gpu.utilization_gpu);
        assert_eq!(seen, (Some(91), Some(97)));
        assert_eq!(gpu.utilization_memory, Some(3));
        assert_eq!(scenario.gpus[1], before.gpus[1]);
        let by_turns = GpuSettings {
            time_sliced: Some(true),
            ..GpuSettings::default()
        };
        assert!(scenario.set_gpu("0", &by_turns).is_err(), "no GPU instance");
    }

    #[test]
    fn an_excluded_gpu_is_no_gpu_any_more_and_keeps_its_name() {
        let mut scenario = preset::build("h100x4", "t").unwrap();
        let gone = scenario.gpus[1].clone();
        let out = GpuSettings {
            excluded: true,
            ..GpuSettings::default()
        };
        scenario.set_gpu(&gone.pci_bus_id, &out).unwrap();
        scenario.settle().unwrap();
        assert_eq!(scenario.gpus.len(), 3);
        let names = (&scenario.excluded[0].uuid, &scenario.excluded[0].pci_bus_id);
        assert_eq!(names, (&gone.uuid, &gone.pci_bus_id));
        let passed = GpuSettings {
            virtualization: Some(Virtualization::Passthrough),
            ..GpuSettings::default()
        };
        scenario.set_gpu("2", &passed).unwrap();
        let mode = scenario.gpus[2].virtualization;
        assert_eq!(mode, Virtualization::Passthrough);
    }
}
