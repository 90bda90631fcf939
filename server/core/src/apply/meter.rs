//! The meter follows the state: each device that a row may have changed is looked at once, after the row.

use std::collections::BTreeSet;

use crate::device::DeviceKey;
use crate::id::{NodeName, TenantName, Timestamp};
use crate::limit::Limit;
use crate::meter::{DeviceClass, Hour, Place};
use crate::quota::Quota;
use crate::state::State;

impl State {
    /// Looks again at a device after this row.
    pub(crate) fn touch(&mut self, key: &DeviceKey) {
        if !self.touched.contains(key) {
            self.touched.insert(key.clone());
        }
    }

    pub(super) fn touch_node(&mut self, node: &NodeName) {
        let devices = self.node(node).map(|node| node.devices.clone());
        for key in devices.iter().flatten() {
            self.touch(key);
        }
    }

    /// Whom it holds and leases may have become right or wrong.
    pub(super) fn touch_tenant(&mut self, tenant: &TenantName) {
        let keys: Vec<DeviceKey> = self.charges(tenant).map(|(key, _)| key.clone()).collect();
        self.touched.extend(keys);
    }

    pub(super) fn touch_all(&mut self) {
        self.touched = self.rows.devices.keys().cloned().collect();
    }

    /// A quota became another. How much it grants matters only when it is nothing.
    pub(super) fn touch_quota(&mut self, old: Option<&Quota>, new: Option<&Quota>) {
        let says = |quota: &Quota| {
            let grants = quota.grants() != Limit::Finite(0);
            (
                grants,
                quota.in_force(),
                quota.nodes.clone(),
                quota.key.clone(),
            )
        };
        if old.map(says) == new.map(says) {
            return;
        }
        let quotas: Vec<&Quota> = old.into_iter().chain(new).collect();
        let tenants: BTreeSet<&TenantName> = quotas.iter().map(|it| &it.key.tenant).collect();
        for tenant in tenants {
            self.touch_tenant(tenant);
        }
        let nodes: BTreeSet<&NodeName> = quotas.iter().flat_map(|it| &it.nodes).collect();
        for node in nodes {
            self.touch_node(node);
        }
    }

    /// What the row at `at` made of the devices that it touched.
    pub(super) fn meter_touched(&mut self, at: Timestamp) {
        for key in std::mem::take(&mut self.touched) {
            let now = self.metered_as(&key);
            self.rows.meter.turn(at, &key, now);
        }
    }

    pub(crate) fn metered_as(&self, key: &DeviceKey) -> Option<(Place, DeviceClass)> {
        let class = self.device_class(key)?;
        let device = self.device(key)?;
        let region = self.node(&device.node)?.region.clone();
        let place = Place {
            node: device.node.clone(),
            region,
            model: device.canonical.clone(),
        };
        Some((place, class))
    }

    pub(super) fn close_hours(&mut self, at: Timestamp, from: Timestamp, to: Timestamp) {
        assert!(to <= at, "an hour is closed when it is over");
        self.rows.meter.close(whole(from), whole(to));
    }

    pub(super) fn usage_stored(&mut self, through: Timestamp) {
        self.rows.meter.forget(whole(through));
    }
}

fn whole(at: Timestamp) -> Hour {
    let hour = Hour::of(at);
    assert_eq!(hour.start(), at, "hours begin on the hour");
    hour
}
