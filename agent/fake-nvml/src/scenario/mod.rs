//! What a scenario file may say: the driver, its GPUs, the processes on them, and what goes wrong.
//!
//! A field that is absent is a thing this node does not know; the library then answers "not supported" instead of
//! inventing a number.

mod check;
#[cfg(test)]
mod documented;
mod gpu;
mod nvlink;
mod vgpu;

use serde::{Deserialize, Serialize};

pub use check::ScenarioError;
pub(crate) use gpu::pci_numbers;
pub use gpu::{Architecture, Clocks, ComputeMode, Gpu, Mig, Pcie, RemappedRows, Virtualization};
pub use nvlink::{NvLinkEnd, NvLinks};
pub use vgpu::{Licence, Vgpu};

/// A whole node as NVML would show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub driver_version: String,
    pub nvml_version: String,
    /// As `nvmlSystemGetCudaDriverVersion` gives it: 12040 is 12.4.
    pub cuda_version: i32,
    /// What every `nvmlInit*` answers: 0, or for example 9 (driver not loaded), 18 (library mismatch), 999.
    #[serde(default, skip_serializing_if = "is_default")]
    pub init_return: u32,
    /// What each call costs; up to 1 ms the processor is kept busy, beyond that the thread sleeps.
    #[serde(default, skip_serializing_if = "is_default")]
    pub call_cost_us: u64,
    /// The element size that the `_v3` process lists write: 24, or 16 or 32 as some drivers did by mistake.
    #[serde(default = "element_bytes", skip_serializing_if = "is_element_bytes")]
    pub process_element_bytes: u32,
    /// Functions that answer 13 (function not found). The symbols themselves stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_symbols: Vec<String>,
    #[serde(default, rename = "gpu", skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// GPUs that the driver leaves out (`NVreg_ExcludedGpus`): neither counted nor given a handle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<Excluded>,
    #[serde(default, rename = "process", skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<Process>,
    #[serde(default, rename = "fault", skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    #[serde(default, rename = "event", skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
}

/// A GPU that the driver leaves out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Excluded {
    pub uuid: String,
    /// `DDDDDDDD:BB:DD.F`
    pub pci_bus_id: String,
}

/// A real process that is said to use a GPU. The library lists it only while it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    pub pid: u32,
    /// Tells this process from a later one with the same pid: clock ticks, field 22 of `/proc/PID/stat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<u64>,
    /// UUID, PCI bus id or index in a file; always the UUID once loaded.
    pub gpu: String,
    /// GPU instance; absent on a GPU that is not in MIG mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gi: Option<u32>,
    /// Compute instance; 0 when only `gi` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci: Option<u32>,
    /// Absent means that the driver cannot tell (`NVML_VALUE_NOT_AVAILABLE`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: Kind,
    /// Percent of the SMs; makes the process show up in `nvmlDeviceGetProcessUtilization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sm_percent: Option<u32>,
    /// Percent of the time in which it keeps tensor cores busy, as GPM tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensor_percent: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_percent: Option<u32>,
    /// How old its newest utilisation sample is, as the driver keeps those of an idle process.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sample_age_ms: u64,
    /// The pid by which its utilisation samples name it, as a driver does that mixes pid namespaces; absent: its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_pid: Option<u32>,
    /// List it whatever `/proc` says: pid 0, a pid of another namespace, a driver that forgets to clean up.
    #[serde(default, skip_serializing_if = "is_default")]
    pub phantom: bool,
}

/// Which of NVML's three process lists shows a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    #[default]
    Compute,
    Graphics,
    Mps,
}

/// Something that goes wrong in one function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The exact C name, or `*` for every function.
    pub function: String,
    /// Only calls about this GPU (UUID, PCI bus id or index) or this MIG or vGPU instance (UUID); absent: every call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    pub action: Action,
    /// What `return` answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// How long `delay` waits before the call goes on as usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
    /// The first matching call that is hit; counted in each process from when it first sees the fault.
    #[serde(default = "first_call", skip_serializing_if = "is_first_call")]
    pub from_call: u64,
    /// How many calls are hit; 0 means all of them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub times: u64,
    /// Wall clock, milliseconds since 1970, from which calls are hit; absent: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_unix_ms: Option<u64>,
    /// Wall clock, milliseconds since 1970, from which none is hit any more and one that hangs goes on; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_unix_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Never comes back, until the fault leaves the file.
    Hang,
    Delay,
    Return,
    /// The process dies of SIGSEGV inside the call.
    Crash,
}

/// A driver event, delivered once to every event set that was registered before the event was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Grows from event to event; a set delivers what is above the highest id at its registration.
    pub id: u64,
    pub gpu: String,
    /// The XID; absent makes it a MIG configuration change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xid: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gi: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci: Option<u32>,
}

impl Fault {
    /// Whether it hits calls at this moment, milliseconds since 1970.
    pub fn is_on(&self, unix_ms: u64) -> bool {
        self.from_unix_ms.is_none_or(|from| unix_ms >= from)
            && self.until_unix_ms.is_none_or(|until| unix_ms < until)
    }

    /// A fault that hits every call of `function`.
    pub fn new(function: &str, action: Action) -> Self {
        Self {
            function: function.to_owned(),
            gpu: None,
            action,
            code: None,
            ms: None,
            from_call: 1,
            times: 0,
            from_unix_ms: None,
            until_unix_ms: None,
        }
    }
}

impl Process {
    /// A compute process on a whole GPU, tied to the live process behind `pid` if there is one.
    pub fn new(gpu: &str, pid: u32) -> Self {
        Self {
            pid,
            start_time: crate::process::start_time(pid),
            gpu: gpu.to_owned(),
            gi: None,
            ci: None,
            memory_mib: None,
            kind: Kind::Compute,
            sm_percent: None,
            tensor_percent: None,
            memory_percent: None,
            sample_age_ms: 0,
            sample_pid: None,
            phantom: false,
        }
    }
}

fn element_bytes() -> u32 {
    24
}

fn first_call() -> u64 {
    1
}

// Serde's `skip_serializing_if` hands over a reference.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_element_bytes(bytes: &u32) -> bool {
    *bytes == element_bytes()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_first_call(call: &u64) -> bool {
    *call == first_call()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
