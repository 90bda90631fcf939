//! Devices laid upon quotas that need not be about the same nodes.
//!
//! They come one after the other and stay borne: each is charged to the first of its quotas, in their order, that has
//! room, and to one that is full when what is charged there can be moved to other quotas that fit it. So nothing is over
//! that any distribution would bear, and what is over is what came last. Once all have come, each in turn is charged to
//! the first of its quotas that leaves room for all others. Where the quotas of any two devices are the same or have
//! nothing in common, nothing is ever moved.
//!
//! Devices with the same quotas are one kind and are counted, so one more costs at most a walk over kinds and quotas.

use std::collections::{BTreeMap, VecDeque};

use crate::limit::Limit;
use crate::quota::Quota;

/// A place among the quotas, in the order in which they are filled.
pub(crate) type Place = usize;
/// Devices that the same quotas fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind(usize);

/// How much of what is charged where.
#[derive(Clone, Debug)]
pub(crate) struct Laid {
    /// The quotas of each kind, in order.
    kinds: Vec<Vec<Place>>,
    by_fitting: BTreeMap<Vec<Place>, Kind>,
    /// What is left of each quota; an unlimited one never runs out.
    room: Vec<u64>,
    /// What is charged to each quota, and may be moved.
    at: Vec<BTreeMap<Kind, u64>>,
    moved: bool,
}

impl Laid {
    /// Nothing upon these quotas.
    pub(crate) fn upon(quotas: &[&Quota]) -> Self {
        let room = quotas.iter().map(|quota| match quota.grants() {
            Limit::Unlimited => u64::MAX,
            Limit::Finite(limit) => limit.into(),
        });
        Self {
            kinds: Vec::new(),
            by_fitting: BTreeMap::new(),
            room: room.collect(),
            at: vec![BTreeMap::new(); quotas.len()],
            moved: false,
        }
    }

    /// The kind of devices that these quotas fit, in their order.
    pub(crate) fn kind(&mut self, fitting: &[Place]) -> Kind {
        if let Some(kind) = self.by_fitting.get(fitting) {
            return *kind;
        }
        let kind = Kind(self.kinds.len());
        self.kinds.push(fitting.to_vec());
        self.by_fitting.insert(fitting.to_vec(), kind);
        kind
    }

    /// Lays one more; where it is charged for now, or `None` when no distribution bears it too.
    pub(crate) fn lay_one(&mut self, kind: Kind) -> Option<Place> {
        let mut places = self.fitting(kind).iter();
        if let Some(place) = places.find(|place| self.room[**place] > 0).copied() {
            self.charge(kind, place, 1);
            return Some(place);
        }
        let (_, shares) = self.lay(kind, 1);
        shares.first().map(|(place, _)| *place)
    }

    /// Lays so many more: how many of them are borne, and where they are charged for now.
    pub(crate) fn lay(&mut self, kind: Kind, count: u64) -> (u64, Vec<(Place, u64)>) {
        let shares = self.shares(kind, count);
        (shares.iter().map(|(_, share)| share).sum(), shares)
    }

    /// How many more of a kind would be borne, of so many.
    pub(crate) fn bears(&self, kind: Kind, count: u64) -> u64 {
        let fitting = self.fitting(kind).iter();
        let free = fitting.fold(0, |sum: u64, place| sum.saturating_add(self.room[*place]));
        match free >= count {
            true => count,
            false => self.clone().lay(kind, count).0,
        }
    }

    /// Whether anything was moved, so that it is charged elsewhere than [`Self::lay_one`] said.
    pub(crate) fn moved(&self) -> bool {
        self.moved
    }

    /// Charges so many of a kind, which are borne, where they are to stay: to the first of their quotas that leaves room
    /// for all that are not settled yet.
    pub(crate) fn settle(&mut self, kind: Kind, count: u64) -> Vec<(Place, u64)> {
        let mut rest = count;
        for place in 0..self.at.len() {
            let here = self.at[place].get(&kind).copied().unwrap_or(0).min(rest);
            if here > 0 {
                self.take(kind, place, here);
                rest -= here;
            }
        }
        let mut rest = count - rest;
        let mut settled = Vec::new();
        for nth in 0..self.fitting(kind).len() {
            let place = self.fitting(kind)[nth];
            let room = self.make_room(place, rest);
            if room > 0 {
                self.use_up(place, room);
                rest -= room;
                settled.push((place, room));
            }
        }
        settled
    }

    fn shares(&mut self, kind: Kind, count: u64) -> Vec<(Place, u64)> {
        let mut shares = Vec::new();
        let mut rest = count;
        for making_room in [false, true] {
            for nth in 0..self.fitting(kind).len() {
                let place = self.fitting(kind)[nth];
                let room = match making_room {
                    false => self.room[place].min(rest),
                    true => self.make_room(place, rest),
                };
                if room > 0 {
                    self.charge(kind, place, room);
                    shares.push((place, room));
                    rest -= room;
                }
            }
            if rest == 0 {
                break;
            }
        }
        shares
    }

    fn fitting(&self, kind: Kind) -> &[Place] {
        &self.kinds[kind.0]
    }

    fn charge(&mut self, kind: Kind, place: Place, count: u64) {
        self.use_up(place, count);
        *self.at[place].entry(kind).or_default() += count;
    }

    fn take(&mut self, kind: Kind, place: Place, count: u64) {
        if self.room[place] < u64::MAX {
            self.room[place] += count;
        }
        if let Some(here) = self.at[place].get_mut(&kind) {
            *here -= count;
            if *here == 0 {
                self.at[place].remove(&kind);
            }
        }
    }

    fn use_up(&mut self, place: Place, count: u64) {
        if self.room[place] < u64::MAX {
            self.room[place] -= count;
        }
    }

    // Moves what is charged there to other quotas until there is so much room, or no more to be had.
    fn make_room(&mut self, place: Place, wanted: u64) -> u64 {
        while self.room[place] < wanted {
            let Some(steps) = self.way_out(place) else {
                break;
            };
            let last = steps.last().map_or(0, |(_, _, to)| self.room[*to]);
            let least = steps.iter().fold(last, |least, (from, kind, _)| {
                least.min(self.at[*from].get(kind).copied().unwrap_or(0))
            });
            let count = least.min(wanted - self.room[place]);
            for (from, kind, to) in steps.into_iter().rev() {
                self.take(kind, from, count);
                self.charge(kind, to, count);
            }
            self.moved = true;
        }
        self.room[place].min(wanted)
    }

    // The shortest chain of moves that ends where there is room; the first in order of those.
    fn way_out(&self, full: Place) -> Option<Vec<(Place, Kind, Place)>> {
        let mut came: BTreeMap<Place, (Place, Kind)> = BTreeMap::new();
        let mut queue = VecDeque::from([full]);
        while let Some(from) = queue.pop_front() {
            for kind in self.at[from].keys() {
                for to in self.fitting(*kind) {
                    if *to == full || came.contains_key(to) {
                        continue;
                    }
                    came.insert(*to, (from, *kind));
                    if self.room[*to] > 0 {
                        return Some(steps(&came, full, *to));
                    }
                    queue.push_back(*to);
                }
            }
        }
        None
    }
}

fn steps(
    came: &BTreeMap<Place, (Place, Kind)>,
    full: Place,
    end: Place,
) -> Vec<(Place, Kind, Place)> {
    let mut steps = Vec::new();
    let mut to = end;
    while to != full {
        let Some((from, kind)) = came.get(&to) else {
            break;
        };
        steps.push((*from, *kind, to));
        to = *from;
    }
    steps.reverse();
    steps
}
