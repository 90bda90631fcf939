//! Which free devices a lease gets: the same devices for the same wish and offers, in whatever order the offers come.
//!
//! The rules, each deciding only what those before it left open:
//!
//! 1. Fewest nodes. With `spread` instead as many nodes as there are devices, and those as evenly as they allow: the
//!    most loaded one as little as can be, then the next. `most_nodes` bounds both.
//! 2. Whole nodes stay whole: fewest nodes that nothing uses yet, then least left over on the nodes taken from. Nodes
//!    in use are filled first and the larger ones first, so what is left over is all on one node.
//! 3. Whole GPUs stay whole, for MIG and vGPU instances: free instances of GPUs in use go first, the fullest GPU first
//!    (by the part of its instances in use, then fewer free ones), then the fewest untouched GPUs, the last of them
//!    the one with the least left over.
//! 4. Full GPUs: one NVLink island and the smallest that holds them, else the fewest islands; then, within an island and
//!    between islands that fit equally, the fewest NUMA nodes. The GPUs of a node whose island is unknown count as
//!    one island, those whose NUMA node is unknown as one NUMA node; a known one of equal fit wins.
//! 5. The lower node name, then the lower device key.
//!
//! Between nodes that rule 2 finds equal, the one where rules 3 and 4 cost less wins: fewer untouched GPUs, fewer
//! islands, fewer NUMA nodes.
//!
//! Exact: whether the wish fits, the number of nodes, the number of unused nodes, all of `spread` in rules 1 and 2, and
//! all of a placement on one node. Greedy, because exact would be a knapsack: what is left over when several nodes (or
//! GPUs, or islands) are needed. There the largest are taken and then, from the smallest to the largest, each is
//! exchanged for the one that leaves least and still suffices. And rules 3 and 4 weigh a node by the devices that it
//! would give if it were filled, which can differ from what the last of several nodes gives.
//!
//! Time is O(n log n) in free devices, plus the number of chosen nodes times that of different sizes of nodes. What
//! rules 3 and 4 say of a node is reckoned only where it is compared with an equal one.

mod bins;
mod within;

use std::cell::OnceCell;
use std::cmp::Ordering;

use crate::device::DeviceKey;
use crate::id::NodeName;
use bins::Bin;
use within::Cost;

/// What is to be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Devices, 1 or more.
    pub count: u32,
    /// On as many nodes as there are devices, instead of as few as possible.
    pub spread: bool,
    /// Never on more nodes than this; `None` is no bound.
    pub most_nodes: Option<u32>,
}

/// What one node offers. A node stands in at most one offer, a device in at most one slot.
#[derive(Clone, Debug)]
pub struct Offer<'a> {
    /// Whose devices.
    pub node: &'a NodeName,
    /// How many of them this tenant may get here: per-node limits, host cores and memory are taken into account.
    pub room: u32,
    /// Devices of this node that are leased or held, of any model.
    pub devices_in_use: u32,
    /// Free devices of the wished model.
    pub free: Vec<Slot<'a>>,
}

impl Offer<'_> {
    /// Free devices.
    fn free(&self) -> u32 {
        number(self.free.len())
    }

    /// Free devices that this tenant may get.
    fn admitted(&self) -> u32 {
        self.free().min(self.room)
    }
}

/// One free device.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a> {
    /// Its address.
    pub key: &'a DeviceKey,
    /// UUID of the physical GPU.
    pub gpu: &'a str,
    /// Other instances of that GPU that are in use.
    pub siblings_in_use: u32,
    /// Other instances of that GPU, in use or not.
    pub siblings: u32,
    /// NUMA node of the GPU; `None` is unknown.
    pub numa: Option<u32>,
    /// NVLink island of the GPU, numbered on its node; `None` is unknown.
    pub nvlink: Option<u32>,
}

/// Why nothing fits: what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{free} devices are free, {admitted} of them within the limits of their nodes, {most_on_one_node} on one node, \
     {within_most_nodes} on as many nodes as the wish allows"
)]
pub struct NoPlace {
    /// Free devices.
    pub free: u32,
    /// Free devices within each node's room.
    pub admitted: u32,
    /// The most of those on one node.
    pub most_on_one_node: u32,
    /// The most of those on as many nodes as the wish allows.
    pub within_most_nodes: u32,
}

impl NoPlace {
    fn of(offers: &[Offer<'_>], most_nodes: Option<u32>) -> Self {
        let sum = |parts: &[u32]| {
            parts
                .iter()
                .fold(0, |sum: u32, part| sum.saturating_add(*part))
        };
        let free: Vec<u32> = offers.iter().map(Offer::free).collect();
        let mut admitted: Vec<u32> = offers.iter().map(Offer::admitted).collect();
        admitted.sort_unstable_by(|one, other| other.cmp(one));
        let nodes = bound(most_nodes).min(admitted.len());
        Self {
            free: sum(&free),
            admitted: sum(&admitted),
            most_on_one_node: admitted.first().copied().unwrap_or(0),
            within_most_nodes: sum(admitted.get(..nodes).unwrap_or_default()),
        }
    }
}

/// The chosen devices, ascending by node and key.
///
/// # Errors
/// What there is, when that is less than the wish.
pub fn place<'a>(
    wish: &Wish,
    offers: &[Offer<'a>],
) -> Result<Vec<(&'a NodeName, &'a DeviceKey)>, NoPlace> {
    let there_is = NoPlace::of(offers, wish.most_nodes);
    if there_is.within_most_nodes < wish.count {
        return Err(there_is);
    }
    let candidates = Candidate::all(wish, offers);
    let nodes: Vec<Bin<&Candidate<'_, 'a>>> = candidates.iter().map(Candidate::bin).collect();
    let shares = if wish.spread {
        bins::even(&nodes, wish.count, bound(wish.most_nodes))
    } else {
        bins::fewest(&nodes, wish.count)
    };
    let mut chosen = Vec::new();
    for (Candidate { offer, .. }, share) in shares {
        let slots = within::choose(&offer.free, share).slots;
        chosen.extend(slots.into_iter().map(|slot| (offer.node, slot.key)));
    }
    chosen.sort_unstable();
    // A lease of another size than was asked for would be charged wrongly, so this is checked in release builds too.
    if number(chosen.len()) == wish.count {
        Ok(chosen)
    } else {
        Err(there_is)
    }
}

/// A node that can give something. The lesser one wins between equals.
struct Candidate<'o, 'a> {
    offer: &'o Offer<'a>,
    /// Devices that it would give if it were filled, or if they were spread over all nodes.
    share: u32,
    /// What those cost; reckoned only when two candidates are compared.
    cost: OnceCell<Cost>,
}

impl<'o, 'a> Candidate<'o, 'a> {
    fn all(wish: &Wish, offers: &'o [Offer<'a>]) -> Vec<Self> {
        let giving = offers.iter().filter(|offer| offer.admitted() > 0);
        let most_per_node = if wish.spread {
            let nodes = giving.clone().count().min(bound(wish.most_nodes));
            wish.count.div_ceil(number(nodes).max(1))
        } else {
            wish.count
        };
        let candidate = |offer: &'o Offer<'a>| Self {
            offer,
            share: offer.admitted().min(most_per_node),
            cost: OnceCell::new(),
        };
        giving.map(candidate).collect()
    }

    fn bin(&self) -> Bin<&Self> {
        Bin {
            item: self,
            opens: self.offer.devices_in_use == 0,
            holds: self.offer.admitted(),
            free: self.offer.free(),
        }
    }

    fn cost(&self) -> &Cost {
        let reckon = || within::choose(&self.offer.free, self.share).cost;
        self.cost.get_or_init(reckon)
    }
}

impl Ord for Candidate<'_, '_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let cost = self.cost().cmp(other.cost());
        cost.then_with(|| self.offer.node.cmp(other.offer.node))
    }
}

impl PartialOrd for Candidate<'_, '_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate<'_, '_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate<'_, '_> {}

/// A bound on the number of nodes as a length.
fn bound(most_nodes: Option<u32>) -> usize {
    most_nodes.map_or(usize::MAX, |most| {
        usize::try_from(most).unwrap_or(usize::MAX)
    })
}

/// A length as a number of devices.
fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
