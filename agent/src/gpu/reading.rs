//! What one pass over NVML gave. Unknown is `None`, never 0; the worker process sends this to the agent.

mod doubt;
mod facts;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::gauges::{Activity, Gauges};
pub use doubt::Doubt;
pub use facts::{GpuFacts, HiddenGpu, HostMode, NvLink, NvLinkEnd, RemappedRows, Why};

/// One pass over all GPUs of the node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// `nvmlSystemGetDriverVersion`.
    pub driver_version: Option<String>,
    /// Every GPU that NVML counts, in its order. A GPU that cannot be read is here too, marked.
    pub gpus: Vec<GpuReading>,
    /// GPUs of this host that NVML does not show.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<HiddenGpu>,
}

/// One physical GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuReading {
    /// `nvmlDeviceGetUUID`, e.g. `GPU-…`. The address of a GPU together with `pci_bus_id`; never its index.
    pub uuid: String,
    /// `nvmlDeviceGetPciInfo_v3` bus id, e.g. `00000000:18:00.0`.
    pub pci_bus_id: String,
    /// For display only: it shifts when a GPU is lost.
    pub index: u32,
    /// N of `/dev/nvidiaN`.
    pub minor: Option<u32>,
    /// Product name, e.g. `NVIDIA H100 80GB HBM3`.
    pub name: Option<String>,
    /// Whether the rest of this row can be trusted.
    pub health: Health,
    /// MIG mode is on: the GPU is held through `instances` only.
    pub mig_enabled: Option<bool>,
    /// It is cut into vGPUs for virtual machines: held through `vgpus` only. `None`: it did not say yet.
    pub vgpu_host: Option<bool>,
    /// Framebuffer of the whole GPU.
    pub memory: Option<Memory>,
    /// Figures that go to Prometheus and decide nothing.
    pub glow: Glow,
    /// More of that kind, when it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gauges: Option<Gauges>,
    /// What it, or each of its GPU instances, does, when that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub activities: Vec<Activity>,
    /// MIG instances (GPU instance and compute instance pairs).
    pub instances: Vec<MigReading>,
    /// vGPU instances that run on it. `None`: no host, or not known which run.
    pub vgpus: Option<Vec<VgpuReading>>,
    /// All processes on this GPU and its instances, by one query on the parent. `None`: could not be read.
    pub processes: Option<Vec<GpuProcess>>,
    /// Why this row is not the whole truth, or may not be. With any of these, what it shows is no ground for enforcement.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<Doubt>,
    /// What it is. From the worker only when that is new or changed; the agent keeps it and fills it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Arc<GpuFacts>>,
    /// GPUs of this node with the same number are joined by NVLink; one alone has its own. `None`: not known. By the agent.
    #[serde(skip)]
    pub nvlink_island: Option<u32>,
    /// How often its MIG layout changed since the agent began to look. By the agent.
    #[serde(skip)]
    pub mig_generation: u64,
}

/// State of a GPU as far as NVML tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It answers.
    Ok,
    /// NVML code 15: it fell off the bus or needs a reset.
    Lost,
    /// A call on it passed its deadline; it is quarantined and probed by a worker of its own.
    Hung,
    /// NVML as a whole does not answer.
    #[default]
    Unknown,
}

/// `nvmlMemory_v2_t`, bytes. Reserved is a part of its own: `total - free` is not `used`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Installed.
    pub total: u64,
    /// Held by the driver; `None` where only the v1 call exists.
    pub reserved: Option<u64>,
    /// Free.
    pub free: u64,
    /// Held by processes (v2) or by processes and driver (v1).
    pub used: u64,
}

/// Optional gauges of one GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Glow {
    /// 0..=100; not available in MIG mode.
    pub utilization_gpu_percent: Option<u32>,
    /// 0..=100, of the memory's bandwidth; not available in MIG mode.
    #[serde(default)]
    pub utilization_memory_percent: Option<u32>,
    /// Milliwatts.
    pub power_milliwatts: Option<u32>,
    /// Degrees Celsius.
    pub temperature_celsius: Option<u32>,
}

/// One MIG device: a (GPU instance, compute instance) pair.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MigReading {
    /// `MIG-…`; the same UUID can come back after an identical re-create.
    pub uuid: String,
    /// GPU instance id on its GPU.
    pub gi: u32,
    /// Compute instance id in its GPU instance.
    pub ci: u32,
    /// e.g. `1g.10gb`, `1c.2g.20gb` or `1g.10gb+me`; `None` when it cannot be derived.
    pub profile: Option<String>,
    /// Where its GPU instance lies; `None` when we may not ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Framebuffer of the GPU instance (shared by its compute instances).
    pub memory: Option<Memory>,
    /// Percent of the GPU instance's SMs that all of its compute instances kept busy (GPM); `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sm_percent: Option<u32>,
}

/// Memory slices of a GPU instance, `nvmlGpuInstancePlacement_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The first one.
    pub start: u32,
    /// How many.
    pub size: u32,
}

/// One vGPU instance, which lives as long as its virtual machine runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VgpuReading {
    /// `nvmlVgpuInstanceGetUUID`.
    pub uuid: String,
    /// `nvmlVgpuInstanceGetVmID`: a UUID, or a domain id; `None` when the driver does not say.
    pub vm: Option<String>,
    /// `nvmlVgpuTypeGetName`, e.g. `NVIDIA L40S-8Q`.
    pub type_name: Option<String>,
    /// GPU instance that it lives on; `None`: on the whole GPU, or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gi: Option<u32>,
    /// `nvmlVgpuInstanceGetPlacementId`; `None` on a GPU whose vGPUs are all of one size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement_id: Option<u32>,
    /// `nvmlVgpuInstanceGetVmDriverVersion`; `None` while the guest has loaded none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_driver: Option<String>,
    /// Framebuffer of the type.
    pub framebuffer_bytes: Option<u64>,
    /// What the VM uses of it.
    pub used_bytes: Option<u64>,
    /// Percent of the GPU's SMs that it kept busy; `None` without a sample since the last pass, and on MIG.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sm_percent: Option<u32>,
    /// What the guest's driver says of its licence.
    pub licence: Licence,
    /// When that licence ends, seconds since 1970; `None`: no end, or not known.
    pub licence_expires_at_s: Option<i64>,
}

/// State of a vGPU's licence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Licence {
    /// The guest holds one.
    Licensed,
    /// It does not.
    Unlicensed,
    /// The driver does not say, as while the guest boots.
    Unknown,
}

impl Licence {
    /// As in JSON, in the table and in the holder digest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Licensed => "licensed",
            Self::Unlicensed => "unlicensed",
            Self::Unknown => "unknown",
        }
    }
}

/// One row of NVML's process list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuProcess {
    /// Host process id; `None` for what the driver lists as 0: it has the memory, and nobody here can name it.
    pub pid: Option<u32>,
    /// GPU instance, `None` outside MIG.
    pub gi: Option<u32>,
    /// Compute instance, `None` outside MIG.
    pub ci: Option<u32>,
    /// Which list it stood in.
    pub kind: ProcessKind,
    /// Bytes of framebuffer; `None` when the driver does not say.
    pub used_memory_bytes: Option<u64>,
    /// Percent of the GPU's SMs; `None` without a sample since the last pass, and on MIG.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sm_percent: Option<u32>,
    /// Percent of the memory's bandwidth; `None` as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_percent: Option<u32>,
}

/// Which of NVML's lists a process stood in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessKind {
    /// `nvmlDeviceGetComputeRunningProcesses`.
    Compute,
    /// `nvmlDeviceGetGraphicsRunningProcesses`.
    Graphics,
    /// `nvmlDeviceGetMPSComputeRunningProcesses`.
    Mps,
}

/// Whether NVML answers on this node, as states that are reported, not errors that stop the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", content = "detail", rename_all = "snake_case")]
pub enum NvmlState {
    /// It answers.
    Ok,
    /// No library on this node.
    Absent(String),
    /// `nvmlInit_v2` gave 9.
    DriverNotLoaded(String),
    /// `nvmlInit_v2` gave 18: library and kernel module differ, usually after an upgrade.
    Mismatch(String),
    /// A call that belongs to no GPU passed its deadline, or too many stuck workers were left behind.
    Unresponsive(String),
    /// The agent was asked to leave the driver alone; why.
    Quiesced(String),
    /// Anything else: worker died, symbol missing, unexpected code.
    Broken(String),
}
