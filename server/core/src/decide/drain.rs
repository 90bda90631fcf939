//! Drains and notices: what a change to quotas, or time, makes of those who use more than they may.

mod moved;

use std::collections::BTreeSet;

use crate::command::{Command, Decision, OnExcess, SetQuota};
use crate::event::Event;
use crate::id::{TenantName, Timestamp};
use crate::lease::EndReason;
use crate::plan::{Cause, DrainEnd, Target, deadline, drain_plan};
use crate::state::{Group, NOTICES, State, notice_at};
use crate::usage::usage;

impl State {
    /// A decision with the drains that it begins, enforces and ends, and the notices that are due.
    pub(super) fn with_drains(
        &self,
        command: &Command,
        decision: Decision,
        now: Timestamp,
    ) -> Decision {
        let command = match command {
            Command::IfUnchanged { command, .. } => command,
            command => command,
        };
        let (cause, sweeps) = match command {
            Command::SetQuota(set) => (cause_of(set, now), false),
            Command::SwitchQuota(switch) => (taken_back(switch.on_excess), false),
            Command::ReleaseQuota(release) => (release.forced.then_some(Cause::Release), false),
            Command::Sweep => (Some(Cause::Expiry), true),
            _ => (None, false),
        };
        let due = sweeps || may_notice(command, now);
        let drains = cause.is_some() || !self.rows.drains.is_empty();
        if !(drains || due) || (decision.events.is_empty() && !sweeps) {
            return decision;
        }
        let now = now.max(self.rows.at);
        let mut after = self.clone();
        let mut events = decision.events;
        after.fold_in(&events, now);
        if let Some(cause) = cause {
            let begun = self.begun(&after, &events, cause, now);
            after.fold_in(&begun, now);
            events.extend(begun);
        }
        if due {
            let notices = after.notices_due(now);
            after.fold_in(&notices, now);
            events.extend(notices);
        }
        let followed = self.followed(&after, now);
        after.fold_in(&followed, now);
        events.extend(followed);
        let deadlines = after.index.drains_due.iter();
        let deadlines = deadlines.take_while(|(at, ..)| *at <= now).cloned();
        let deadlines: Vec<_> = deadlines
            .map(|(_, tenant, group)| (tenant, group))
            .collect();
        for (tenant, group) in &deadlines {
            let enforced = after.enforced(tenant, group, now);
            after.fold_in(&enforced, now);
            events.extend(enforced);
        }
        let ended = self.ended(&after, &deadlines, &events);
        events.extend(ended);
        Decision { events, ..decision }
    }

    pub(super) fn fold_in(&mut self, events: &[Event], now: Timestamp) {
        let seq = self.rows.seq.next();
        for event in events {
            self.note_change(seq, event);
            self.apply_event(now, event);
        }
    }

    // A drain for every group that is more over than it was.
    fn begun(&self, after: &Self, events: &[Event], cause: Cause, now: Timestamp) -> Vec<Event> {
        let tenants: BTreeSet<&TenantName> = events
            .iter()
            .filter_map(|event| match event {
                Event::QuotaSet { key, .. } => Some(&key.tenant),
                Event::QuotaExpired { quota }
                | Event::QuotaSwitched { quota, .. }
                | Event::QuotaReleased { quota, .. } => {
                    self.quota(*quota).map(|quota| &quota.key.tenant)
                }
                _ => None,
            })
            .collect();
        let mut begun = Vec::new();
        for tenant in tenants {
            let before = usage(self, tenant);
            for (group, over) in usage(after, tenant).excess_in() {
                if *over > before.excess_in().get(group).copied().unwrap_or(0) {
                    begun.push(Event::DrainBegun {
                        tenant: tenant.clone(),
                        group: group.clone(),
                        cause,
                        deadline: deadline(self, cause, now),
                    });
                }
            }
        }
        begun
    }

    // After a long outage the tenant is told once, of the nearest.
    fn notices_due(&self, now: Timestamp) -> Vec<Event> {
        let due = self.index.notices.iter().take_while(|(at, _)| *at <= now);
        let due = due.filter_map(|(_, quota)| self.quota(*quota));
        due.filter_map(|quota| {
            let expires_at = quota.expires_at?;
            let past = NOTICES.iter().rev();
            let mut past = past.filter(|days| notice_at(expires_at, **days) <= now);
            Some(Event::QuotaNoticed {
                quota: quota.id,
                days: *past.next()?,
                expires_at,
            })
        })
        .collect()
    }

    // Devices that nobody leased cannot be ended by the ledger; they stay violations.
    fn enforced(&self, tenant: &TenantName, group: &Group, now: Timestamp) -> Vec<Event> {
        let Some(drain) = self.drain(tenant, group) else {
            return Vec::new();
        };
        let reason = match drain.cause {
            Cause::Shrink | Cause::Expiry => EndReason::Drained,
            Cause::Release => EndReason::Forced,
        };
        let victims = drain_plan(self, tenant, group).victims;
        let leases = victims.iter().filter_map(|victim| match &victim.what {
            Target::Lease { lease, .. } => self.lease(*lease),
            Target::Device { .. } => None,
        });
        let mut events: Vec<Event> = leases
            .map(|lease| self.ending(lease, reason, now))
            .collect();
        events.push(Event::DrainEnforced {
            tenant: tenant.clone(),
            group: group.clone(),
        });
        events
    }

    // Drains of tenants that changed, or that are due, in whose group nothing is over any more.
    fn ended(&self, after: &Self, due: &[(TenantName, Group)], events: &[Event]) -> Vec<Event> {
        let is_due = |tenant: &TenantName, group: &Group| {
            due.iter()
                .any(|(whose, what)| whose == tenant && what == group)
        };
        let set = |tenant: &TenantName| {
            events.iter().any(|event| match event {
                Event::QuotaSet { key, .. } => key.tenant == *tenant,
                Event::QuotaSwitched { quota, .. } => {
                    let quota = after.quota(*quota);
                    quota.is_some_and(|quota| quota.key.tenant == *tenant)
                }
                _ => false,
            })
        };
        let goes_on = |tenant: &TenantName| {
            let mut events = events.iter();
            events.any(
                |event| matches!(event, Event::DrainBegun { tenant: whose, .. } if whose == tenant),
            )
        };
        let over = after.drains().filter(|(tenant, group, _)| {
            after.changes.of_tenant(tenant) > self.rows.seq || is_due(tenant, group)
        });
        let over = over.filter(|(tenant, group, _)| after.excess_in(tenant, group) == 0);
        over.map(|(tenant, group, _)| Event::DrainEnded {
            tenant: tenant.clone(),
            group: group.clone(),
            reason: match (set(tenant), self.given_back(after, tenant, group)) {
                (true, _) if !goes_on(tenant) => DrainEnd::Withdrawn,
                (false, true) => DrainEnd::Met,
                (true | false, _) => DrainEnd::Moved,
            },
        })
        .collect()
    }
}

// Why setting a quota may begin a drain.
fn cause_of(set: &SetQuota, now: Timestamp) -> Option<Cause> {
    match (set.expires_at, set.on_excess) {
        (Some(end), _) if end <= now => Some(Cause::Expiry),
        (_, on_excess) => taken_back(on_excess),
    }
}

fn taken_back(on_excess: OnExcess) -> Option<Cause> {
    match on_excess {
        OnExcess::Drain => Some(Cause::Shrink),
        OnExcess::Deny => None,
    }
}

// A quota that ends soon is noticed in the row that sets it.
fn may_notice(command: &Command, now: Timestamp) -> bool {
    match command {
        Command::SetQuota(set) => set
            .expires_at
            .is_some_and(|end| notice_at(end, NOTICES[0]) <= now),
        _ => false,
    }
}
