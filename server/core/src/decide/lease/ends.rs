//! What ends by time alone, and from when on that admits a request.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::RequestLease;
use crate::event::{Event, Record};
use crate::id::{LeaseId, NodeName, Region, TenantName, Timestamp};
use crate::lease::{EndReason, Lease, LeasePhase, LeaseTerms};
use crate::node::NodeState;
use crate::state::{Demand, Group, State};

/// Ends that are tried for one denial at most, the soonest first.
const MOST_ENDS: usize = 256;

impl State {
    /// Whether every node that says who is on the devices of a lease is heard.
    pub(super) fn all_heard(&self, lease: &Lease) -> bool {
        let heard = |node| self.node(node).is_some_and(|it| it.state == NodeState::Up);
        lease.occupied().all(|(key, node)| {
            let moved = self.device(key).map(|device| &device.node);
            heard(node) && moved.is_none_or(heard)
        })
    }

    /// When a lease that nobody touches is charged no more, at the latest: its end, and then the time in which its devices
    /// are to be seen free. `None`: it does not end by itself, or waits for a node that is not heard.
    fn over_at(&self, lease: &Lease) -> Option<Timestamp> {
        match &lease.phase {
            LeasePhase::Active if lease.devices.is_empty() => lease.ends_at(),
            LeasePhase::Active => {
                let end = lease.ends_at().filter(|_| self.all_heard(lease))?;
                Some(self.waits_until(end))
            }
            LeasePhase::Releasing { deadline, .. } => {
                Some(*deadline).filter(|_| self.all_heard(lease))
            }
            LeasePhase::Ended { .. } => None,
        }
    }

    /// From when on quotas that grant `limit` have room for so many more, if nobody does anything. What the tenant runs on
    /// a leased device stays charged after the lease, so the end of that lease makes no room.
    pub(super) fn room_from(
        &self,
        tenant: &TenantName,
        group: &Group,
        limit: u64,
        asked: u64,
    ) -> Option<Timestamp> {
        let mut ends: BTreeMap<Timestamp, Demand> = BTreeMap::new();
        for (key, charge) in self.charges(tenant) {
            let counts = charge.group == *group && charge.leased;
            let lease = self.lease_on(key).filter(|_| counts);
            if let Some(at) = lease.and_then(|lease| self.over_at(lease)) {
                let ending = ends.entry(at).or_default();
                ending.placed += 1;
                ending.devices += u64::from(!charge.observed);
            }
        }
        let counts = self.leases_of(tenant);
        for lease in counts.filter(|lease| lease.unplaced() > 0 && lease.group() == *group) {
            if let Some(at) = self.over_at(lease) {
                ends.entry(at).or_default().unplaced += lease.unplaced();
            }
        }
        let mut left = self.demand(tenant, group);
        let known_until = self.quotas_last_until(tenant, &group.region);
        let mut ends = ends.into_iter().take_while(|(at, _)| *at < known_until);
        let enough = ends.find(|(_, ending)| {
            left.devices = left.devices.saturating_sub(ending.devices);
            left.placed = left.placed.saturating_sub(ending.placed);
            left.unplaced = left.unplaced.saturating_sub(ending.unplaced);
            left.used().saturating_add(asked) <= limit
        });
        enough.map(|(at, _)| at)
    }

    /// From when on devices of these nodes can be given, if nobody does anything.
    pub(super) fn devices_from(
        &self,
        request: &RequestLease,
        terms: &LeaseTerms,
        group: &Group,
        nodes: &BTreeSet<&NodeName>,
    ) -> Option<Timestamp> {
        let leases = nodes.iter().flat_map(|node| self.leases_at(node));
        let ends: BTreeSet<(Timestamp, LeaseId)> = leases
            .filter_map(|lease| Some((self.over_at(lease)?, lease.id)))
            .collect();
        let known_until = self.quotas_last_until(&terms.tenant, &group.region);
        let ends: Vec<(Timestamp, LeaseId)> = ends
            .into_iter()
            .take_while(|(at, _)| *at < known_until)
            .take(MOST_ENDS)
            .collect();
        let admits = |first: usize| {
            let after = self.without(ends.iter().take(first));
            after.fitting(request, terms, group).is_ok()
        };
        // The fewest that suffice: fewer than `low` do not, and `high` do.
        let (mut low, mut high) = (1, ends.len());
        if high == 0 || !admits(high) {
            return None;
        }
        while low < high {
            let middle = low.midpoint(high);
            if admits(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        ends.get(high - 1).map(|(at, _)| *at)
    }

    // What follows from the end of one of the tenant's quotas is not looked at, so nothing is said of later.
    fn quotas_last_until(&self, tenant: &TenantName, region: &Region) -> Timestamp {
        let quotas = self.quotas_of(tenant);
        let lasting = quotas.filter(|quota| quota.in_force() && quota.key.region == *region);
        let ends = lasting.filter_map(|quota| quota.expires_at);
        ends.min().unwrap_or(Timestamp(i64::MAX))
    }

    // The ledger once these leases are over.
    fn without<'a>(&self, ends: impl Iterator<Item = &'a (Timestamp, LeaseId)>) -> Self {
        let mut at = self.at();
        let mut events = Vec::new();
        for (end, lease) in ends {
            at = at.max(*end);
            events.push(Event::LeaseEnded {
                lease: *lease,
                reason: EndReason::Expired,
                unconfirmed: BTreeMap::new(),
            });
        }
        let record = Record {
            actor: String::new(),
            request_id: None,
            from: None,
            reason: None,
            tenants: Default::default(),
            replay: None,
            events,
        };
        let mut after = self.clone();
        after.apply(self.seq().next(), at, None, &record);
        after
    }
}
