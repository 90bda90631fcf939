//! Leases change the state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::device::DeviceKey;
use crate::id::{LeaseId, Timestamp};
use crate::lease::{EndReason, Lease, LeasePhase, MOST_ENDED, Unconfirmed};
use crate::state::State;

impl State {
    pub(super) fn grant_lease(&mut self, lease: Lease) {
        assert!(lease.epoch > self.rows.last_epoch, "fencing epochs grow");
        assert!(
            lease.id.0 >= self.rows.next_lease,
            "a lease's number was given out before"
        );
        self.rows.last_epoch = lease.epoch;
        self.rows.next_lease = lease.id.0 + 1;
        self.put_lease(None, lease);
    }

    pub(super) fn renew_lease(&mut self, id: LeaseId, expires_at: Option<Timestamp>) {
        let Some(old) = self.rows.leases.get(&id).map(|lease| Lease::clone(lease)) else {
            return;
        };
        assert!(old.active(), "only an active lease is renewed");
        let lease = Lease {
            expires_at,
            ..old.clone()
        };
        self.put_lease(Some(old), lease);
    }

    pub(super) fn tell_to_leave(&mut self, id: LeaseId, leave_by: Option<Timestamp>) {
        let Some(old) = self.rows.leases.get(&id).map(|lease| Lease::clone(lease)) else {
            return;
        };
        let lease = Lease {
            leave_by,
            ..old.clone()
        };
        self.put_lease(Some(old), lease);
    }

    pub(super) fn release_lease(
        &mut self,
        at: Timestamp,
        id: LeaseId,
        reason: EndReason,
        deadline: Timestamp,
    ) {
        let Some(old) = self.rows.leases.get(&id).map(|lease| Lease::clone(lease)) else {
            return;
        };
        assert!(old.active(), "only an active lease is released");
        let lease = old.releasing(at, self.rows.seq, reason, deadline);
        self.put_lease(Some(old), lease);
    }

    pub(super) fn free_leased(
        &mut self,
        id: LeaseId,
        freed: &BTreeSet<DeviceKey>,
        unseen: &BTreeMap<DeviceKey, Unconfirmed>,
    ) {
        self.change_phase(id, |phase| {
            if let LeasePhase::Releasing {
                waiting,
                unconfirmed,
                ..
            } = phase
            {
                waiting.retain(|key| !freed.contains(key));
                unconfirmed.extend(unseen.iter().map(|(key, why)| (key.clone(), *why)));
            }
        });
    }

    pub(super) fn wait_for_lease(&mut self, id: LeaseId, until: Timestamp) {
        self.change_phase(id, |phase| {
            if let LeasePhase::Releasing { deadline, .. } = phase {
                *deadline = until;
            }
        });
    }

    pub(super) fn end_lease(
        &mut self,
        at: Timestamp,
        id: LeaseId,
        reason: EndReason,
        unconfirmed: &BTreeMap<DeviceKey, Unconfirmed>,
    ) {
        if let Some(old) = self.rows.leases.get(&id).map(|lease| Lease::clone(lease)) {
            let lease = old.ended(at, reason, unconfirmed);
            self.put_lease(Some(old), lease);
        }
        while self.index.leases_ended.len() > MOST_ENDED
            && let Some((_, oldest)) = self.index.leases_ended.get_min().copied()
            && let Some(lease) = self.rows.leases.remove(&oldest)
        {
            self.index.remove_lease(&lease);
        }
    }

    fn change_phase(&mut self, id: LeaseId, change: impl FnOnce(&mut LeasePhase)) {
        let Some(old) = self.rows.leases.get(&id).map(|lease| Lease::clone(lease)) else {
            return;
        };
        let mut lease = old.clone();
        change(&mut lease.phase);
        self.put_lease(Some(old), lease);
    }

    // What the old row occupied and the new one does not is free, or only held.
    fn put_lease(&mut self, old: Option<Lease>, mut new: Lease) {
        new.changed = self.rows.seq;
        let tenant = new.terms.tenant.clone();
        let before: BTreeSet<DeviceKey> = old
            .iter()
            .flat_map(|lease| lease.occupied().map(|(key, _)| key.clone()))
            .collect();
        let after: BTreeSet<DeviceKey> = new.occupied().map(|(key, _)| key.clone()).collect();
        let changed: Vec<DeviceKey> = before.symmetric_difference(&after).cloned().collect();
        for key in &changed {
            self.unstock(key);
        }
        if let Some(old) = &old {
            self.index.remove_lease(old);
        }
        self.index.add_lease(&new);
        let unplaced = old.as_ref().map_or(0, Lease::unplaced);
        if unplaced != new.unplaced() {
            self.charge_unplaced(&new, unplaced, new.unplaced());
        }
        self.rows.leases.insert(new.id, Arc::new(new));
        for key in &changed {
            self.recharge(&tenant, key);
            self.restock(key);
        }
    }
}
