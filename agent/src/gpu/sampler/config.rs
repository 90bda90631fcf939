//! How NVML is read, and what a sample gives.

use std::path::PathBuf;
use std::time::Duration;

use crate::gpu::leaf::Leaf;
use crate::gpu::reading::{NvmlState, Reading};
use crate::sysfs::PciBus;

/// How NVML is read.
#[derive(Clone, Debug)]
pub struct SamplerConfig {
    /// The program that has the subcommand `nvml-worker`.
    pub program: PathBuf,
    /// NVML to load; the system's when absent. Checked by [`crate::gpu::library::check_library`] whenever a worker is started.
    pub nvml_library: Option<PathBuf>,
    /// Where the proc file system is.
    pub proc_root: PathBuf,
    /// A call that takes longer has hung.
    pub call_deadline: Duration,
    /// First and longest pause after NVML as a whole failed.
    pub retry: (Duration, Duration),
    /// First and longest pause between two probes of a GPU in quarantine.
    pub probe: (Duration, Duration),
    /// First and longest pause before NVML is initialised anew because a GPU is lost: it may have been reset.
    pub lost: (Duration, Duration),
    /// What the kernel says of the GPUs.
    pub bus: PciBus,
    /// First and longest pause between two trials of a library that was replaced on disk.
    pub renewal: (Duration, Duration),
    /// Where workers live; with the agent when absent.
    pub leaf: Option<Leaf>,
    /// Listen for driver events; with the first and longest pause after a worker that listened came to grief.
    pub events: Option<(Duration, Duration)>,
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self {
            // This very program, also after an upgrade has replaced its file.
            program: PathBuf::from("/proc/self/exe"),
            nvml_library: None,
            proc_root: PathBuf::from("/proc"),
            call_deadline: Duration::from_secs(2),
            retry: (Duration::from_secs(1), Duration::from_secs(15)),
            probe: (Duration::from_secs(2), Duration::from_secs(60)),
            lost: (Duration::from_secs(60), Duration::from_secs(600)),
            bus: PciBus::default(),
            renewal: (Duration::from_secs(10), Duration::from_secs(300)),
            leaf: None,
            events: Some((Duration::from_secs(30), Duration::from_secs(600))),
        }
    }
}

/// What one sample gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Collected {
    /// Whether NVML answers.
    pub nvml: NvmlState,
    /// `None` when it does not.
    pub reading: Option<Reading>,
    /// CLOCK_BOOTTIME before the reading began, milliseconds: a process that started later is not in it.
    pub asked_boottime_ms: u64,
}

/// Counters and states for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SamplerStats {
    /// Workers started, probes included.
    pub workers_started: u64,
    /// Workers that died or had to be ended.
    pub workers_restarted: u64,
    /// Workers that could not be killed and are still there.
    pub workers_abandoned: usize,
    /// Newest NVML return code that is a fault, 0 when the last sample had none.
    pub last_return_code: u32,
    /// NVML calls of all samples that succeeded.
    pub nvml_calls: u64,
    /// Another library lies on disk than the worker has loaded.
    pub library_outdated: bool,
    /// Times that a worker with another library took over.
    pub library_changes: u64,
    /// GPUs in quarantine.
    pub quarantined: usize,
    /// GPUs that are there but cannot be named, because they were lost or hung before the agent ever read them.
    pub unidentified: u32,
}
