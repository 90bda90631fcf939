//! A reading joined with its processes' owners: which tenant holds which device. Pure; [`super::Observer`] gives it the
//! kernel's facts.

use std::collections::BTreeMap;

use super::vm::VmRules;
use crate::gpu::reading::{Doubt, GpuProcess, GpuReading, Health, MigReading, VgpuReading};
use crate::gpu::sampler::Collected;
use crate::observation::{
    AttributedProcess, Device, DeviceKey, Observation, Owner, Readout, Reason, WholeUse, of_process,
};

mod vgpu;

/// Start time and owner of a process; `None` for one that ended between the driver's answer and the question.
pub type Found = Option<(Option<u64>, Owner)>;

/// What the configuration calls models, and whose it says VMs are.
#[derive(Clone, Copy, Debug)]
pub struct Names<'c> {
    /// Names of models by NVML's names.
    pub models: &'c BTreeMap<String, String>,
    /// Tenants by VM.
    pub vms: &'c VmRules,
}

/// Every device with its holders. A device that does not answer keeps those it had; without a reading no device answers.
pub fn observe(
    collected: Collected,
    previous: Option<&Observation>,
    names: Names<'_>,
    owner_of: &mut dyn FnMut(u32) -> Found,
    at_boottime_ms: u64,
) -> Observation {
    let mut devices = BTreeMap::new();
    let mut hidden = Vec::new();
    let driver_version = match collected.reading {
        Some(reading) => {
            hidden = reading.hidden;
            for gpu in reading.gpus {
                add_gpu(&mut devices, gpu, previous, names, owner_of);
            }
            reading.driver_version
        }
        None => {
            for (key, device) in previous.iter().flat_map(|previous| &previous.devices) {
                let silent = Device {
                    health: Health::Unknown,
                    memory: None,
                    unlisted: true,
                    whole: WholeUse::default(),
                    readout: None,
                    ..device.clone()
                };
                devices.insert(key.clone(), silent);
            }
            if let Some(previous) = previous {
                hidden.clone_from(&previous.hidden);
            }
            previous.and_then(|previous| previous.driver_version.clone())
        }
    };
    Observation {
        at_boottime_ms,
        nvml: collected.nvml,
        driver_version,
        devices,
        hidden,
    }
}

fn add_gpu(
    devices: &mut BTreeMap<DeviceKey, Device>,
    gpu: GpuReading,
    previous: Option<&Observation>,
    names: Names<'_>,
    owner_of: &mut dyn FnMut(u32) -> Found,
) {
    let model = gpu.name.unwrap_or_default();
    let disagree = gpu.doubts.contains(&Doubt::Pids);
    let mut nobodys = |_| Some((None, Owner::Unattributed(Reason::PidsDisagree)));
    let owner_of: &mut dyn FnMut(u32) -> Found = if disagree { &mut nobodys } else { owner_of };
    let host = gpu.vgpu_host == Some(true);
    // Without its process list nobody can be said to be on it, nor nobody; on a vGPU host that is the list of vGPUs.
    let doubts = |doubt| gpu.doubts.contains(&doubt);
    let untold = if host {
        gpu.vgpus.is_none() || doubts(Doubt::Vgpus)
    } else {
        gpu.processes.is_none() || doubts(Doubt::Instances)
    };
    let health = match gpu.health {
        Health::Ok if untold => Health::Unknown,
        health => health,
    };
    match gpu.vgpus {
        Some(vgpus) if gpu.health == Health::Ok => {
            // Where there may be more, those that were there before may still be.
            if untold {
                let before = vgpu::as_before(&gpu.uuid, health, previous);
                let ended = |key: &DeviceKey| vgpu::ended(key, &gpu.uuid, previous);
                devices.extend(before.into_iter().filter(|(key, _)| !ended(key)));
            }
            let seen = |of: VgpuReading| {
                let (key, device) = vgpu::device(of, &gpu.uuid, &names);
                let device = Device {
                    facts: gpu.facts.clone(),
                    nvlink_island: gpu.nvlink_island,
                    ..device
                };
                (key, device)
            };
            devices.extend(vgpus.into_iter().map(seen));
        }
        // No host any more: what it was cut into is gone.
        None if health == Health::Ok && gpu.vgpu_host == Some(false) => {}
        Some(_) | None => {
            let silent = match health {
                Health::Ok => Health::Unknown,
                health => health,
            };
            devices.extend(vgpu::as_before(&gpu.uuid, silent, previous));
        }
    }
    let last_known = |key: &DeviceKey| {
        let device = previous.and_then(|previous| previous.devices.get(key));
        device
            .map(|device| device.processes.clone())
            .unwrap_or_default()
    };
    let mut processes = gpu.processes.filter(|_| health == Health::Ok);
    let unlisted = processes.is_none();
    let mut instances = gpu.instances;
    if gpu.mig_enabled == Some(true) {
        add_unseen(&mut instances, processes.as_deref().unwrap_or_default());
    }
    let busy = places(processes.as_deref().unwrap_or_default());
    for instance in instances {
        let key = DeviceKey::Mig(gpu.uuid.clone(), instance.gi, instance.ci);
        let here = processes
            .as_mut()
            .map(|processes| take_from(processes, &instance));
        // GPM speaks of the GPU instance: of this one when its other compute instances are idle.
        let shared = |(gi, ci): &(u32, u32)| *gi == instance.gi && *ci != instance.ci;
        let whole = WholeUse {
            percent: instance.sm_percent.filter(|_| !busy.iter().any(shared)),
            exact: true,
        };
        let device = Device {
            health,
            model: model.clone(),
            gpu_model: mig_model(names.models, instance.profile.as_deref()),
            profile: instance.profile,
            mig_uuid: Some(instance.uuid).filter(|uuid| !uuid.is_empty()),
            minor: gpu.minor,
            // On a host it serves vGPUs, and they are what is held.
            partitioned: host,
            memory: instance.memory,
            processes: here.map_or_else(
                || last_known(&key),
                |here| attributed(here, whole, owner_of),
            ),
            unlisted,
            whole,
            vgpu: None,
            readout: None,
            facts: gpu.facts.clone(),
            nvlink_island: gpu.nvlink_island,
            ..Device::default()
        };
        devices.insert(key, device);
    }
    let readout = Readout {
        index: gpu.index,
        pci_bus_id: gpu.pci_bus_id,
        glow: gpu.glow,
        gauges: gpu.gauges,
        activities: gpu.activities,
    };
    let key = DeviceKey::Gpu(gpu.uuid);
    let whole = WholeUse {
        percent: gpu.glow.utilization_gpu_percent,
        exact: false,
    };
    let device = Device {
        health,
        gpu_model: names
            .models
            .get(&model)
            .cloned()
            .unwrap_or_else(|| "nvidia.com/gpu".to_owned()),
        model,
        profile: None,
        mig_uuid: None,
        minor: gpu.minor,
        partitioned: gpu.mig_enabled == Some(true) || host,
        memory: gpu.memory,
        processes: processes.map_or_else(
            || last_known(&key),
            |here| attributed(here, whole, owner_of),
        ),
        unlisted,
        doubts: gpu.doubts,
        whole,
        vgpu: None,
        readout: Some(readout),
        facts: gpu.facts,
        nvlink_island: gpu.nvlink_island,
        mig_generation: Some(gpu.mig_generation)
            .filter(|generation| gpu.mig_enabled == Some(true) || *generation > 0),
    };
    devices.insert(key, device);
}

/// Instances that processes stand on although the driver shows none there. They are held all the same, and on the GPU
/// around them nothing is counted.
fn add_unseen(instances: &mut Vec<MigReading>, processes: &[GpuProcess]) {
    for (gi, ci) in processes
        .iter()
        .filter_map(|process| process.gi.zip(process.ci))
    {
        if !instances.iter().any(|seen| (seen.gi, seen.ci) == (gi, ci)) {
            instances.push(MigReading {
                uuid: String::new(),
                gi,
                ci,
                ..MigReading::default()
            });
        }
    }
}

/// The processes of one instance; what stays belongs to the GPU itself.
fn take_from(processes: &mut Vec<GpuProcess>, instance: &MigReading) -> Vec<GpuProcess> {
    let place = (Some(instance.gi), Some(instance.ci));
    processes
        .extract_if(.., |process| (process.gi, process.ci) == place)
        .collect()
}

/// GPU and compute instances with processes.
fn places(processes: &[GpuProcess]) -> Vec<(u32, u32)> {
    let place = |process: &GpuProcess| process.gi.zip(process.ci);
    processes.iter().filter_map(place).collect()
}

fn attributed(
    processes: Vec<GpuProcess>,
    whole: WholeUse,
    owner_of: &mut dyn FnMut(u32) -> Found,
) -> Vec<AttributedProcess> {
    let alone = processes.len() == 1;
    let mut found: Vec<AttributedProcess> = processes
        .into_iter()
        .filter_map(|process| {
            let (start_time, owner) = match process.pid {
                Some(pid) => owner_of(pid)?,
                None => (None, Owner::Unattributed(Reason::Nameless)),
            };
            Some(AttributedProcess {
                pid: process.pid,
                start_time,
                owner,
                kind: Some(process.kind),
                used_memory_bytes: process.used_memory_bytes,
                sm: of_process(process.sm_percent, alone, whole),
            })
        })
        .collect();
    found.sort_by_key(|process| process.pid);
    found
}

/// As NVIDIA's device plugin names resources: `+` is no sign of a resource name.
fn mig_model(models: &BTreeMap<String, String>, profile: Option<&str>) -> String {
    let Some(profile) = profile else {
        return "nvidia.com/mig-unknown".to_owned();
    };
    let own = models.get(profile).cloned();
    own.unwrap_or_else(|| format!("nvidia.com/mig-{}", profile.replace('+', ".")))
}

#[cfg(test)]
mod tests;
