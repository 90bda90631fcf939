//! Where GPUs sit in the machine, as the kernel says it.

use std::sync::Arc;

use super::reading::Reading;
use crate::sysfs::PciBus;

/// Completes facts that the worker told anew. The kernel's word on the nearest NUMA node comes first: where GPUs are NUMA
/// nodes themselves, NVML means the node that the GPU is, and the processors sit on another one.
pub(super) fn complete(reading: &mut Reading, bus: &PciBus) {
    for facts in reading.gpus.iter_mut().filter_map(|gpu| gpu.facts.as_mut()) {
        if let Some(node) = bus.numa_node(&facts.pci_bus_id) {
            Arc::make_mut(facts).numa_node = Some(node);
        }
    }
}
