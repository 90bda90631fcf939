//! Which nodes: rules 1, 2 and 5, and what is said when nothing fits.

use std::cmp::Reverse;

use gpuquota_core::placement::{NoPlace, Offer, Wish, place};
use proptest::prelude::*;

use crate::cases;
use crate::cluster::{Node, Taken, of_gpus, of_instances, placed, shares, wish};

/// Nodes, then the most loaded ones, then unused nodes, then what is left over: what spreading makes least.
type Spread = (Reverse<usize>, Vec<u32>, usize, u32);

fn wishes() -> impl Strategy<Value = Wish> {
    let most_nodes = proptest::option::of(0..5_u32);
    (1..14_u32, any::<bool>(), most_nodes).prop_map(|(count, spread, most_nodes)| Wish {
        count,
        spread,
        most_nodes,
    })
}

/// Every possible sharing of the wish among the nodes: node and share, without the nodes that give nothing.
fn possible<'n>(wish: &Wish, nodes: &'n [Node]) -> Vec<Vec<(&'n Node, u32)>> {
    let holds: Vec<u32> = nodes.iter().map(Node::admitted).collect();
    let all = shares(&holds, wish.count).into_iter().map(|shares| {
        let giving = nodes.iter().zip(shares).filter(|(_, share)| *share > 0);
        giving.collect::<Vec<_>>()
    });
    let most = wish
        .most_nodes
        .map_or(usize::MAX, |most| usize::try_from(most).unwrap());
    all.filter(|shares| shares.len() <= most).collect()
}

fn unused(shares: &[(&Node, u32)]) -> usize {
    shares.iter().filter(|(node, _)| node.in_use == 0).count()
}

fn left_over(shares: &[(&Node, u32)]) -> u32 {
    shares.iter().map(|(node, share)| node.free() - share).sum()
}

fn spread(shares: &[(&Node, u32)]) -> Spread {
    let mut loads: Vec<u32> = shares.iter().map(|(_, share)| *share).collect();
    loads.sort_unstable_by_key(|load| Reverse(*load));
    (
        Reverse(shares.len()),
        loads,
        unused(shares),
        left_over(shares),
    )
}

fn as_shares<'n>(taken: &Taken<'n>) -> Vec<(&'n Node, u32)> {
    let share = |slots: &Vec<_>| u32::try_from(slots.len()).unwrap();
    taken
        .iter()
        .map(|(node, slots)| (*node, share(slots)))
        .collect()
}

/// What `NoPlace` must say, counted by choosing nodes in every possible way.
fn there_is(wish: &Wish, nodes: &[Node]) -> NoPlace {
    let most = wish.most_nodes.unwrap_or(u32::MAX);
    let subsets = (0..1_u32 << nodes.len()).filter(|subset| subset.count_ones() <= most);
    let within = subsets.map(|subset| {
        let chosen = (0..).zip(nodes).filter(|(bit, _)| subset >> bit & 1 == 1);
        chosen.map(|(_, node)| node.admitted()).sum()
    });
    NoPlace {
        free: nodes.iter().map(Node::free).sum(),
        admitted: nodes.iter().map(Node::admitted).sum(),
        most_on_one_node: nodes.iter().map(Node::admitted).max().unwrap_or(0),
        within_most_nodes: within.max().unwrap(),
    }
}

proptest! {
    #![proptest_config(cases(1024))]

    #[test]
    fn nodes_are_as_brute_force_finds_them(
        nodes in prop_oneof![of_gpus(4, 4), of_instances(4, 2)],
        wish in wishes(),
    ) {
        let possible = possible(&wish, &nodes);
        let taken = match placed(&wish, &nodes) {
            Ok(taken) => as_shares(&taken),
            Err(no_place) => {
                prop_assert!(possible.is_empty());
                prop_assert_eq!(no_place, there_is(&wish, &nodes));
                return Ok(());
            }
        };
        prop_assert_eq!(taken.iter().map(|(_, share)| share).sum::<u32>(), wish.count);
        prop_assert!(taken.iter().all(|(node, share)| *share <= node.admitted()), "within its room");
        let most = wish.most_nodes.map_or(usize::MAX, |most| usize::try_from(most).unwrap());
        prop_assert!(taken.len() <= most);

        if wish.spread {
            let best = possible.iter().map(|shares| spread(shares)).min();
            prop_assert_eq!(Some(spread(&taken)), best);
        } else {
            let cost = |shares: &[(&Node, u32)]| (shares.len(), unused(shares));
            let best = possible.iter().map(|shares| cost(shares)).min();
            prop_assert_eq!(Some(cost(&taken)), best);
            let partly: Vec<_> = taken.iter().filter(|(node, share)| *share < node.admitted()).collect();
            prop_assert!(partly.len() <= 1, "all that is left over is on one node");
            prop_assert!(partly.iter().all(|(node, _)| node.in_use == 0 || unused(&taken) == 0));
            if taken.len() == 1 {
                let equal = possible.iter().filter(|shares| Some(cost(shares)) == best);
                prop_assert_eq!(Some(left_over(&taken)), equal.map(|shares| left_over(shares)).min());
            }
        }
        if wish.count > 1 {
            prop_assert!(placed(&Wish { count: wish.count - 1, ..wish }, &nodes).is_ok(), "one less fits too");
        }
    }

    /// With several nodes the least left over is not sought among all sets of nodes, but no single exchange is better.
    #[test]
    fn no_other_node_instead_of_a_chosen_one_leaves_less(mut nodes in of_gpus(6, 6), count in 1..24_u32) {
        for node in &mut nodes {
            node.room = u32::MAX;
        }
        let Ok(taken) = placed(&wish(count), &nodes) else {
            return Ok(());
        };
        let chosen: Vec<&Node> = taken.iter().map(|(node, _)| *node).collect();
        let free: u32 = chosen.iter().map(|node| node.free()).sum();
        for other in nodes.iter().filter(|node| chosen.iter().all(|chosen| chosen.name != node.name)) {
            for node in chosen.iter().filter(|node| (node.in_use == 0) == (other.in_use == 0)) {
                let exchanged = free - node.free() + other.free();
                prop_assert!(exchanged < count || exchanged >= free, "{} for {}", other.name, node.name);
            }
        }
    }

    #[test]
    fn the_order_of_offers_and_slots_changes_nothing(
        (one, other) in prop_oneof![of_gpus(4, 5), of_instances(4, 3)].prop_flat_map(|nodes| {
            let shuffled = Just(nodes.clone()).prop_shuffle();
            let shuffled = shuffled.prop_flat_map(|nodes| {
                let each: Vec<_> = nodes.into_iter().map(|node| {
                    let free = Just(node.free.clone()).prop_shuffle();
                    free.prop_map(move |free| Node { free, ..node.clone() })
                }).collect();
                each
            });
            (Just(nodes), shuffled)
        }),
        wish in wishes(),
    ) {
        let first: Vec<Offer<'_>> = one.iter().map(Node::offer).collect();
        let second: Vec<Offer<'_>> = other.iter().map(Node::offer).collect();
        prop_assert_eq!(place(&wish, &first), place(&wish, &second));
    }
}
