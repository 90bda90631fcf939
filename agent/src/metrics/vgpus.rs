//! Rows about vGPUs: what their guests use, and whether they may. Pure.

use gpuquota_proto::exposition::{Families, truth};

use crate::gpu::reading::{Health, Licence};
use crate::observation::{Device, DeviceKey, Observation, Vgpu};

pub(super) fn add(families: &mut Families, observation: &Observation) {
    let mut gauge = |name, help, of: &dyn Fn(&Device, &Vgpu) -> Option<f64>| {
        let mut rows = families.gauge(name, help);
        for (uuid, device, vgpu) in answering(observation) {
            if let Some(value) = of(device, vgpu) {
                let vm = vgpu.vm.as_deref().unwrap_or("");
                rows.row(
                    &[("uuid", uuid), ("vm", vm), ("type", &device.model)],
                    value,
                );
            }
        }
    };
    gauge(
        "gpuquota_vgpu_licensed",
        "Whether the guest of a vGPU holds a licence; absent while that is not known.",
        &|_, vgpu| match vgpu.licence {
            Licence::Licensed => Some(truth(true)),
            Licence::Unlicensed => Some(truth(false)),
            Licence::Unknown => None,
        },
    );
    gauge(
        "gpuquota_vgpu_licence_expires_timestamp_seconds",
        "When the licence of a vGPU's guest ends; absent without an end, or while it is not known.",
        &|_, vgpu| vgpu.licence_expires_at_s.map(|at| at as f64),
    );
    gauge(
        "gpuquota_vgpu_fb_bytes",
        "Framebuffer that the guest of a vGPU uses.",
        &|device, _| device.memory.map(|memory| memory.used as f64),
    );
    gauge(
        "gpuquota_vgpu_sm_ratio",
        "Share of its GPU's SMs that a vGPU keeps busy; absent without a sample, and on MIG.",
        &|device, _| {
            device
                .whole
                .percent
                .map(|percent| f64::from(percent) / 100.0)
        },
    );
}

/// UUID, device and facts of each vGPU that is known to run.
fn answering(observation: &Observation) -> impl Iterator<Item = (&str, &Device, &Vgpu)> {
    observation.devices.iter().filter_map(|(key, device)| {
        let DeviceKey::Vgpu(uuid) = key else {
            return None;
        };
        let vgpu = device.vgpu.as_ref()?;
        (device.health == Health::Ok).then_some((uuid.as_str(), device, vgpu))
    })
}
