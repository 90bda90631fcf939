//! What is in a node: as its agent reports it, and as the operator declared it where the agent has not said so yet.

use gpuquota_core::State;
use gpuquota_core::device::DeviceKind;
use gpuquota_core::id::GroupName;
use gpuquota_core::node::Node;

/// A node's hardware; what nobody said is 0. In the order by which nodes are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hardware {
    /// Full GPUs, partitioned or not.
    pub(super) gpus: u32,
    /// Logical CPUs.
    pub(super) cpu_cores: u32,
    /// Main memory.
    pub(super) memory_bytes: u64,
}

impl Hardware {
    /// The largest node of a group.
    pub(super) fn largest(state: &State, group: &GroupName) -> Self {
        let nodes = state.nodes_in(group).filter_map(|name| state.node(name));
        nodes
            .map(|node| Self::of(state, node))
            .max()
            .unwrap_or_default()
    }

    fn of(state: &State, node: &Node) -> Self {
        let declared = node.inventory.as_ref();
        let is_gpu = |key: &&_| {
            state
                .device(key)
                .is_some_and(|device| device.report.key.kind() == DeviceKind::Gpu)
        };
        let gpus = match node.observed_at {
            None => declared.and_then(|inventory| inventory.gpus),
            Some(_) => u32::try_from(node.devices.iter().filter(is_gpu).count()).ok(),
        };
        Self {
            gpus: gpus.unwrap_or(0),
            cpu_cores: node.cpu_cores().unwrap_or(0),
            memory_bytes: node.memory_bytes().unwrap_or(0),
        }
    }
}
