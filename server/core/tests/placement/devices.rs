//! Which devices of a node: rules 3 and 4, and how they choose between nodes that fit equally.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::cases;
use crate::cluster::{Free, Node, Taken, of_gpus, of_instances, placed, shares, wish};

/// Distinct groups of these devices, and how many of those are unknown.
fn groups(slots: &[&Free], group: impl Fn(&Free) -> Option<u32>) -> (usize, usize) {
    let groups: BTreeSet<Option<u32>> = slots.iter().map(|slot| group(slot)).collect();
    (groups.len(), usize::from(groups.contains(&None)))
}

/// Free devices in the groups that these devices are of.
fn touched(node: &Node, slots: &[&Free], same: impl Fn(&Free, &Free) -> bool) -> usize {
    let touched = node
        .free
        .iter()
        .filter(|free| slots.iter().any(|slot| same(slot, free)));
    touched.count()
}

/// What rule 4 makes least, as far as it is exact: everything on one island, else the number of islands.
fn of_island(node: &Node, slots: &[&Free]) -> (usize, usize, usize, usize) {
    let (islands, unknown) = groups(slots, |slot| slot.nvlink);
    if islands == 1 {
        let size = touched(node, slots, |one, other| one.nvlink == other.nvlink);
        (1, size, unknown, groups(slots, |slot| slot.numa).0)
    } else {
        (islands, 0, 0, 0)
    }
}

fn subsets(free: &[Free], count: usize) -> impl Iterator<Item = Vec<&Free>> {
    let all = (0..1_u32 << free.len()).filter(move |set| set.count_ones() as usize == count);
    all.map(move |set| {
        let chosen = (0..).zip(free).filter(|(bit, _)| set >> bit & 1 == 1);
        chosen.map(|(_, free)| free).collect()
    })
}

/// GPUs by UUID: part of its instances in use in 60ths (GPUs have up to 5), free instances, free ones taken.
fn gpus<'n>(node: &'n Node, slots: &[&Free]) -> BTreeMap<&'n str, (u32, u32, u32)> {
    let mut gpus = BTreeMap::new();
    for free in &node.free {
        let in_use = free.siblings_in_use * 60 / (free.siblings + 1);
        let (_, all, taken) = gpus.entry(free.gpu.as_str()).or_insert((in_use, 0, 0));
        *all += 1;
        *taken += u32::from(slots.iter().any(|slot| slot.key == free.key));
    }
    gpus
}

fn untouched_of(node: &Node, slots: &[&Free]) -> usize {
    let opened = gpus(node, slots)
        .into_values()
        .filter(|(in_use, _, taken)| *in_use == 0 && *taken > 0);
    opened.count()
}

proptest! {
    #![proptest_config(cases(1024))]

    #[test]
    fn islands_and_numa_nodes_are_as_brute_force_finds_them(nodes in of_gpus(2, 8), count in 1..12_u32) {
        let Ok(taken) = placed(&wish(count), &nodes) else {
            return Ok(());
        };
        for (node, slots) in &taken {
            let best = subsets(&node.free, slots.len()).map(|slots| of_island(node, &slots)).min();
            prop_assert_eq!(Some(of_island(node, slots)), best);
            if groups(slots, |slot| slot.nvlink).0 == 1 && groups(slots, |slot| slot.numa).0 == 1 {
                let place = |slot: &Free| (slot.nvlink, slot.numa);
                let fit = |slot: &Free| {
                    let size = touched(node, &[slot], |one, other| place(one) == place(other));
                    (size, slot.numa.is_none())
                };
                let island = node.free.iter().filter(|free| free.nvlink == slots[0].nvlink);
                let best = island.map(fit).filter(|(size, _)| *size >= slots.len()).min();
                prop_assert_eq!(Some(fit(slots[0])), best, "smallest NUMA node, a known one first");
            }
        }
    }

    #[test]
    fn whole_gpus_stay_whole(nodes in of_instances(2, 4), count in 1..20_u32) {
        let Ok(taken) = placed(&wish(count), &nodes) else {
            return Ok(());
        };
        for (node, slots) in &taken {
            let gpus = gpus(node, slots);
            for (uuid, (in_use, _, taken)) in &gpus {
                let left = gpus.iter().filter(|(_, (other, free, taken))| other > in_use && free > taken);
                prop_assert!(*taken == 0 || left.count() == 0, "{uuid} before a fuller one");
            }
            let mut untouched: Vec<u32> = gpus.values().filter(|gpu| gpu.0 == 0).map(|gpu| gpu.1).collect();
            untouched.sort_unstable_by_key(|free| Reverse(*free));
            let opened: Vec<_> = gpus.values().filter(|gpu| gpu.0 == 0 && gpu.2 > 0).collect();
            let from_untouched: u32 = opened.iter().map(|gpu| gpu.2).sum();
            let ways = shares(&untouched, from_untouched);
            let used = |way: &Vec<u32>| way.iter().filter(|share| **share > 0).count();
            prop_assert_eq!(Some(opened.len()), ways.iter().map(used).min(), "fewest untouched GPUs");
            if let [only] = opened[..] {
                let best = untouched.iter().filter(|free| **free >= from_untouched).min();
                prop_assert_eq!(Some(&only.1), best, "the GPU with the least left over");
            }
        }
    }

    /// One node suffices, so the choice between nodes is exact in all rules; each node's own choice is what it gives alone.
    #[test]
    fn of_equal_nodes_the_better_kept_together_wins(
        nodes in prop_oneof![of_gpus(6, 4), of_instances(6, 2)],
        count in 1..5_u32,
    ) {
        let rank = |taken: &Taken<'_>| {
            let (node, slots) = taken.first()?;
            let instances = slots.iter().any(|slot| slot.siblings > 0 || slot.gpu != slot.key.to_string());
            let together = if instances {
                (untouched_of(node, slots), (0, 0), (0, 0))
            } else {
                (0, groups(slots, |slot| slot.nvlink), groups(slots, |slot| slot.numa))
            };
            Some((node.in_use == 0, node.free(), together, node.name.clone()))
        };
        let alone = nodes.chunks(1).filter_map(|node| rank(&placed(&wish(count), node).ok()?));
        if let Some(best) = alone.min() {
            prop_assert_eq!(rank(&placed(&wish(count), &nodes).unwrap()), Some(best));
        }
    }
}
