//! What a GPU is, as opposed to what happens on it: asked rarely, told by the worker once and again when it changed.

use serde::{Deserialize, Serialize};

/// Facts of one GPU that change rarely or never while the driver runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuFacts {
    /// As in [`super::GpuReading`].
    pub pci_bus_id: String,
    /// `nvmlDeviceGetSerial`: the number printed on the board.
    pub serial: Option<String>,
    /// `nvmlDeviceGetBoardPartNumber`.
    pub board_part_number: Option<String>,
    /// `nvmlDeviceGetVbiosVersion`.
    pub vbios_version: Option<String>,
    /// `nvmlDeviceGetPersistenceMode`: without it the GPU is set up anew whenever nobody has it open.
    pub persistence: Option<bool>,
    /// `nvmlDeviceGetEccMode`: errors in memory are corrected.
    pub ecc: Option<bool>,
    /// `nvmlDeviceGetTotalEccErrors`: errors that could not be corrected since the driver was loaded.
    pub ecc_uncorrected_errors: Option<u64>,
    /// Rows of memory that spare ones replaced; not known while MIG instances exist.
    pub remapped_rows: Option<RemappedRows>,
    /// `nvmlDeviceGetHostVgpuMode`: how it gives vGPUs to virtual machines; `None` when it does not.
    pub host_vgpu_mode: Option<HostMode>,
    /// NUMA node nearest to it: sysfs, or `nvmlDeviceGetNumaNodeId` where GPUs are nodes of their own.
    pub numa_node: Option<u32>,
    /// What its active NVLinks lead to, each once; `None`: not known.
    pub nvlinks: Option<Vec<NvLink>>,
}

/// How a host gives vGPUs to virtual machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostMode {
    /// As virtual functions.
    Sriov,
    /// As mediated devices.
    NonSriov,
}

/// `nvmlDeviceGetRemappedRows`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemappedRows {
    /// Because of errors that could be corrected.
    pub correctable: u32,
    /// Because of errors that could not.
    pub uncorrectable: u32,
    /// The next reset will replace some more.
    pub pending: bool,
    /// One could not be replaced: there are no spare ones left.
    pub failed: bool,
}

/// A GPU of this host that NVML does not show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HiddenGpu {
    /// As NVML writes it.
    pub pci_bus_id: String,
    /// `None` for one that the driver does not have.
    pub uuid: Option<String>,
    /// Who has it.
    pub why: Why,
}

/// Why NVML does not show a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The driver leaves it out (`nvmlGetExcludedDeviceInfoByIndex`).
    Excluded,
    /// It is bound to vfio, for a virtual machine (sysfs).
    Passthrough,
}

impl Why {
    /// As in JSON, in the table and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Excluded => "excluded",
            Self::Passthrough => "passthrough",
        }
    }
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
