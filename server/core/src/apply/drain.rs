//! Drains and notices change the state.

use crate::id::{QuotaId, TenantName, Timestamp};
use crate::plan::{Cause, Drain};
use crate::state::{Group, State};

impl State {
    pub(super) fn note_notice(&mut self, id: QuotaId, days: u32) {
        if let Some(mut quota) = self.rows.quotas.get(&id).cloned() {
            self.index.remove_quota(&self.rows, &quota);
            quota.noticed = Some(days);
            self.index.add_quota(&self.rows, &quota);
            self.rows.quotas.insert(id, quota);
        }
    }

    pub(super) fn begin_drain(
        &mut self,
        at: Timestamp,
        tenant: &TenantName,
        group: &Group,
        cause: Cause,
        deadline: Timestamp,
    ) {
        let drain = Drain {
            since: at,
            deadline,
            cause,
            enforced_at: None,
        };
        self.put_drain(tenant, group, Some(drain));
    }

    pub(super) fn enforce_drain(&mut self, at: Timestamp, tenant: &TenantName, group: &Group) {
        let Some(drain) = self.drain(tenant, group).cloned() else {
            return;
        };
        let drain = Drain {
            enforced_at: Some(at),
            ..drain
        };
        self.put_drain(tenant, group, Some(drain));
    }

    pub(super) fn end_drain(&mut self, tenant: &TenantName, group: &Group) {
        self.put_drain(tenant, group, None);
    }

    fn put_drain(&mut self, tenant: &TenantName, group: &Group, new: Option<Drain>) {
        let drains = self.rows.drains.entry(tenant.clone()).or_default();
        if let Some(old) = drains.0.remove(group) {
            self.index.remove_drain(tenant, group, &old);
        }
        if let Some(new) = new {
            self.index.add_drain(tenant, group, &new);
            drains.0.insert(group.clone(), new);
        }
        if drains.0.is_empty() {
            self.rows.drains.remove(tenant);
        }
    }
}
