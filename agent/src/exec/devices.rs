//! From the devices of a lease to what a command needs to use them: CUDA's names and device nodes. Pure but for the driver's
//! own files about MIG.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::act::kernel::Host;
use crate::observation::{DeviceKey, Observation};

/// What a command needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Variables of its environment.
    pub environment: BTreeMap<String, String>,
    /// Device nodes that it must be able to open; those that everybody needs are not among them.
    pub nodes: Vec<String>,
}

/// What using these devices takes; the text says which of them cannot be used here and why.
///
/// # Errors
/// When a device is not read at the moment, or a process of the host cannot open it.
pub fn needed(
    seen: &Arc<Observation>,
    proc_root: &Path,
    devices: &[DeviceKey],
) -> Result<Needed, String> {
    let host = Host {
        seen: Arc::clone(seen),
        proc_root: proc_root.to_owned(),
    };
    let mut nodes = Vec::new();
    let mut names = Vec::new();
    for key in devices {
        let known = seen.devices.get(key);
        let device = known.ok_or_else(|| format!("{key} is not on this node at the moment"))?;
        names.push(cuda_name(key, device.mig_uuid.as_deref())?);
        let found = host.all_nodes(key).ok_or_else(|| {
            format!("the driver does not say which device nodes {key} has (gpuquota-agent doctor)")
        })?;
        nodes.extend(found);
    }
    nodes.sort();
    nodes.dedup();
    // An index would be another device after the next start of the driver (CUDA Programming Guide, CUDA_VISIBLE_DEVICES).
    let names = names.join(",");
    let environment = BTreeMap::from([
        ("CUDA_VISIBLE_DEVICES".to_owned(), names.clone()),
        ("NVIDIA_VISIBLE_DEVICES".to_owned(), names),
    ]);
    Ok(Needed { environment, nodes })
}

fn cuda_name(key: &DeviceKey, mig_uuid: Option<&str>) -> Result<String, String> {
    match (key, mig_uuid) {
        (DeviceKey::Gpu(uuid), _) => Ok(uuid.clone()),
        (DeviceKey::Mig(..), Some(uuid)) => Ok(uuid.to_owned()),
        // As drivers before R470 name instances (MIG User Guide, "CUDA Device Enumeration").
        (DeviceKey::Mig(gpu, gi, ci), None) => Ok(format!("MIG-{gpu}/{gi}/{ci}")),
        (DeviceKey::Vgpu(uuid), _) => Err(format!(
            "{uuid} is a vGPU: it is a virtual machine's, not a process's"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::Device;

    fn seen() -> Arc<Observation> {
        let device = |minor, mig_uuid: Option<&str>| Device {
            minor: Some(minor),
            mig_uuid: mig_uuid.map(ToOwned::to_owned),
            ..Device::default()
        };
        let devices = BTreeMap::from([
            (DeviceKey::Gpu("GPU-a".into()), device(0, None)),
            (DeviceKey::Gpu("GPU-b".into()), device(1, None)),
            (
                DeviceKey::Mig("GPU-c".into(), 1, 0),
                device(2, Some("MIG-x")),
            ),
            (DeviceKey::Mig("GPU-c".into(), 2, 0), device(2, None)),
            (DeviceKey::Vgpu("v".into()), device(3, None)),
        ]);
        Arc::new(Observation {
            at_boottime_ms: 0,
            nvml: crate::gpu::reading::NvmlState::Ok,
            driver_version: None,
            devices,
            hidden: Vec::new(),
        })
    }

    #[test]
    fn a_lease_gives_names_by_uuid_and_the_nodes_of_its_devices_alone() {
        let dir = tempfile::tempdir().unwrap();
        let minors = [("gi1", 21), ("gi1/ci0", 22), ("gi2", 30), ("gi2/ci0", 31)];
        for (place, minor) in minors {
            let folder = dir
                .path()
                .join("driver/nvidia/capabilities/gpu2/mig")
                .join(place);
            std::fs::create_dir_all(&folder).unwrap();
            let text = format!("DeviceFileMinor: {minor}\nDeviceFileMode: 292\n");
            std::fs::write(folder.join("access"), text).unwrap();
        }
        let seen = seen();
        let of = |keys: &[DeviceKey]| needed(&seen, dir.path(), keys);
        let two = of(&[
            DeviceKey::Gpu("GPU-b".into()),
            DeviceKey::Mig("GPU-c".into(), 1, 0),
        ])
        .unwrap();
        assert_eq!(two.environment["CUDA_VISIBLE_DEVICES"], "GPU-b,MIG-x");
        assert_eq!(
            two.nodes,
            [
                "/dev/nvidia-caps/nvidia-cap21",
                "/dev/nvidia-caps/nvidia-cap22",
                "/dev/nvidia1",
                "/dev/nvidia2"
            ]
        );
        let old = of(&[DeviceKey::Mig("GPU-c".into(), 2, 0)]).unwrap();
        assert_eq!(old.environment["CUDA_VISIBLE_DEVICES"], "MIG-GPU-c/2/0");
        for (bad, why) in [
            (DeviceKey::Gpu("GPU-z".into()), "not on this node"),
            (DeviceKey::Vgpu("v".into()), "virtual machine"),
        ] {
            assert!(of(&[bad]).unwrap_err().contains(why));
        }
        // An instance whose capability the driver does not name cannot be opened by anybody.
        std::fs::remove_file(
            dir.path()
                .join("driver/nvidia/capabilities/gpu2/mig/gi2/ci0/access"),
        )
        .unwrap();
        assert!(of(&[DeviceKey::Mig("GPU-c".into(), 2, 0)]).is_err());
    }
}
