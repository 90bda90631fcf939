//! What a GPU is, as opposed to what happens on it: asked rarely, told by the worker once and again when it changed.

use serde::{Deserialize, Serialize};

/// Facts of one GPU that change rarely or never while the driver runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuFacts {
    /// As in [`super::GpuReading`].
    pub pci_bus_id: String,
    /// NUMA node nearest to it: sysfs, or `nvmlDeviceGetNumaNodeId` where GPUs are nodes of their own.
    pub numa_node: Option<u32>,
    /// What its active NVLinks lead to, each once; `None`: not known.
    pub nvlinks: Option<Vec<NvLink>>,
}

/// The other end of an active NVLink.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NvLink {
    /// `nvmlDeviceGetNvLinkRemotePciInfo_v2`: its PCI bus id, written as NVML writes a GPU's.
    pub remote: String,
    /// `nvmlDeviceGetNvLinkRemoteDeviceType`.
    pub kind: NvLinkEnd,
}

/// What joins GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NvLinkEnd {
    /// Another GPU.
    Gpu,
    /// An NVSwitch.
    Switch,
}
