//! What a device is, from the state alone.

use std::collections::BTreeSet;

use super::DeviceClass;
use crate::device::{Device, DeviceKey};
use crate::id::TenantName;
use crate::limit::Limit;
use crate::node::NodeState;
use crate::quota::Quota;
use crate::state::{Group, State, type_of};

impl State {
    /// What a device is now; `None` while it is not metered: a GPU of which only the instances can be held.
    #[must_use]
    pub fn device_class(&self, key: &DeviceKey) -> Option<DeviceClass> {
        let device = self.device(key)?;
        (!device.report.partitioned).then(|| self.class_of(key, device))
    }

    fn class_of(&self, key: &DeviceKey, device: &Device) -> DeviceClass {
        let heard = |state| match state {
            NodeState::Up => true,
            NodeState::Expected | NodeState::Silent => false,
        };
        let node = self.node(&device.node);
        let readable = device.report.readable() && node.is_some_and(|node| heard(node.state));
        if !readable {
            return DeviceClass::Unknown;
        }
        let may = |tenant: &&TenantName| self.may_hold(tenant, key, device);
        let busy: BTreeSet<TenantName> = device.holders.keys().filter(may).cloned().collect();
        if !busy.is_empty() {
            return DeviceClass::Busy(busy);
        }
        if !device.holders.is_empty() || device.report.unattributed {
            return DeviceClass::Squatter;
        }
        match self.lease_on(key) {
            Some(lease) => DeviceClass::LeasedIdle(lease.terms.tenant.clone()),
            None => DeviceClass::Free,
        }
    }

    // It is the tenant's by a lease, or a quota that grants something is about it and nobody else has it.
    fn may_hold(&self, tenant: &TenantName, key: &DeviceKey, device: &Device) -> bool {
        if let Some(lease) = self.lease_on(key) {
            return lease.terms.tenant == *tenant;
        }
        let bound = self.bound_tenant(&device.node);
        if bound.is_some_and(|bound| bound != tenant) || self.kept_off(tenant, &device.node) {
            return false;
        }
        let grants = |quota: &Quota| quota.grants() != Limit::Finite(0);
        let mut dedicated = self
            .dedicated_at(tenant, &device.node, &device.canonical)
            .peekable();
        if dedicated.peek().is_some() {
            return dedicated.any(grants);
        }
        let Some(node) = self.node(&device.node) else {
            return false;
        };
        let group = Group {
            region: node.region.clone(),
            quota_type: type_of(key.kind()),
            model: device.canonical.clone(),
        };
        self.quotas_in(tenant, &group).any(grants)
    }
}
