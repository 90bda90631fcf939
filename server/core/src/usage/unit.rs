//! What is charged to a tenant, device by device, and which of its quotas each may be charged to.

use super::laid::Place;
use crate::device::{Device, DeviceKey};
use crate::id::{NodeName, TenantName, Timestamp};
use crate::profile::CanonicalModel;
use crate::quota::{Quota, QuotaType};
use crate::state::{Charge, Group, State, type_of};

/// One device that is charged to the tenant.
pub(crate) struct Unit<'a> {
    /// Held or leased since.
    pub(crate) since: Timestamp,
    /// Its address.
    pub(crate) key: &'a DeviceKey,
    /// How it is charged.
    pub(crate) charge: &'a Charge,
    /// Where it is, or was.
    pub(crate) node: &'a NodeName,
    device: Option<&'a Device>,
}

impl<'a> Unit<'a> {
    /// One that the tenant does not have, as if it began to hold it now.
    pub(crate) fn asked(key: &'a DeviceKey, device: &'a Device, charge: &'a Charge) -> Self {
        Self {
            since: Timestamp(i64::MAX),
            key,
            charge,
            node: &device.node,
            device: Some(device),
        }
    }
}

impl Unit<'_> {
    /// Quotas that it may be charged to, in order.
    pub(crate) fn fitting(&self, order: &[&Quota]) -> Vec<Place> {
        let model = &self.charge.group.model;
        let dedicated = dedicated_to(order, self.node, model);
        // One that is not in force binds the node no more: it is charged only what nothing else could be.
        if dedicated.iter().any(|place| order[*place].in_force()) {
            return dedicated;
        }
        let own_type = self.own_type();
        let regional = places(order, |quota| {
            quota.key.quota_type == own_type
                && quota.model == *model
                && quota.key.region == self.charge.group.region
        });
        if regional.is_empty() {
            dedicated
        } else {
            regional
        }
    }

    /// The group under the quotas that are tried, which need not be those that the ledger has.
    pub(crate) fn group(&self, order: &[&Quota], fitting: &[Place]) -> Group {
        let mut fitting = fitting.iter().map(|place| order[*place]);
        let dedicated =
            fitting.any(|quota| quota.key.quota_type == QuotaType::Dedicated && quota.in_force());
        let quota_type = if dedicated {
            QuotaType::Dedicated
        } else {
            self.own_type()
        };
        Group {
            quota_type,
            ..self.charge.group.clone()
        }
    }

    fn own_type(&self) -> QuotaType {
        let kind = self
            .device
            .map_or(self.key.kind(), |device| device.report.key.kind());
        type_of(kind)
    }
}

/// Longest held or leased first, so that what came last is what is over.
pub(crate) fn units<'a>(state: &'a State, tenant: &TenantName) -> Vec<Unit<'a>> {
    let mut units: Vec<Unit<'a>> = state
        .charges(tenant)
        .filter_map(|(key, charge)| {
            let device = state.device(key);
            let lease = state.lease_on(key).filter(|_| charge.leased);
            let held = device.and_then(|device| device.holders.get(tenant));
            let leased = lease.map(|lease| lease.granted_at);
            let since = held.copied().into_iter().chain(leased).min();
            let node = device.map(|device| &device.node);
            Some(Unit {
                since: since.unwrap_or_default(),
                key,
                charge,
                node: node.or_else(|| lease.and_then(|lease| lease.devices.get(key)))?,
                device,
            })
        })
        .collect();
    units.sort_by(|a, b| (a.since, a.key).cmp(&(b.since, b.key)));
    units
}

/// Dedicated quotas, ended ones too, that devices of a node are charged to.
pub(crate) fn dedicated_to(
    order: &[&Quota],
    node: &NodeName,
    model: &CanonicalModel,
) -> Vec<Place> {
    places(order, |quota| {
        quota.key.quota_type == QuotaType::Dedicated
            && quota.nodes.contains(node)
            && quota.model == *model
    })
}

/// Quotas that bear what is leased as a number, ended ones too.
pub(crate) fn bearing(order: &[&Quota], group: &Group) -> Vec<Place> {
    places(order, |quota| {
        quota.key.quota_type == group.quota_type
            && quota.model == group.model
            && quota.key.region == group.region
    })
}

fn places(order: &[&Quota], fits: impl Fn(&Quota) -> bool) -> Vec<Place> {
    let places = order.iter().enumerate();
    let places = places.filter(|(_, quota)| fits(quota));
    places.map(|(place, _)| place).collect()
}
