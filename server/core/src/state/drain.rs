//! Drains and notices: reading them, and when they are due.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::demand::Group;
use super::index::Index;
use super::{State, pairs};
use crate::id::{TenantName, Timestamp};
use crate::plan::Drain;
use crate::quota::{Quota, QuotaType};
use crate::usage::usage;

/// Days before the end of a quota at which its tenant is told, the earliest first.
pub(crate) const NOTICES: [u32; 3] = [28, 7, 1];

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// One tenant's drains.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Drains(#[serde(with = "pairs")] pub(crate) OrdMap<Group, Drain>);

impl State {
    /// All drains that run.
    pub fn drains(&self) -> impl Iterator<Item = (&TenantName, &Group, &Drain)> {
        let drains = self.rows.drains.iter();
        drains.flat_map(|(tenant, drains)| {
            let drains = drains.0.iter();
            drains.map(move |(group, drain)| (tenant, group, drain))
        })
    }

    /// One tenant's drains that run.
    pub(crate) fn drains_of(&self, tenant: &TenantName) -> impl Iterator<Item = (&Group, &Drain)> {
        let drains = self.rows.drains.get(tenant);
        drains.into_iter().flat_map(|drains| drains.0.iter())
    }

    /// The drain of a tenant's group, while it runs.
    #[must_use]
    pub fn drain(&self, tenant: &TenantName, group: &Group) -> Option<&Drain> {
        self.rows.drains.get(tenant)?.0.get(group)
    }

    /// Devices that a tenant has in a group beyond what its quotas grant.
    #[must_use]
    pub fn excess_in(&self, tenant: &TenantName, group: &Group) -> u64 {
        if group.quota_type == QuotaType::Dedicated {
            let usage = usage(self, tenant);
            return usage.excess_in().get(group).copied().unwrap_or(0);
        }
        let mut room = self.demand(tenant, group).used();
        for quota in self.quotas_in(tenant, group) {
            room -= quota.grants().room(0).min(room);
        }
        room
    }
}

impl Index {
    pub(crate) fn add_drain(&mut self, tenant: &TenantName, group: &Group, drain: &Drain) {
        if drain.enforced_at.is_none() {
            let due = (drain.deadline, tenant.clone(), group.clone());
            self.drains_due.insert(due);
        }
    }

    pub(crate) fn remove_drain(&mut self, tenant: &TenantName, group: &Group, drain: &Drain) {
        if drain.enforced_at.is_none() {
            let due = (drain.deadline, tenant.clone(), group.clone());
            let known = self.drains_due.remove(&due);
            assert!(known.is_some(), "drain deadline index");
        }
    }
}

/// When the tenant is to be told next that a quota ends.
pub(crate) fn next_notice(quota: &Quota) -> Option<Timestamp> {
    let end = quota.expires_at.filter(|_| !quota.expired)?;
    let told = |days: &u32| quota.noticed.is_some_and(|noticed| noticed <= *days);
    let days = NOTICES.iter().find(|days| !told(days))?;
    Some(notice_at(end, *days))
}

/// When a notice of an end is due.
pub(crate) fn notice_at(end: Timestamp, days: u32) -> Timestamp {
    end.before(u64::from(days) * DAY_MS)
}
