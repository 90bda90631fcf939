//! Drains follow the charge: a change of models, of regions or of dedicated nodes may charge to another group what is over
//! in this one, and then nothing was given back.

use crate::event::Event;
use crate::id::{TenantName, Timestamp};
use crate::plan::{Drain, deadline};
use crate::state::{Group, State};
use crate::usage::usage;

impl State {
    /// Whether a tenant gave back what was over in a group, so that not the figures alone changed.
    pub(super) fn given_back(&self, after: &Self, tenant: &TenantName, group: &Group) -> bool {
        let over = self.excess_in(tenant, group);
        let less = over.saturating_sub(after.excess_in(tenant, group));
        less == 0 || self.gone(after, tenant, group) >= less
    }

    // Devices and numbers of the group that are charged to the tenant nowhere any more.
    fn gone(&self, after: &Self, tenant: &TenantName, group: &Group) -> u64 {
        let devices = self.charges(tenant);
        let devices = devices
            .filter(|(_, charge)| charge.group == *group)
            .filter(|(key, _)| !after.is_charged(tenant, key))
            .fold(0, |sum: u64, _| sum + 1);
        let leases = self
            .leases_of(tenant)
            .filter(|lease| lease.group() == *group);
        let numbers: u64 = leases
            .map(|lease| {
                let left = after.lease(lease.id).map_or(0, |lease| lease.unplaced());
                lease.unplaced().saturating_sub(left)
            })
            .sum();
        devices + numbers
    }

    /// Drains of the groups to which what is over is charged now.
    pub(super) fn followed(&self, after: &Self, now: Timestamp) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        let drains = self
            .drains()
            .filter(|(tenant, ..)| after.changes.of_tenant(tenant) > self.rows.seq);
        for (tenant, group, drain) in drains {
            if self.given_back(after, tenant, group) {
                continue;
            }
            let (before, charged) = (usage(self, tenant), usage(after, tenant));
            for (other, over) in charged.excess_in() {
                let begun = |event: &Event| {
                    matches!(event, Event::DrainBegun { tenant: whose, group, .. }
                        if whose == tenant && group == other)
                };
                if *over > before.over(other)
                    && after.drain(tenant, other).is_none()
                    && !events.iter().any(begun)
                {
                    events.push(Event::DrainBegun {
                        tenant: tenant.clone(),
                        group: other.clone(),
                        cause: drain.cause,
                        deadline: self.still_until(drain, now),
                    });
                }
            }
        }
        events
    }

    // Where the deadline was acted upon, what is charged elsewhere now has its own notice: nobody was told of it.
    fn still_until(&self, drain: &Drain, now: Timestamp) -> Timestamp {
        match drain.enforced_at {
            None => drain.deadline,
            Some(_) => deadline(self, drain.cause, now),
        }
    }
}
