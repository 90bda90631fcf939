//! The JSON of `devices`.

use serde::Serialize;

use super::Look;
use super::missing::Missing;
use super::open;
use crate::gpu::reading::{GpuFacts, HiddenGpu, Licence, NvmlState, ProcessKind};
use crate::observation::{AttributedProcess, Device, DeviceKey, Reason};
use crate::report::wire::health_text;

#[derive(Debug, Serialize)]
pub(super) struct Document<'o> {
    driver: Option<&'o str>,
    devices: Vec<Row<'o>>,
    /// Only when NVML did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'o NvmlState>,
    /// Only while NVML cannot be asked: who has device nodes open.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    open_nodes: Vec<open::NodeRow<'o>>,
    /// Processes that may have more open than that.
    #[serde(skip_serializing_if = "Option::is_none")]
    open_nodes_missed: Option<open::MissedRow>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Row<'o> {
    uuid: Option<&'o str>,
    /// Of the GPU, or of the one that it is a part of.
    pci_bus_id: Option<&'o str>,
    kind: &'static str,
    model: Option<&'o str>,
    gpu_model: Option<&'o str>,
    parent_uuid: Option<&'o str>,
    gi: Option<u32>,
    ci: Option<u32>,
    profile: Option<&'o str>,
    /// What holds a vGPU.
    vm: Option<&'o str>,
    /// Whose that VM is.
    tenant: Option<&'o str>,
    licence: Option<Licence>,
    /// Seconds since 1970; `null`: no end, or not known.
    licence_expires_at_s: Option<i64>,
    /// The driver that a vGPU's guest has loaded.
    guest_driver: Option<&'o str>,
    /// Where a vGPU lies among others of several sizes.
    placement_id: Option<u32>,
    pub(super) memory_total_bytes: Option<u64>,
    pub(super) memory_used_bytes: Option<u64>,
    memory_used_quality: &'static str,
    /// Held by the driver; neither used nor free.
    memory_reserved_bytes: Option<u64>,
    /// Of its SMs (a MIG instance), or the time in which something ran.
    utilization_percent: Option<u32>,
    utilization_quality: &'static str,
    /// `ok`, `lost`, `hung`, `unknown`; of GPUs that NVML does not show `excluded` or `passthrough`.
    state: &'static str,
    /// NUMA node nearest to its GPU.
    numa_node: Option<u32>,
    /// GPUs with the same number are joined by NVLink.
    nvlink_island: Option<u32>,
    /// What a full GPU is.
    gpu: Option<&'o GpuFacts>,
    /// Not known when the driver does not list them; the last known ones while `state` is not ok.
    processes: Option<Vec<ProcessRow<'o>>>,
    /// Why a GPU may hold more than is shown.
    doubts: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
pub(super) struct ProcessRow<'o> {
    /// Not there when the driver does not name the process.
    pid: Option<u32>,
    tenant: Option<&'o str>,
    /// Which kind of rule named the tenant; `system` for the driver's daemons.
    source: Option<&'static str>,
    /// Why it is nobody's.
    reason: Option<&'static str>,
    /// The user or group of a rule that lacks an id, when that is the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// `compute`, `graphics` or `mps`, a client of an MPS server.
    kind: Option<ProcessKind>,
    used_memory_bytes: Option<u64>,
    used_memory_quality: &'static str,
    /// Of the device's SMs.
    sm_percent: Option<u32>,
    sm_quality: &'static str,
}

impl<'o> Row<'o> {
    pub(super) fn new(key: &'o DeviceKey, device: &'o Device) -> Self {
        let (uuid, parent_uuid, place) = match key {
            DeviceKey::Gpu(uuid) => (Some(uuid.as_str()), None, None),
            DeviceKey::Vgpu(uuid) => {
                let parent = device.vgpu.as_ref().map(|vgpu| vgpu.parent.as_str());
                (Some(uuid.as_str()), parent, None)
            }
            DeviceKey::Mig(parent, gi, ci) => (
                device.mig_uuid.as_deref(),
                Some(parent.as_str()),
                Some((*gi, *ci)),
            ),
        };
        // Where the driver does not tell its reserve apart, what processes hold is not known.
        let used = device.memory.filter(|memory| memory.reserved.is_some());
        let facts = device.facts.as_deref();
        let vgpu = device.vgpu.as_ref();
        Self {
            uuid,
            pci_bus_id: device.pci_bus_id(),
            kind: key.kind(),
            model: Some(device.model.as_str()).filter(|model| !model.is_empty()),
            gpu_model: Some(&device.gpu_model),
            parent_uuid,
            gi: place.map(|(gi, _)| gi).or(vgpu.and_then(|vgpu| vgpu.gi)),
            ci: place.map(|(_, ci)| ci),
            profile: device.profile.as_deref(),
            vm: vgpu.and_then(|vgpu| vgpu.vm.as_deref()),
            tenant: vgpu.and_then(|vgpu| vgpu.owner.tenant()),
            licence: vgpu.map(|vgpu| vgpu.licence),
            licence_expires_at_s: vgpu.and_then(|vgpu| vgpu.licence_expires_at_s),
            guest_driver: vgpu.and_then(|vgpu| vgpu.guest_driver.as_deref()),
            placement_id: vgpu.and_then(|vgpu| vgpu.placement_id),
            memory_total_bytes: device.memory.map(|memory| memory.total),
            memory_used_bytes: used.map(|memory| memory.used),
            memory_used_quality: quality(used),
            memory_reserved_bytes: device.memory.and_then(|memory| memory.reserved),
            utilization_percent: device.whole.percent,
            utilization_quality: quality(device.whole.percent),
            state: health_text(device.health),
            numa_node: device.numa_node(),
            nvlink_island: device.nvlink_island,
            gpu: facts.filter(|_| place.is_none() && device.vgpu.is_none()),
            processes: processes(device),
            doubts: device.doubts.iter().map(|doubt| doubt.as_str()).collect(),
        }
    }
}

impl<'o> Row<'o> {
    /// A GPU that NVML does not show: nobody here can hold it.
    fn hidden(gpu: &'o HiddenGpu) -> Self {
        Self {
            uuid: gpu.uuid.as_deref(),
            state: gpu.why.as_str(),
            pci_bus_id: Some(&gpu.pci_bus_id),
            ..Self::nothing()
        }
    }

    /// A GPU that this look could not name.
    fn missing(gpu: &'o Missing) -> Self {
        Self {
            uuid: gpu.uuid.as_deref(),
            state: health_text(gpu.health),
            pci_bus_id: gpu.pci_bus_id.as_deref(),
            ..Self::nothing()
        }
    }

    /// A GPU of which nothing is known.
    fn nothing() -> Self {
        Self {
            kind: "gpu",
            memory_used_quality: quality::<u64>(None),
            utilization_quality: quality::<u32>(None),
            ..Self::default()
        }
    }
}

impl<'o> ProcessRow<'o> {
    pub(super) fn new(process: &'o AttributedProcess) -> Self {
        Self {
            pid: process.pid,
            tenant: process.owner.tenant(),
            source: process.owner.source_text(),
            reason: process.owner.reason().map(Reason::as_str),
            detail: process.owner.lacks().map(ToString::to_string),
            kind: process.kind,
            used_memory_bytes: process.used_memory_bytes,
            used_memory_quality: quality(process.used_memory_bytes),
            sm_percent: process.sm.percent(),
            sm_quality: process.sm.quality(),
        }
    }
}

/// What is known of the processes on it.
fn processes(device: &Device) -> Option<Vec<ProcessRow<'_>>> {
    let unknown = device.unlisted && device.processes.is_empty();
    (!unknown).then(|| device.processes.iter().map(ProcessRow::new).collect())
}

/// The driver says it, or nobody does.
fn quality<T>(figure: Option<T>) -> &'static str {
    match figure {
        Some(_) => "measured",
        None => "unknown",
    }
}

pub(super) fn document(look: &Look) -> Document<'_> {
    let Look {
        observation,
        missing,
        open_nodes,
    } = look;
    Document {
        driver: observation.driver_version.as_deref(),
        devices: observation
            .devices
            .iter()
            .map(|(key, device)| Row::new(key, device))
            .chain(missing.iter().map(Row::missing))
            .chain(observation.hidden.iter().map(Row::hidden))
            .collect(),
        error: Some(&observation.nvml).filter(|state| **state != NvmlState::Ok),
        open_nodes: open_nodes.nodes.iter().map(open::NodeRow::new).collect(),
        open_nodes_missed: open_nodes.missed.map(open::MissedRow::new),
    }
}
