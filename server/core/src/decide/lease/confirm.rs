//! Node-confirmed release: a lease that is to end is charged until its devices are seen free of the tenant, by a reading
//! taken after that, or until a bounded time has passed while the nodes were heard.
//!
//! What "after" means is settled by cause and not by clocks. An age says how old a reading was when the agent sent it; how
//! long it was under way, in the agent's queue, held back by flow control or behind a database that stalled, nobody can
//! say, and no bound on it holds; and of two servers that share a journal each dates its rows by a clock of its own. So a
//! server tells the agent the last row that it knows, the agent notes the newest one that it had heard of before it
//! began a reading, and says it with what it read. A reading begun after row N was heard of shows what was so after row N,
//! however long it travels: it ends a lease that was to end in row N or before. Of a reading from before its
//! session, and of an agent that does not tell, nothing ends but by its deadline.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::Decision;
use crate::device::{DeviceKey, DeviceReport};
use crate::event::Event;
use crate::explain::Denied;
use crate::id::{NodeName, Seq, SessionId, TenantName, Timestamp};
use crate::lease::{EndReason, Lease, LeasePhase, Unconfirmed};
use crate::mutant::{Mutant, planted};
use crate::node::NodeState;
use crate::state::State;

use crate::decide::done;

/// What a reading says of a device.
enum Seen<'a> {
    /// It is as reported.
    Reported(&'a DeviceReport),
    /// It is no more.
    Gone,
    /// Another node has it now, so this one cannot say who is on it.
    Elsewhere,
}

impl State {
    pub(in crate::decide) fn decide_agree(
        &self,
        name: &NodeName,
        session: SessionId,
        read_after: Option<Seq>,
    ) -> Result<Decision, Denied> {
        let node = self.in_session(name, session)?;
        let settled = (node.state == NodeState::Up && !node.settled)
            .then(|| Event::NodeSettled { node: name.clone() });
        let mut events: Vec<Event> = settled.into_iter().collect();
        if let Some(read_after) = read_after {
            events.extend(self.confirmed(name, read_after, |key| self.as_known(name, key)));
        }
        Ok(done(events))
    }

    fn as_known(&self, node: &NodeName, key: &DeviceKey) -> Seen<'_> {
        match self.device(key) {
            Some(device) if device.node == *node => Seen::Reported(&device.report),
            Some(_) => Seen::Elsewhere,
            None => Seen::Gone,
        }
    }

    /// A node that was not heard is heard again: the time before does not count for the leases that wait for it.
    pub(in crate::decide) fn wait_anew(&self, node: &NodeName, now: Timestamp) -> Vec<Event> {
        let until = self.waits_until(now);
        let waiting = self.leases_at(node).filter(|lease| match lease.phase {
            LeasePhase::Releasing { deadline, .. } => deadline < until,
            LeasePhase::Active | LeasePhase::Ended { .. } => false,
        });
        waiting
            .map(|lease| Event::LeaseWaiting {
                lease: lease.id,
                deadline: until,
            })
            .collect()
    }

    /// When waiting that begins now ends; never now, or a sweep would find it due again.
    pub(super) fn waits_until(&self, now: Timestamp) -> Timestamp {
        now.after(self.settings().confirm_within_ms.max(1))
    }

    /// What a report ends: `devices` and `gone` are what it says, the rest is as the ledger has it.
    pub(in crate::decide) fn confirmed_by_report(
        &self,
        node: &NodeName,
        read_after: Seq,
        full: bool,
        devices: &[DeviceReport],
        gone: &[DeviceKey],
    ) -> Vec<Event> {
        if !self.awaits(node) {
            return Vec::new();
        }
        let reported: BTreeMap<&DeviceKey, &DeviceReport> =
            devices.iter().map(|report| (&report.key, report)).collect();
        let gone: BTreeSet<&DeviceKey> = gone.iter().collect();
        self.confirmed(node, read_after, |key| match reported.get(key) {
            Some(report) => Seen::Reported(report),
            None => match self.as_known(node, key) {
                Seen::Reported(_) if full || gone.contains(key) => Seen::Gone,
                seen => seen,
            },
        })
    }

    fn confirmed<'a>(
        &self,
        node: &NodeName,
        read_after: Seq,
        seen: impl Fn(&DeviceKey) -> Seen<'a>,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        for lease in self.leases_at(node) {
            let LeasePhase::Releasing {
                since_row,
                reason,
                waiting,
                ..
            } = &lease.phase
            else {
                continue;
            };
            if read_after < *since_row {
                continue;
            }
            let here = lease.occupied().filter(|(_, at)| *at == node);
            let freed: BTreeSet<DeviceKey> = here
                .filter(|(key, _)| match seen(key) {
                    Seen::Reported(report) => free_of(&lease.terms.tenant, report),
                    Seen::Gone => true,
                    Seen::Elsewhere => false,
                })
                .map(|(key, _)| key.clone())
                .collect();
            if freed.is_empty() {
                continue;
            }
            events.push(if freed.len() == waiting.len() {
                Event::LeaseEnded {
                    lease: lease.id,
                    reason: *reason,
                    unconfirmed: BTreeMap::new(),
                }
            } else {
                Event::LeaseFreed {
                    lease: lease.id,
                    devices: freed,
                    unconfirmed: BTreeMap::new(),
                }
            });
        }
        events
    }

    /// Leases whose time has come: active ones are to end, and those that waited long enough do end.
    pub(in crate::decide) fn leases_due(&self, now: Timestamp) -> Vec<Event> {
        let due = self.index.leases_due.iter();
        let due = due.take_while(|(at, _)| *at <= now);
        let due = due.filter_map(|(_, lease)| self.lease(*lease));
        due.filter_map(|lease| match &lease.phase {
            LeasePhase::Active => {
                let reason = match (lease.leave_by, lease.expires_at) {
                    (Some(leave_by), Some(end)) if end <= leave_by => EndReason::Expired,
                    (Some(_), _) => EndReason::Drained,
                    (None, _) => EndReason::Expired,
                };
                Some(self.ending(lease, reason, now))
            }
            LeasePhase::Releasing { reason, .. } => Some(self.waited(lease, *reason, now)),
            LeasePhase::Ended { .. } => None,
        })
        .collect()
    }

    // What a node that is not heard holds stays charged: it is asked again later.
    fn waited(&self, lease: &Lease, reason: EndReason, now: Timestamp) -> Event {
        if !self.all_heard(lease) {
            return Event::LeaseWaiting {
                lease: lease.id,
                deadline: self.waits_until(now),
            };
        }
        let unconfirmed = lease.occupied().map(|(key, _)| {
            let report = self.device(key).map(|device| &device.report);
            let why = match report.filter(|report| report.readable()) {
                None => Unconfirmed::Unreadable,
                Some(report) if may_hold(&lease.terms.tenant, report) => Unconfirmed::StillHeld,
                Some(_) => Unconfirmed::NeverConfirmed,
            };
            (key.clone(), why)
        });
        Event::LeaseEnded {
            lease: lease.id,
            reason,
            unconfirmed: unconfirmed.collect(),
        }
    }
}

fn may_hold(tenant: &TenantName, report: &DeviceReport) -> bool {
    report.unattributed || report.tenants.contains(tenant)
}

fn free_of(tenant: &TenantName, report: &DeviceReport) -> bool {
    let free = report.readable() && !may_hold(tenant, report);
    free || planted(Mutant::EndUnconfirmed)
}
