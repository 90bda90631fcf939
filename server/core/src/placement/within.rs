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
    let (mut touched, mut untouched): (Vec<_>, Vec<_>) =
        gpus.partition(|gpu| gpu.iter().any(|slot| slot.siblings_in_use > 0));
    touched.sort_by(|one, other| fuller_first(one, other));
    untouched.sort_by_key(|gpu| lowest_key(gpu));

    let mut chosen = Vec::new();
    let mut rest = count;
    for gpu in touched {
        let share = rest.min(number(gpu.len()));
        chosen.extend(first(gpu, share));
        rest -= share;
    }
    let shares = fewest(&as_bins(&untouched), rest);
    let cost = Cost {
        opened_gpus: shares.len(),
        ..Cost::default()
    };
    chosen.extend(
        shares
            .into_iter()
            .flat_map(|(gpu, share)| first(gpu, share)),
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
    slots.sort_unstable_by_key(|slot| (slot.nvlink, slot.numa, slot.key));
    let mut islands: Vec<&[&Slot<'a>]> = slots
        .chunk_by(|one, other| one.nvlink == other.nvlink)
        .collect();
    islands.sort_by_cached_key(|island| {
        let unknown = island.iter().any(|slot| slot.nvlink.is_none());
        let numa_nodes = Groups::of(&on_numa_nodes(island, count), |slot| slot.numa);
        (unknown, numa_nodes, lowest_key(island))
    });
    let shares = fewest(&as_bins(&islands), count);
    let parts = shares
        .into_iter()
        .map(|(island, share)| on_numa_nodes(island, share));
    parts.flatten().collect()
}

/// The best `count` GPUs of one island, which is sorted by NUMA node and key.
fn on_numa_nodes<'o, 'a>(island: &[&'o Slot<'a>], count: u32) -> Vec<&'o Slot<'a>> {
    let mut numa_nodes: Vec<&[&Slot<'a>]> = island
        .chunk_by(|one, other| one.numa == other.numa)
        .collect();
    numa_nodes.sort_by_key(|slots| {
        let unknown = slots.iter().any(|slot| slot.numa.is_none());
        (unknown, lowest_key(slots))
    });
    let shares = fewest(&as_bins(&numa_nodes), count);
    shares
        .into_iter()
        .flat_map(|(slots, share)| first(slots, share))
        .collect()
}

/// Groups of devices as bins that are all open already.
fn as_bins<'s, 'o, 'a>(groups: &[&'s [&'o Slot<'a>]]) -> Vec<Bin<&'s [&'o Slot<'a>]>> {
    let bin = |group: &&'s [&'o Slot<'a>]| Bin {
        item: *group,
        opens: false,
        holds: number(group.len()),
        free: number(group.len()),
    };
    groups.iter().map(bin).collect()
}

fn first<'s, 'o, 'a>(
    slots: &'s [&'o Slot<'a>],
    count: u32,
) -> impl Iterator<Item = &'o Slot<'a>> + use<'s, 'o, 'a> {
    slots.iter().copied().zip(0..count).map(|(slot, _)| slot)
}

fn lowest_key<'a>(slots: &[&Slot<'a>]) -> Option<&'a DeviceKey> {
    slots.iter().map(|slot| slot.key).min()
}
