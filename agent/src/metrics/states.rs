//! Rows about how many GPUs are in what state, and which. They are told also while readings are not fresh. Pure.

use std::collections::BTreeSet;

use gpuquota_proto::exposition::Families;

use crate::gpu::reading::{Health, NvmlState, Why};
use crate::observation::{Device, DeviceKey, Observation};
use crate::report::wire::health_text;

use super::snapshot::View;

/// `overdue`: the last pass was good and the next one does not come back, so that nothing is known to answer.
pub(super) fn add(families: &mut Families, view: &View, observation: &Observation, overdue: bool) {
    let health_of = |gpu: &Device| match gpu.health {
        Health::Ok if overdue => Health::Unknown,
        health => health,
    };
    let gpus: Vec<(&str, &Device)> = observation
        .devices
        .iter()
        .filter_map(|(key, device)| match key {
            DeviceKey::Gpu(uuid) => Some((uuid.as_str(), device)),
            DeviceKey::Mig(..) | DeviceKey::Vgpu(_) => None,
        })
        .collect();
    // Without an answer from NVML, no GPU seen is not the same as no GPU there.
    if observation.nvml != NvmlState::Ok && gpus.is_empty() {
        return;
    }
    let unnamed = &view.pass.unnamed;
    let mut rows = families.gauge("gpuquota_gpus", "GPUs of this node by state.");
    for health in [Health::Ok, Health::Lost, Health::Hung, Health::Unknown] {
        let named = gpus.iter().filter(|(_, gpu)| health_of(gpu) == health);
        let nameless = unnamed.iter().filter(|gpu| gpu.health == health);
        let count = named.count() + nameless.count();
        rows.row(&[("state", health_text(health))], count as f64);
    }
    for why in [Why::Excluded, Why::Passthrough] {
        let count = observation.hidden.iter().filter(|gpu| gpu.why == why);
        rows.row(&[("state", why.as_str())], count.count() as f64);
    }
    let mut rows = families.gauge(
        "gpuquota_gpu_state",
        "1 for the state of each GPU; uuid is empty where nobody has read it yet, pci_bus_id where it is not known, and what lacks both has one row.",
    );
    let named = gpus.iter().map(|(uuid, gpu)| {
        let pci = gpu.pci_bus_id().unwrap_or_default();
        (*uuid, pci, health_text(health_of(gpu)))
    });
    let nameless = unnamed.iter().map(|gpu| {
        let pci = gpu.pci_bus_id.as_deref().unwrap_or_default();
        ("", pci, health_text(gpu.health))
    });
    let hidden = observation.hidden.iter().map(|gpu| {
        let uuid = gpu.uuid.as_deref().unwrap_or_default();
        (uuid, gpu.pci_bus_id.as_str(), gpu.why.as_str())
    });
    let told: BTreeSet<_> = named.chain(nameless).chain(hidden).collect();
    for (uuid, pci, state) in told {
        let labels = [("uuid", uuid), ("pci_bus_id", pci), ("state", state)];
        rows.row(&labels, 1.0);
    }
}
