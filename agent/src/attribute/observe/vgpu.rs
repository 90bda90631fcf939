//! vGPU instances as devices: a VM holds its vGPU as long as the vGPU exists, whether anything computes in it or not.

use std::collections::BTreeMap;

use super::Names;
use crate::attribute::pattern::is_model_name;
use crate::gpu::reading::{Doubt, Health, Memory, VgpuReading};
use crate::observation::{Device, DeviceKey, Observation, Vgpu, WholeUse};

/// What quotas call a vGPU whose type is not known: no quota can be meant for it.
const UNKNOWN_TYPE: &str = "nvidia.com/vgpu-unknown";

/// One vGPU instance on the GPU `parent`.
pub(super) fn device(vgpu: VgpuReading, parent: &str, names: &Names<'_>) -> (DeviceKey, Device) {
    let sizes = vgpu.framebuffer_bytes.zip(vgpu.used_bytes);
    let device = Device {
        health: Health::Ok,
        gpu_model: gpu_model(names.models, vgpu.type_name.as_deref()),
        model: vgpu.type_name.unwrap_or_default(),
        // The driver's reserve is the GPU's; a vGPU has none of its own.
        memory: sizes.map(|(total, used)| Memory {
            total,
            reserved: Some(0),
            free: total.saturating_sub(used),
            used,
        }),
        whole: WholeUse {
            percent: vgpu.sm_percent,
            exact: true,
        },
        vgpu: Some(Vgpu {
            parent: parent.to_owned(),
            owner: names.vms.owner(vgpu.vm.as_deref()),
            vm: vgpu.vm,
            gi: vgpu.gi,
            placement_id: vgpu.placement_id,
            guest_driver: vgpu.guest_driver,
            licence: vgpu.licence,
            licence_expires_at_s: vgpu.licence_expires_at_s,
        }),
        ..Device::default()
    };
    (DeviceKey::Vgpu(vgpu.uuid), device)
}

/// The vGPU instances that `parent` had, where it is not known which it has: held as they were.
pub(super) fn as_before(
    parent: &str,
    health: Health,
    previous: Option<&Observation>,
) -> Vec<(DeviceKey, Device)> {
    let before = previous.into_iter().flat_map(|previous| &previous.devices);
    let on_parent = before.filter(|(_, device)| {
        let vgpu = device.vgpu.as_ref();
        vgpu.is_some_and(|vgpu| vgpu.parent == parent)
    });
    let silent = |device: &Device| Device {
        health,
        memory: None,
        whole: WholeUse::default(),
        ..device.clone()
    };
    on_parent
        .map(|(key, device)| (key.clone(), silent(device)))
        .collect()
}

/// Whether a vGPU that its GPU lists no more has ended, where those that take turns on GPU instances may not be asked for: it has when
/// it stood in the GPU's own list, as all do that were seen under the same doubt.
pub(super) fn ended(key: &DeviceKey, parent: &str, previous: Option<&Observation>) -> bool {
    let before = |key: &DeviceKey| previous.and_then(|previous| previous.devices.get(key));
    let doubted = before(&DeviceKey::Gpu(parent.to_owned()))
        .is_some_and(|gpu| gpu.doubts.contains(&Doubt::Vgpus));
    doubted && before(key).is_some_and(|vgpu| vgpu.health == Health::Ok)
}

/// The type's name without its maker, e.g. `L40S-8Q`, or what the configuration calls either form.
fn gpu_model(models: &BTreeMap<String, String>, type_name: Option<&str>) -> String {
    let Some(full) = type_name else {
        return UNKNOWN_TYPE.to_owned();
    };
    let short = ["NVIDIA ", "GRID "]
        .iter()
        .find_map(|maker| full.strip_prefix(maker))
        .unwrap_or(full);
    let own = models.get(full).or_else(|| models.get(short));
    let name = own.map_or(short, String::as_str);
    if is_model_name(name) {
        name.to_owned()
    } else {
        UNKNOWN_TYPE.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_called_by_its_short_name_or_as_configured() {
        let models = BTreeMap::from([
            ("NVIDIA L40S-16Q".to_owned(), "tyui-3".to_owned()),
            ("A16-2B".to_owned(), "desk".to_owned()),
        ]);
        for (name, expected) in [
            (Some("NVIDIA L40S-8Q"), "L40S-8Q"),
            (Some("GRID M60-2Q"), "M60-2Q"),
            (Some("A100-4C"), "A100-4C"),
            (Some("NVIDIA L40S-16Q"), "tyui-3"),
            (Some("NVIDIA A16-2B"), "desk"),
            (Some("NVIDIA "), UNKNOWN_TYPE),
            (None, UNKNOWN_TYPE),
        ] {
            assert_eq!(gpu_model(&models, name), expected);
        }
    }
}
