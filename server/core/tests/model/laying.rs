//! Where each of a tenant's devices is charged, told by trying: nothing is over that some distribution would bear.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::id::QuotaId;

/// What quotas have left.
pub(crate) type Rooms = BTreeMap<QuotaId, u64>;

/// `things` are one device each, in order, with the quotas that fit it, in order. What comes first is borne first; then
/// each goes to the first of its quotas that leaves room for all that come after it.
pub(crate) fn lay(things: &[Vec<QuotaId>], mut rooms: Rooms) -> Vec<Option<QuotaId>> {
    let mut borne: Vec<usize> = Vec::new();
    for (at, thing) in things.iter().enumerate() {
        let before: Vec<_> = borne.iter().map(|at| &things[*at]).collect();
        if !thing.is_empty() && bear(&before, Some(thing), &rooms) {
            borne.push(at);
        }
    }
    let mut places = vec![None; things.len()];
    for (nth, at) in borne.iter().enumerate() {
        let rest: Vec<_> = borne[nth + 1..].iter().map(|at| &things[*at]).collect();
        let mut fitting = things[*at].iter();
        let place = fitting.find(|quota| {
            let room = rooms.get_mut(quota).unwrap();
            if *room == 0 {
                return false;
            }
            *room -= 1;
            let left = bear(&rest, None, &rooms);
            if !left {
                *rooms.get_mut(quota).unwrap() += 1;
            }
            left
        });
        places[*at] = Some(*place.unwrap());
    }
    places
}

// No set of quotas has less room than there are things that fit nothing else. Things without a common quota, whatever
// lies between, are of no matter to each other.
fn bear(things: &[&Vec<QuotaId>], further: Option<&Vec<QuotaId>>, rooms: &Rooms) -> bool {
    let mut left: Vec<&Vec<QuotaId>> = things.iter().copied().chain(further).collect();
    while let Some(first) = left.pop() {
        let mut quotas: BTreeSet<QuotaId> = first.iter().copied().collect();
        let mut together = vec![first];
        while let Some(at) = left
            .iter()
            .position(|it| it.iter().any(|q| quotas.contains(q)))
        {
            let one = left.remove(at);
            quotas.extend(one);
            together.push(one);
        }
        let quotas: Vec<QuotaId> = quotas.into_iter().collect();
        let enough = (0..1_u32 << quotas.len()).all(|set| {
            let chosen: Vec<QuotaId> = (0..quotas.len())
                .filter(|at| set & (1 << at) != 0)
                .map(|at| quotas[at])
                .collect();
            let bound = together
                .iter()
                .filter(|it| it.iter().all(|quota| chosen.contains(quota)));
            let room = chosen
                .iter()
                .fold(0_u64, |sum, quota| sum.saturating_add(rooms[quota]));
            bound.count() as u64 <= room
        });
        if !enough {
            return false;
        }
    }
    true
}
