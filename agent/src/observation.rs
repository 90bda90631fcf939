//! A reading joined with what the kernel says of its processes: which tenant holds which device right now.

mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use usage::{Figure, WholeUse, of_process, unattributed_bytes};

use crate::attribute::NamedId;
use crate::gpu::gauges::{Activity, Gauges};
use crate::gpu::reading::{
    Doubt, Glow, GpuFacts, Health, HiddenGpu, Licence, Memory, NvmlState, ProcessKind,
};

/// The address of one thing that can be held. Ordered and displayed by UUID, never by index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DeviceKey {
    /// A full GPU.
    Gpu(String),
    /// A MIG instance: UUID of its GPU, GPU instance, compute instance.
    Mig(String, u32, u32),
    /// A vGPU instance by its own UUID.
    Vgpu(String),
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpu(uuid) | Self::Vgpu(uuid) => f.write_str(uuid),
            Self::Mig(uuid, gi, ci) => write!(f, "{uuid}/{gi}/{ci}"),
        }
    }
}

impl DeviceKey {
    /// `gpu`, `mig` or `vgpu`, as in metrics, JSON and the holder digest.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Gpu(_) => "gpu",
            Self::Mig(..) => "mig",
            Self::Vgpu(_) => "vgpu",
        }
    }
}

/// All devices of the node at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// CLOCK_BOOTTIME of the reading, milliseconds.
    pub at_boottime_ms: u64,
    /// Whether NVML answers.
    pub nvml: NvmlState,
    /// Driver version where known.
    pub driver_version: Option<String>,
    /// Every device by its key. While `health` is not ok the holders are the last known ones.
    pub devices: BTreeMap<DeviceKey, Device>,
    /// GPUs of this host that NVML does not show; the last known ones while it does not answer.
    pub hidden: Vec<HiddenGpu>,
}

/// One device and who is on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Device {
    /// Whether what follows is fresh.
    pub health: Health,
    /// NVML's name of the product or the vGPU type; empty when unknown.
    pub model: String,
    /// What quotas call it, e.g. `nvidia.com/gpu` or `nvidia.com/mig-1g.10gb`.
    pub gpu_model: String,
    /// MIG profile.
    pub profile: Option<String>,
    /// `MIG-…` for a MIG instance.
    pub mig_uuid: Option<String>,
    /// `/dev/nvidiaN` of the GPU.
    pub minor: Option<u32>,
    /// A GPU in MIG mode or a vGPU host, or a MIG instance of a host: it is seen, but only what it is cut into can be held.
    pub partitioned: bool,
    /// Framebuffer; `None` when unknown.
    pub memory: Option<Memory>,
    /// Processes with whom they belong to, by pid.
    pub processes: Vec<AttributedProcess>,
    /// The driver did not tell its processes: `processes` are those that were known before, if any.
    pub unlisted: bool,
    /// Why what is shown of a whole GPU may not be the whole truth.
    pub doubts: Vec<Doubt>,
    /// What only a vGPU instance has.
    pub vgpu: Option<Vgpu>,
    /// What is known of the GPU, or of the one that it is a part of.
    pub facts: Option<Arc<GpuFacts>>,
    /// GPUs of this node with the same number are joined by NVLink; one alone has its own. `None`: not known.
    pub nvlink_island: Option<u32>,
    /// How often the MIG layout of this GPU changed since the agent began to look; `None` where it was never cut.
    pub mig_generation: Option<u64>,
    /// How busy it is as a whole.
    pub whole: WholeUse,
    /// What only a whole GPU has.
    pub readout: Option<Readout>,
}

/// Where a GPU is and what it shows beside who holds it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readout {
    /// Index at NVML, for display only.
    pub index: u32,
    /// PCI bus id as NVML writes it.
    pub pci_bus_id: String,
    /// Figures of each reading.
    pub glow: Glow,
    /// Figures that are read only while somebody scrapes them.
    pub gauges: Option<Gauges>,
    /// What it, or each of its GPU instances, does, likewise.
    pub activities: Vec<Activity>,
}

impl Device {
    /// NUMA node nearest to its GPU.
    #[must_use]
    pub fn numa_node(&self) -> Option<u32> {
        self.facts.as_ref().and_then(|facts| facts.numa_node)
    }

    /// PCI bus id, as NVML writes it, of its GPU.
    #[must_use]
    pub fn pci_bus_id(&self) -> Option<&str> {
        let shown = self.readout.as_ref().map(|readout| &readout.pci_bus_id);
        let known = || self.facts.as_ref().map(|facts| &facts.pci_bus_id);
        shown.or_else(known).map(String::as_str)
    }

    /// Whose the processes here are, and whose the VM is.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        let processes = self.processes.iter().map(|process| &process.owner);
        processes.chain(self.vgpu.as_ref().map(|vgpu| &vgpu.owner))
    }

    /// Tenants with at least one process, or the VM, here.
    #[must_use]
    pub fn tenants(&self) -> BTreeSet<&str> {
        self.owners().filter_map(Owner::tenant).collect()
    }

    /// At least one process, or the VM, belongs to no known tenant.
    #[must_use]
    pub fn unattributed(&self) -> bool {
        self.owners().any(|owner| owner.reason().is_some())
    }
}

/// What only a vGPU instance has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vgpu {
    /// UUID of the GPU that it lives on.
    pub parent: String,
    /// UUID or id of the VM that holds it; `None` when the driver does not say.
    pub vm: Option<String>,
    /// GPU instance that it lives on; `None`: on the whole GPU, or not known.
    pub gi: Option<u32>,
    /// Where it lies on a GPU with vGPUs of several sizes.
    pub placement_id: Option<u32>,
    /// The driver that the guest has loaded.
    pub guest_driver: Option<String>,
    /// Whose that VM is.
    pub owner: Owner,
    /// Whether the guest has a licence.
    pub licence: Licence,
    /// When that licence ends, seconds since 1970; `None`: no end, or not known.
    pub licence_expires_at_s: Option<i64>,
}

/// One process on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributedProcess {
    /// Host process id; `None` for memory whose process the driver does not name.
    pub pid: Option<u32>,
    /// Field 22 of `/proc/PID/stat`, clock ticks since boot; `None` when it was gone already.
    pub start_time: Option<u64>,
    /// Whose it is.
    pub owner: Owner,
    /// Which of the driver's lists it stood in; `None`: in none, it was found otherwise.
    pub kind: Option<ProcessKind>,
    /// Framebuffer of this process, bytes; `None` when the driver does not say.
    pub used_memory_bytes: Option<u64>,
    /// Percent of the device's SMs.
    pub sm: Figure,
}

/// Whose a process or a virtual machine is, and by which evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A tenant, by this source.
    Tenant {
        /// The tenant's name.
        name: String,
        /// What matched.
        source: Source,
    },
    /// The driver's own daemons and the agent: they hold nothing for anybody.
    System,
    /// Nobody that the rules know.
    Unattributed(Reason),
    /// Nobody for now: a rule that may be about it names a user or group whose id is not known yet.
    Unresolved(NamedId),
}

impl Owner {
    /// The tenant's name, if it is a tenant's.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        match self {
            Self::Tenant { name, .. } => Some(name),
            Self::System | Self::Unattributed(_) | Self::Unresolved(_) => None,
        }
    }

    /// Which evidence says so, as in metrics and JSON; `system` for the driver's daemons.
    #[must_use]
    pub fn source_text(&self) -> Option<&'static str> {
        match self {
            Self::Tenant { source, .. } => Some(source.as_str()),
            Self::System => Some("system"),
            Self::Unattributed(_) | Self::Unresolved(_) => None,
        }
    }

    /// Why it is nobody's.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Unattributed(reason) => Some(*reason),
            Self::Unresolved(_) => Some(Reason::Unresolved),
            Self::Tenant { .. } | Self::System => None,
        }
    }
}

impl Owner {
    /// The user or group without which it cannot be told whose it is.
    #[must_use]
    pub fn lacks(&self) -> Option<&NamedId> {
        match self {
            Self::Unresolved(name) => Some(name),
            Self::Tenant { .. } | Self::System | Self::Unattributed(_) => None,
        }
    }
}

/// Evidence by which a tenant was found; label `source` of `gpuquota_processes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A systemd slice in the process's cgroup path.
    Slice,
    /// A systemd unit (service or scope) in the process's cgroup path.
    Unit,
    /// The user of the Slurm job in the process's cgroup path.
    SlurmUser,
    /// The account of the Slurm job in the process's cgroup path.
    SlurmAccount,
    /// The namespace of the Kubernetes pod in the process's cgroup path.
    PodNamespace,
    /// A label of that pod.
    PodLabel,
    /// The name of the container in the process's cgroup path.
    ContainerName,
    /// A label of that container.
    ContainerLabel,
    /// The user id or name of the process.
    User,
    /// The group id or name of the process.
    Group,
    /// Who logged in and started the process.
    Login,
    /// The table of registered (pid, start time) that only the agent's owner can write.
    Registered,
    /// The control group that the privileged half made for a lease.
    Lease,
    /// The virtual machine that holds a vGPU.
    Vm,
}

impl Source {
    /// As in metrics and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slice => "slice",
            Self::Unit => "unit",
            Self::SlurmUser => "slurm_user",
            Self::SlurmAccount => "slurm_account",
            Self::PodNamespace => "pod_namespace",
            Self::PodLabel => "pod_label",
            Self::ContainerName => "container_name",
            Self::ContainerLabel => "container_label",
            Self::User => "user",
            Self::Group => "group",
            Self::Login => "login",
            Self::Registered => "registered",
            Self::Lease => "lease",
            Self::Vm => "vm",
        }
    }
}

/// Why a process or a virtual machine has no tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No rule matched.
    NoRule,
    /// It had gone before the kernel could be asked.
    Gone,
    /// The kernel refused the answer.
    Denied,
    /// The driver does not say which virtual machine holds the vGPU.
    VmUnknown,
    /// Whoever made its container, pod or job has been asked and has not answered yet.
    Pending,
    /// Whoever could tell does not answer.
    RuntimeUnreachable,
    /// The runtime knows no such container.
    ContainerUnknown,
    /// Nobody knows the pod.
    PodUnknown,
    /// Nobody knows the job, or whose it is.
    JobUnknown,
    /// The agent is not in the host's pid namespace: the driver's pids are other processes here.
    ForeignPidNamespace,
    /// A rule that may be about it names a user or group that this host does not know yet.
    Unresolved,
    /// Who answers for its job names another user than the process's own.
    JobContradicts,
    /// What is said of its container or pod is too large or not understood; others are not affected.
    AnswerUnreadable,
    /// The driver lists it without a pid: it runs in another namespace or machine, or is at its end.
    Nameless,
    /// The driver calls processes by different pids in different answers: which process it means is not known.
    PidsDisagree,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::NoRule,
        Self::Gone,
        Self::Denied,
        Self::VmUnknown,
        Self::Pending,
        Self::RuntimeUnreachable,
        Self::ContainerUnknown,
        Self::PodUnknown,
        Self::JobUnknown,
        Self::ForeignPidNamespace,
        Self::Unresolved,
        Self::JobContradicts,
        Self::AnswerUnreadable,
        Self::Nameless,
        Self::PidsDisagree,
    ];

    /// As in metrics and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRule => "no_rule",
            Self::Gone => "gone",
            Self::Denied => "denied",
            Self::VmUnknown => "vm_unknown",
            Self::Pending => "pending",
            Self::RuntimeUnreachable => "runtime_unreachable",
            Self::ContainerUnknown => "container_unknown",
            Self::PodUnknown => "pod_unknown",
            Self::JobUnknown => "job_unknown",
            Self::ForeignPidNamespace => "foreign_pid_namespace",
            Self::Unresolved => "unresolved",
            Self::JobContradicts => "job_contradicts",
            Self::AnswerUnreadable => "answer_unreadable",
            Self::Nameless => "nameless",
            Self::PidsDisagree => "pids_disagree",
        }
    }
}
