//! Where GPUs sit in the machine and which of them NVML does not see, as the kernel says it.

use std::sync::Arc;

use super::reading::{HiddenGpu, Reading, Why};
use crate::sysfs::PciBus;

/// Milliseconds between two looks at the bus.
const LOOK_EVERY_MS: u64 = 60_000;

/// The kernel's word on GPUs, and what it was when last asked.
#[derive(Debug)]
pub(super) struct Places {
    bus: PciBus,
    passthrough: Vec<HiddenGpu>,
    /// PCI bus ids of the GPUs that the driver has.
    held: Vec<String>,
    looked_at_ms: Option<u64>,
}

impl Places {
    pub(super) fn new(bus: PciBus) -> Self {
        Self {
            bus,
            passthrough: Vec::new(),
            held: Vec::new(),
            looked_at_ms: None,
        }
    }

    /// Completes facts that the worker told anew, and adds the GPUs that virtual machines have. The kernel's word on the
    /// nearest NUMA node comes first: where GPUs are NUMA nodes themselves, NVML means the node that the GPU is, and the
    /// processors sit on another one.
    pub(super) fn complete(&mut self, reading: &mut Reading, now_boottime_ms: u64) {
        for facts in reading.gpus.iter_mut().filter_map(|gpu| gpu.facts.as_mut()) {
            if let Some(node) = self.bus.numa_node(&facts.pci_bus_id) {
                Arc::make_mut(facts).numa_node = Some(node);
            }
        }
        let due = |at: u64| now_boottime_ms.saturating_sub(at) >= LOOK_EVERY_MS;
        if self.looked_at_ms.is_none_or(due) {
            self.looked_at_ms = Some(now_boottime_ms);
            self.passthrough = self.bus.passthrough().map(hidden).collect();
            self.held = self.bus.held().collect();
        }
        reading.hidden.extend_from_slice(&self.passthrough);
    }

    /// PCI bus ids of the GPUs that the driver has and this reading does not show.
    pub(super) fn silent(&self, reading: &Reading) -> Vec<String> {
        let shown = |pci: &&String| {
            let gpus = reading.gpus.iter().map(|gpu| &gpu.pci_bus_id);
            let hidden = reading.hidden.iter().map(|gpu| &gpu.pci_bus_id);
            gpus.chain(hidden)
                .any(|shown| shown.eq_ignore_ascii_case(pci))
        };
        let held = self.held.iter();
        held.filter(|pci| !shown(pci)).cloned().collect()
    }
}

fn hidden(pci_bus_id: String) -> HiddenGpu {
    HiddenGpu {
        pci_bus_id,
        uuid: None,
        why: Why::Passthrough,
    }
}
