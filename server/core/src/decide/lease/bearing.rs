//! What the dedicated quotas of a tenant bear together: they need not be about the same nodes, so their sum says too
//! little of each node, and what each node may have says too little of all.
//!
//! A choice of devices that the quotas bear is found wherever there is one. Only where the number of nodes is bounded too
//! that would be a search without end: nodes with the same quotas are alike, so it is tried how many of each sort to
//! take, and [`MOST_WAYS`] ways at most, which suffices for two quotas and a bound of 255 nodes. After that the best way
//! so far counts.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::why::denied;
use crate::device::DeviceKey;
use crate::explain::Denied;
use crate::explanation::{Change, Explanation, MOST_NAMED, Rule};
use crate::id::{NodeName, TenantName};
use crate::lease::LeaseTerms;
use crate::placement::{NoPlace, Offer, Wish, place};
use crate::quota::Quota;
use crate::state::{Group, State};
use crate::usage::{Charged, Kind, Laid, bearing, dedicated_to};

/// Ways to take nodes of several sorts that are tried at most.
const MOST_WAYS: usize = 65_536;

/// Why no devices are given.
pub(super) enum NotGiven {
    /// There are none, whatever the quotas bear.
    NoPlace(NoPlace),
    /// The quotas bear so many.
    NotBorne(u64),
}

/// A tenant's quotas, and what is charged to them.
pub(super) struct Bearing<'a> {
    order: Vec<&'a Quota>,
    laid: Laid,
}

/// Devices that a node may give, as far as the quotas let it.
struct Sort {
    kind: Kind,
    most: u32,
}

impl<'a> Bearing<'a> {
    pub(super) fn of(state: &'a State, tenant: &TenantName) -> Self {
        let quotas: Vec<&Quota> = state.quotas_of(tenant).collect();
        let charged = Charged::of(state, tenant, &quotas);
        Self {
            order: charged.order,
            laid: charged.laid,
        }
    }

    /// How many of so many more the quotas bear that are leased as a number.
    pub(super) fn numbers(&mut self, group: &Group, count: u64) -> u64 {
        let kind = self.laid.kind(&bearing(&self.order, group));
        self.laid.bears(kind, count)
    }

    /// The best devices that the quotas bear.
    pub(super) fn choose<'o>(
        &mut self,
        wish: &Wish,
        mut offers: Vec<Offer<'o>>,
        group: &Group,
    ) -> Result<Vec<(&'o NodeName, &'o DeviceKey)>, NotGiven> {
        let kind_at = |offer: &Offer<'_>| {
            let fitting = dedicated_to(&self.order, offer.node, &group.model);
            self.laid.kind(&fitting)
        };
        let kinds: Vec<Kind> = offers.iter().map(kind_at).collect();
        let mut bears: BTreeMap<Kind, u32> = BTreeMap::new();
        for kind in &kinds {
            let most = || number(self.laid.bears(*kind, wish.count.into()));
            bears.entry(*kind).or_insert_with(most);
        }
        let rooms: Vec<u32> = offers.iter().map(|offer| offer.room).collect();
        for (offer, kind) in offers.iter_mut().zip(&kinds) {
            offer.room = offer.room.min(bears.get(kind).copied().unwrap_or(0));
        }
        let none = match place(wish, &offers) {
            Ok(chosen) if self.bears_all(&chosen, &offers, &kinds) => return Ok(chosen),
            Ok(_) => None,
            Err(none) => Some(none),
        };
        for (offer, room) in offers.iter_mut().zip(rooms) {
            offer.room = room;
        }
        if let (Err(_), Some(none)) = (place(wish, &offers), none) {
            return Err(NotGiven::NoPlace(none));
        }
        let sorts: Vec<Sort> = offers
            .iter()
            .zip(&kinds)
            .map(|(offer, kind)| Sort {
                kind: *kind,
                most: offer.room.min(number(offer.free.len() as u64)),
            })
            .collect();
        let shares = shares(&self.laid, &sorts, &offers, wish).map_err(NotGiven::NotBorne)?;
        for (offer, share) in offers.iter_mut().zip(shares) {
            offer.room = share;
        }
        place(wish, &offers).map_err(NotGiven::NoPlace)
    }

    fn bears_all(
        &self,
        chosen: &[(&NodeName, &DeviceKey)],
        offers: &[Offer<'_>],
        kinds: &[Kind],
    ) -> bool {
        let kind_of: BTreeMap<&NodeName, Kind> = offers
            .iter()
            .map(|offer| offer.node)
            .zip(kinds.iter().copied())
            .collect();
        let mut laid = self.laid.clone();
        let mut kinds = chosen.iter().map(|(node, _)| kind_of.get(node));
        kinds.all(|kind| kind.is_some_and(|kind| laid.lay_one(*kind).is_some()))
    }
}

// How many each node gives, or how many all can give together.
fn shares(laid: &Laid, sorts: &[Sort], offers: &[Offer<'_>], wish: &Wish) -> Result<Vec<u32>, u64> {
    let most_nodes = wish.most_nodes.map_or(sorts.len(), |most| most as usize);
    let all: Vec<usize> = (0..sorts.len()).collect();
    let mut filled = fill(laid, sorts, offers, &all, most_nodes, wish.count);
    if filled.sum < wish.count.into() && most_nodes < sorts.len() {
        let among = best_nodes(laid, sorts, most_nodes, wish.count);
        let tried = fill(laid, sorts, offers, &among, most_nodes, wish.count);
        if tried.sum > filled.sum {
            filled = tried;
        }
    }
    if filled.sum < wish.count.into() {
        return Err(filled.sum);
    }
    if !wish.spread {
        return Ok(filled.shares);
    }
    // Further nodes only add to what can be borne.
    let (mut among, others): (Vec<usize>, Vec<usize>) =
        all.into_iter().partition(|at| filled.shares[*at] > 0);
    among.extend(others);
    among.truncate(most_nodes);
    Ok(even(laid, sorts, &among, wish.count))
}

struct Filled {
    shares: Vec<u32>,
    sum: u64,
}

// The node that can give most comes first, then one in use before an unused one. Whatever is taken first, the whole that
// can be borne stays the same.
fn fill(
    laid: &Laid,
    sorts: &[Sort],
    offers: &[Offer<'_>],
    among: &[usize],
    most_nodes: usize,
    count: u32,
) -> Filled {
    let mut laid = laid.clone();
    let mut filled = Filled {
        shares: vec![0; sorts.len()],
        sum: 0,
    };
    let mut left = among.to_vec();
    for _ in 0..most_nodes {
        let rest = u64::from(count) - filled.sum;
        let mut bears: BTreeMap<Kind, u64> = BTreeMap::new();
        for at in &left {
            let kind = sorts[*at].kind;
            bears.entry(kind).or_insert_with(|| laid.bears(kind, rest));
        }
        let gives = |at: &usize| bears[&sorts[*at].kind].min(sorts[*at].most.into());
        let rank = |at: &usize| {
            let offer = &offers[*at];
            let unused = offer.devices_in_use == 0;
            (Reverse(gives(at)), unused, offer.free.len(), offer.node)
        };
        let Some(best) = left.iter().copied().min_by_key(rank) else {
            break;
        };
        let share = gives(&best);
        if share == 0 {
            break;
        }
        laid.lay(sorts[best].kind, share);
        filled.shares[best] = number(share);
        filled.sum += share;
        left.retain(|at| *at != best);
    }
    filled
}

// One more for each in turn, so that none has more than it must.
fn even(laid: &Laid, sorts: &[Sort], among: &[usize], count: u32) -> Vec<u32> {
    let mut laid = laid.clone();
    let mut shares = vec![0; sorts.len()];
    let mut rest = count;
    let mut open = among.to_vec();
    while rest > 0 && !open.is_empty() {
        open.retain(|at| {
            let sort = &sorts[*at];
            let more = rest > 0 && shares[*at] < sort.most && laid.lay_one(sort.kind).is_some();
            shares[*at] += u32::from(more);
            rest -= u32::from(more);
            more
        });
    }
    shares
}

// So many nodes that can give most together: of each sort those that have most.
fn best_nodes(laid: &Laid, sorts: &[Sort], most_nodes: usize, count: u32) -> Vec<usize> {
    let mut by_kind: BTreeMap<Kind, Vec<usize>> = BTreeMap::new();
    for (at, sort) in sorts.iter().enumerate() {
        by_kind.entry(sort.kind).or_default().push(at);
    }
    let mut groups: Vec<(Kind, Vec<usize>)> = by_kind.into_iter().collect();
    for (_, nodes) in &mut groups {
        nodes.sort_by_key(|at| Reverse(sorts[*at].most));
    }
    let mut search = Search {
        sorts,
        groups: &groups,
        count: count.into(),
        ways: MOST_WAYS,
        best: (0, Vec::new()),
    };
    search.look(laid, 0, most_nodes, &mut Vec::new());
    let (_, taken) = search.best;
    let nodes = groups.iter().zip(taken);
    nodes
        .flat_map(|((_, nodes), taken)| nodes.iter().copied().take(taken))
        .collect()
}

struct Search<'s> {
    sorts: &'s [Sort],
    groups: &'s [(Kind, Vec<usize>)],
    count: u64,
    ways: usize,
    /// What they give, and how many nodes of each sort those are.
    best: (u64, Vec<usize>),
}

impl Search<'_> {
    fn look(&mut self, laid: &Laid, borne: u64, left: usize, taken: &mut Vec<usize>) {
        let Some((kind, nodes)) = self.groups.get(taken.len()) else {
            self.ways = self.ways.saturating_sub(1);
            if borne > self.best.0 {
                self.best = (borne, taken.clone());
            }
            return;
        };
        let most = left.min(nodes.len());
        // Nodes that are not taken here are left to the sorts that follow; after the last there are none.
        let least = match taken.len() + 1 == self.groups.len() {
            true => most,
            false => 0,
        };
        for take in (least..=most).rev() {
            if self.ways == 0 || self.best.0 >= self.count {
                return;
            }
            let caps = nodes
                .iter()
                .take(take)
                .map(|at| u64::from(self.sorts[*at].most));
            let wanted = caps.sum::<u64>().min(self.count - borne);
            let mut laid = laid.clone();
            let (more, _) = laid.lay(*kind, wanted);
            taken.push(take);
            self.look(&laid, borne + more, left - take, taken);
            taken.pop();
        }
    }
}

impl State {
    /// The dedicated quotas have room for it in all, but not on the nodes that have devices.
    pub(super) fn not_borne(&self, terms: &LeaseTerms, group: &Group, borne: u64) -> Denied {
        let asked = u64::from(terms.count);
        let quotas = self.quotas_in(&terms.tenant, group);
        let because = quotas
            .filter(|quota| quota.in_force())
            .map(|quota| Explanation {
                limit: Some(quota.limit),
                nodes: quota.nodes.iter().take(MOST_NAMED).cloned().collect(),
                ..Explanation::new(
                    Rule::OverQuota,
                    format!(
                        "the {} quota {} grants {} in all, on its {} nodes",
                        quota.key.source.as_str(),
                        quota.id.0,
                        quota.limit,
                        quota.nodes.len()
                    ),
                )
            });
        let text = format!(
            "the dedicated quotas are about different nodes: together they bear {borne} more where devices can \
             be given, and {asked} are asked for"
        );
        denied(Explanation {
            asked: Some(asked),
            admit: Some(match borne {
                0 => Change::AskOperator,
                count => Change::AskFor { count },
            }),
            because: because.collect(),
            ..self.account(Rule::OverQuota, text, &terms.tenant, group)
        })
    }
}

fn number(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
