//! Which devices of one node: whole GPUs are kept whole, islands and NUMA nodes together.

use std::cmp::Ordering;

use super::bins::{Bin, fewest};
use super::{Slot, number};
use crate::device::{DeviceKey, DeviceKind};

/// Devices of one node and what taking them costs.
pub(super) struct Choice<'o, 'a> {
    pub(super) slots: Vec<&'o Slot<'a>>,
    pub(super) cost: Cost,
}

/// What is broken up or spread within a node; the least is best.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost {
    /// GPUs of which no instance was in use.
    opened_gpus: usize,
    islands: Groups,
    numa_nodes: Groups,
}

/// How many islands or NUMA nodes, the unknown one included, and how many of them are unknown.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Groups {
    all: usize,
    unknown: usize,
}

impl Groups {
    fn of(slots: &[&Slot<'_>], group: impl Fn(&Slot<'_>) -> Option<u32>) -> Self {
        let mut groups: Vec<Option<u32>> = slots.iter().map(|slot| group(slot)).collect();
        groups.sort_unstable();
        groups.dedup();
        Self {
            all: groups.len(),
            unknown: groups.iter().filter(|group| group.is_none()).count(),
        }
    }
}

/// The best `count` of these devices, or all when they are fewer.
pub(super) fn choose<'o, 'a>(free: &'o [Slot<'a>], count: u32) -> Choice<'o, 'a> {
    let slots: Vec<&Slot<'a>> = free.iter().collect();
    if slots.iter().all(|slot| slot.key.kind() == DeviceKind::Gpu) {
        let slots = full_gpus(slots, count);
        let cost = Cost {
            opened_gpus: 0,
            islands: Groups::of(&slots, |slot| slot.nvlink),
            numa_nodes: Groups::of(&slots, |slot| slot.numa),
        };
        Choice { slots, cost }
    } else {
        instances(slots, count)
    }
}

fn instances<'o, 'a>(mut slots: Vec<&'o Slot<'a>>, count: u32) -> Choice<'o, 'a> {
    slots.sort_unstable_by_key(|slot| (slot.gpu, slot.key));
    let gpus = slots.chunk_by(|one, other| one.gpu == other.gpu);
    let (mut touched, untouched): (Vec<_>, Vec<_>) =
        gpus.partition(|gpu| gpu.iter().any(|slot| slot.siblings_in_use > 0));
    touched.sort_by(|one, other| fuller_first(one, other));

    let mut chosen = Vec::new();
    let mut rest = count;
    for gpu in touched {
        let share = rest.min(number(gpu.len()));
        chosen.extend(first(gpu, share));
        rest -= share;
    }
    let bins: Vec<_> = untouched
        .into_iter()
        .map(|gpu| Group::new(gpu, false).bin())
        .collect();
    let shares = fewest(&bins, rest);
    let cost = Cost {
        opened_gpus: shares.len(),
        ..Cost::default()
    };
    chosen.extend(
        shares
            .into_iter()
            .flat_map(|(gpu, share)| first(gpu.slots, share)),
    );
    Choice {
        slots: chosen,
        cost,
    }
}

/// GPUs with the larger part of their instances in use come first, then those with fewer free ones.
fn fuller_first(one: &[&Slot<'_>], other: &[&Slot<'_>]) -> Ordering {
    let part = |gpu: &[&Slot<'_>]| {
        gpu.first().map_or((0, 1), |slot| {
            (
                u64::from(slot.siblings_in_use),
                u64::from(slot.siblings) + 1,
            )
        })
    };
    let ((in_use, all), (others_in_use, others_all)) = (part(one), part(other));
    (others_in_use * all)
        .cmp(&(in_use * others_all))
        .then_with(|| one.len().cmp(&other.len()))
        .then_with(|| lowest_key(one).cmp(&lowest_key(other)))
}

fn full_gpus<'o, 'a>(mut slots: Vec<&'o Slot<'a>>, count: u32) -> Vec<&'o Slot<'a>> {
    if number(slots.len()) <= count {
        return slots;
    }
    slots.sort_unstable_by_key(|slot| (slot.nvlink, slot.numa, slot.key));
    let islands = slots.chunk_by(|one, other| one.nvlink == other.nvlink);
    let bins: Vec<_> = islands
        .map(|island| {
            let unknown = island.iter().any(|slot| slot.nvlink.is_none());
            let numa_nodes = Groups::of(&on_numa_nodes(island, count), |slot| slot.numa);
            let group = Group {
                numa_nodes,
                ..Group::new(island, unknown)
            };
            group.bin()
        })
        .collect();
    let parts = fewest(&bins, count).into_iter();
    parts
        .flat_map(|(island, share)| on_numa_nodes(island.slots, share))
        .collect()
}

/// The best `count` GPUs of one island, which is sorted by NUMA node and key.
fn on_numa_nodes<'o, 'a>(island: &[&'o Slot<'a>], count: u32) -> Vec<&'o Slot<'a>> {
    if number(island.len()) <= count {
        return island.to_vec();
    }
    let numa_nodes = island.chunk_by(|one, other| one.numa == other.numa);
    let bins: Vec<_> = numa_nodes
        .map(|slots| Group::new(slots, slots.iter().any(|slot| slot.numa.is_none())).bin())
        .collect();
    let shares = fewest(&bins, count).into_iter();
    shares
        .flat_map(|(numa_node, share)| first(numa_node.slots, share))
        .collect()
}

/// A GPU, an island or a NUMA node. The lesser one wins between equals.
#[derive(Clone, Copy)]
struct Group<'s, 'o, 'a> {
    unknown: bool,
    /// Of an island: those that the wish would be spread over.
    numa_nodes: Groups,
    slots: &'s [&'o Slot<'a>],
}

impl<'s, 'o, 'a> Group<'s, 'o, 'a> {
    fn new(slots: &'s [&'o Slot<'a>], unknown: bool) -> Self {
        Self {
            unknown,
            numa_nodes: Groups::default(),
            slots,
        }
    }

    fn bin(self) -> Bin<Self> {
        let size = number(self.slots.len());
        Bin {
            item: self,
            opens: false,
            holds: size,
            free: size,
        }
    }
}

impl Ord for Group<'_, '_, '_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = (self.unknown, self.numa_nodes).cmp(&(other.unknown, other.numa_nodes));
        rank.then_with(|| lowest_key(self.slots).cmp(&lowest_key(other.slots)))
    }
}

impl PartialOrd for Group<'_, '_, '_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Group<'_, '_, '_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Group<'_, '_, '_> {}

fn first<'s, 'o, 'a>(
    slots: &'s [&'o Slot<'a>],
    count: u32,
) -> impl Iterator<Item = &'o Slot<'a>> + use<'s, 'o, 'a> {
    slots.iter().copied().zip(0..count).map(|(slot, _)| slot)
}

fn lowest_key<'a>(slots: &[&Slot<'a>]) -> Option<&'a DeviceKey> {
    slots.iter().map(|slot| slot.key).min()
}
