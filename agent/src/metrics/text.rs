//! All rows of `/metrics`, from what the loop left. Pure but for the agent's own process facts.
//!
//! Unknown is absent, never 0. What depends on a reading is left out when the newest one is not good or too old, and row by
//! row for a device that does not answer; what state a GPU is in is always told.

use std::borrow::Cow;
use std::collections::BTreeMap;

use gpuquota_proto::exposition::{Families, Format, Misnamed, truth};

use crate::gpu::reading::{Health, NvmlState};
use crate::observation::{Device, DeviceKey, Figure, Observation, unattributed_bytes};
use crate::report::wire::nvml_text;

use super::snapshot::View;
use super::{
    devices, enforcement, gpus, machine, nodes, own, processes, states, trouble, unresolved,
    uplink, vgpus,
};

const NVML_STATES: [&str; 7] = [
    "ok",
    "absent",
    "driver_not_loaded",
    "mismatch",
    "unresponsive",
    "quiesced",
    "broken",
];

/// The answer to a scrape.
pub(super) fn render(view: &View, format: Format) -> Result<Vec<u8>, Misnamed> {
    let mut families = Families::new(format);
    about_the_agent(&mut families, view);
    if let Some(observation) = view.pass.observation.as_deref() {
        about_nvml(&mut families, view, observation);
        if view.fresh {
            about_devices(&mut families, observation);
            devices::add(&mut families, observation);
            gpus::add(&mut families, observation);
            vgpus::add(&mut families, observation);
            about_tenants(&mut families, observation);
        }
    }
    if let Some(reporting) = &view.reporting {
        uplink::add(&mut families, reporting);
        enforcement::add(&mut families, reporting);
    }
    machine::add(&mut families);
    nodes::add(&mut families, &view.pass.open_nodes);
    unresolved::add(&mut families, &view.pass.unresolved);
    trouble::add(&mut families, &view.pass.trouble);
    own::add(&mut families);
    families.text()
}

fn about_the_agent(families: &mut Families, view: &View) {
    families
        .gauge("gpuquota_agent_build_info", "The program that answers.")
        .row(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    families
        .gauge(
            "gpuquota_up",
            "Whether the newest reading of NVML is good and not older than three intervals.",
        )
        .value(truth(view.fresh));
    if let Some(age) = view.age {
        families
            .gauge(
                "gpuquota_collect_age_seconds",
                "Age of the newest good reading of NVML.",
            )
            .value(age.as_secs_f64());
    }
    families
        .counter(
            "gpuquota_worker_restarts_total",
            "NVML worker processes that died or had to be ended.",
        )
        .value(view.pass.sampler.workers_restarted as f64);
    families
        .gauge(
            "gpuquota_workers_abandoned",
            "NVML worker processes stuck in the driver that could not be ended.",
        )
        .value(view.pass.sampler.workers_abandoned as f64);
    families
        .gauge(
            "gpuquota_nvml_library_outdated",
            "Whether another NVML library lies on disk than the worker has loaded, and gives no reading yet.",
        )
        .value(truth(view.pass.sampler.library_outdated));
    families
        .counter(
            "gpuquota_nvml_library_changes_total",
            "Times that the agent changed over to a library that was replaced on disk.",
        )
        .value(view.pass.sampler.library_changes as f64);
}

fn about_nvml(families: &mut Families, view: &View, observation: &Observation) {
    // A pass that does not come back: that NVML answered before says nothing of now.
    let overdue = !view.fresh && observation.nvml == NvmlState::Ok;
    if !overdue {
        about_its_state(families, view, observation);
    }
    states::add(families, view, observation, overdue);
}

fn about_its_state(families: &mut Families, view: &View, observation: &Observation) {
    let (now, _) = nvml_text(&observation.nvml);
    let mut states = families.gauge(
        "gpuquota_nvml_state",
        "1 for the state in which NVML is on this node.",
    );
    for state in NVML_STATES {
        states.row(&[("state", state)], truth(state == now));
    }
    families
        .gauge(
            "gpuquota_driver_unresponsive",
            "Whether calls into NVML that belong to no single GPU do not return.",
        )
        .value(truth(matches!(
            observation.nvml,
            NvmlState::Unresponsive(_)
        )));
    families
        .gauge(
            "gpuquota_nvml_return_code",
            "Newest NVML return code that is a fault, 0 when the last reading had none.",
        )
        .value(f64::from(view.pass.sampler.last_return_code));
}

fn about_devices(families: &mut Families, observation: &Observation) {
    let mut info = families.gauge(
        "gpuquota_device_info",
        "1 for each device; uuid is the GPU's or the vGPU's, mig_uuid and profile are empty but for a MIG instance.",
    );
    for (key, device) in &observation.devices {
        let minor = device.minor.map(|minor| minor.to_string());
        info.row(
            &[
                ("uuid", gpu_uuid(key)),
                ("mig_uuid", &mig_name(key, device)),
                ("profile", device.profile.as_deref().unwrap_or("")),
                ("minor", minor.as_deref().unwrap_or("")),
                ("kind", key.kind()),
                ("model", &device.model),
                ("gpu_model", &device.gpu_model),
            ],
            1.0,
        );
    }
    let mut generation = families.gauge(
        "gpuquota_mig_generation",
        "How often the MIG layout of a GPU changed since the agent started; absent where it was never cut.",
    );
    for (key, device) in &observation.devices {
        if let Some(changes) = device.mig_generation {
            generation.row(&[("uuid", gpu_uuid(key))], changes as f64);
        }
    }
    let mut unattributed = families.gauge(
        "gpuquota_unattributed_memory_bytes",
        "Framebuffer in use that no known tenant's or system process or VM explains; a GPU instance's is told of its first device.",
    );
    let held: Vec<(&DeviceKey, &Device)> = answering(observation)
        .filter(|(_, device)| !device.partitioned)
        .collect();
    // Keys are in order, so the devices of one GPU instance stand side by side.
    for shared in held.chunk_by(|(a, _), (b, _)| share_memory(a, b)) {
        let devices: Vec<&Device> = shared.iter().map(|(_, device)| *device).collect();
        if let (Some((key, device)), Some(bytes)) = (shared.first(), unattributed_bytes(&devices)) {
            let mig = mig_name(key, device);
            unattributed.row(&[("uuid", gpu_uuid(key)), ("mig", &mig)], bytes as f64);
        }
    }
}

fn about_tenants(families: &mut Families, observation: &Observation) {
    let mut held: BTreeMap<(&str, &str, &str), f64> = BTreeMap::new();
    for (key, device) in answering(observation) {
        for tenant in device.tenants() {
            let held = held.entry((tenant, &device.gpu_model, key.kind()));
            *held.or_default() += 1.0;
        }
    }
    let mut devices = families.gauge(
        "gpuquota_tenant_devices",
        "Devices on which the tenant has at least one process, and vGPUs that its VMs hold.",
    );
    for ((tenant, gpu_model, kind), count) in held {
        let labels = [("tenant", tenant), ("gpu_model", gpu_model), ("kind", kind)];
        devices.row(&labels, count);
    }
    let mut memory = families.gauge(
        "gpuquota_tenant_memory_bytes",
        "Framebuffer held by the tenant's processes, or its VM, on a device; mig is empty but for a MIG instance.",
    );
    for (key, device) in answering(observation) {
        let mig = mig_name(key, device);
        for tenant in device.tenants() {
            if let Some(bytes) = device.memory_of(|owner| owner.tenant() == Some(tenant)) {
                let place = [("tenant", tenant), ("uuid", gpu_uuid(key)), ("mig", &mig)];
                memory.row(&place, bytes as f64);
            }
        }
    }
    about_load(families, observation);
    processes::add(families, observation);
}

fn about_load(families: &mut Families, observation: &Observation) {
    let mut busy: BTreeMap<&str, Figure> = BTreeMap::new();
    for (_, device) in answering(observation) {
        for tenant in device.tenants() {
            let figure = device.sm_of(tenant);
            busy.entry(tenant)
                .and_modify(|sum| *sum = sum.and(figure))
                .or_insert(figure);
        }
    }
    let mut ratio = families.gauge(
        "gpuquota_tenant_sm_ratio",
        "Share of SMs that the tenant's processes keep busy, summed over devices (1 is one whole device); absent when unknown, estimated when a part is.",
    );
    for (tenant, figure) in busy {
        if let Some(percent) = figure.percent() {
            let labels = [("tenant", tenant), ("quality", figure.quality())];
            ratio.row(&labels, f64::from(percent) / 100.0);
        }
    }
}

// Holders and memory of a device that does not answer are those of some time ago.
pub(super) fn answering(observation: &Observation) -> impl Iterator<Item = (&DeviceKey, &Device)> {
    observation
        .devices
        .iter()
        .filter(|(_, device)| device.health == Health::Ok)
}

/// Two compute instances of one GPU instance.
pub(super) fn share_memory(a: &DeviceKey, b: &DeviceKey) -> bool {
    match (a, b) {
        (DeviceKey::Mig(a, gi, _), DeviceKey::Mig(b, other, _)) => (a, gi) == (b, other),
        _ => false,
    }
}

/// What tells a MIG instance from its GPU and the other instances: its UUID, or its ids where NVML lists processes on an instance that
/// it does not show. Empty for anything else.
pub(super) fn mig_name<'d>(key: &DeviceKey, device: &'d Device) -> Cow<'d, str> {
    match (key, &device.mig_uuid) {
        (_, Some(uuid)) => Cow::Borrowed(uuid),
        (DeviceKey::Mig(_, gi, ci), None) => Cow::Owned(format!("{gi}/{ci}")),
        (DeviceKey::Gpu(_) | DeviceKey::Vgpu(_), None) => Cow::Borrowed(""),
    }
}

pub(super) fn gpu_uuid(key: &DeviceKey) -> &str {
    match key {
        DeviceKey::Gpu(uuid) | DeviceKey::Mig(uuid, _, _) | DeviceKey::Vgpu(uuid) => uuid,
    }
}
