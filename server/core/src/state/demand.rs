//! What each tenant is charged for, group by group, kept up with every change so that an admission need not count.
//!
//! For one tenant, region, type and model: `used = |placed leased devices ∪ observed devices| + max(0, unplaced leased −
//! observed devices that no lease placed)`.

use std::collections::BTreeSet;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::State;
use crate::device::{Device, DeviceKey, DeviceKind};
use crate::id::{LeaseId, NodeName, QuotaId, Region, TenantName};
use crate::lease::Lease;
use crate::profile::CanonicalModel;
use crate::quota::{Quota, QuotaType};

/// Devices that the same quotas of a tenant are about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Where.
    pub region: Region,
    /// Quotas of which type.
    #[serde(rename = "type")]
    pub quota_type: QuotaType,
    /// Of which model.
    pub model: CanonicalModel,
}

/// What a tenant is charged for in one group, in devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Devices that are leased to it or that it holds, each once.
    pub devices: u64,
    /// Those of them that are leased to it.
    pub placed: u64,
    /// Those that it holds.
    pub observed: u64,
    /// Leased as a number only.
    pub unplaced: u64,
}

impl Demand {
    /// Devices charged.
    #[must_use]
    pub fn used(self) -> u64 {
        // Devices without a lease cover what was leased as a number; a number that is fully covered adds nothing.
        self.devices + self.unplaced.saturating_sub(self.bare())
    }

    /// Devices held without a lease of them.
    #[must_use]
    pub fn bare(self) -> u64 {
        self.devices - self.placed
    }

    /// Devices leased.
    #[must_use]
    pub fn leased(self) -> u64 {
        self.placed + self.unplaced
    }

    fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// How one device is charged to one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) group: Group,
    pub(crate) leased: bool,
    pub(crate) observed: bool,
}

impl State {
    /// What a tenant is charged for in one group.
    #[must_use]
    pub fn demand(&self, tenant: &TenantName, group: &Group) -> Demand {
        let groups = self.index.demand.get(tenant);
        let demand = groups.and_then(|groups| groups.get(group));
        demand.copied().unwrap_or_default()
    }

    /// All groups in which a tenant is charged for something.
    pub fn demands(&self, tenant: &TenantName) -> impl Iterator<Item = (&Group, Demand)> {
        let groups = self.index.demand.get(tenant).into_iter().flatten();
        groups.map(|(group, demand)| (group, *demand))
    }

    /// Groups of which somebody leased a number.
    pub(crate) fn numbered_groups(&self) -> BTreeSet<Group> {
        let groups = self.index.demand.values().flatten();
        let numbered = groups.filter(|(_, demand)| demand.unplaced > 0);
        numbered.map(|(group, _)| group.clone()).collect()
    }

    /// Quotas of a tenant for one group, ended ones too.
    pub(crate) fn quotas_in<'a>(
        &'a self,
        tenant: &TenantName,
        group: &Group,
    ) -> impl Iterator<Item = &'a Quota> + use<'a> {
        let groups = self.index.in_group.get(tenant);
        let quotas = groups.and_then(|groups| groups.get(group));
        let quotas: Vec<QuotaId> = quotas.into_iter().flatten().copied().collect();
        quotas
            .into_iter()
            .filter_map(|quota| self.rows.quotas.get(&quota))
    }

    /// Devices that a tenant is charged for, and how.
    pub(crate) fn charges(
        &self,
        tenant: &TenantName,
    ) -> impl Iterator<Item = (&DeviceKey, &Charge)> {
        self.index.charges.get(tenant).into_iter().flatten()
    }

    /// Whether a tenant is charged for a device.
    pub(crate) fn is_charged(&self, tenant: &TenantName, device: &DeviceKey) -> bool {
        let charges = self.index.charges.get(tenant);
        charges.is_some_and(|charges| charges.contains_key(device))
    }

    /// The live lease of a device.
    #[must_use]
    pub fn lease_on(&self, device: &DeviceKey) -> Option<&Lease> {
        self.lease(*self.index.lease_on.get(device)?)
    }

    /// Groups in which a live lease counts now.
    pub(crate) fn groups_of_lease(&self, lease: &Lease) -> BTreeSet<Group> {
        if lease.devices.is_empty() {
            return [lease.group()].into();
        }
        let charges = self.index.charges.get(&lease.terms.tenant);
        let occupied = lease.occupied();
        let charges = occupied.filter_map(|(key, _)| charges?.get(key));
        charges.map(|charge| charge.group.clone()).collect()
    }

    // How `key` is charged to `tenant` by the rows as they are.
    fn charge_of(&self, tenant: &TenantName, key: &DeviceKey) -> Option<Charge> {
        let lease = self.lease_on(key);
        let lease = lease.filter(|lease| lease.terms.tenant == *tenant);
        let device = self.rows.devices.get(key);
        let observed = device.is_some_and(|device| {
            !device.report.partitioned && device.holders.contains_key(tenant)
        });
        if lease.is_none() && !observed {
            return None;
        }
        let group = match (device, lease) {
            (Some(device), _) => self.group_of(tenant, device),
            // Its device is gone, as after MIG was laid out anew; the promise stands, where it was made.
            (None, Some(lease)) => Group {
                region: lease.terms.region.clone(),
                quota_type: self.type_at(tenant, lease.devices.get(key)?, &lease.model, key.kind()),
                model: lease.model.clone(),
            },
            (None, None) => return None,
        };
        Some(Charge {
            group,
            leased: lease.is_some(),
            observed,
        })
    }

    /// Quotas by which a node serves the tenant alone with devices of a model.
    pub(crate) fn dedicated_at<'a>(
        &'a self,
        tenant: &TenantName,
        node: &NodeName,
        model: &CanonicalModel,
    ) -> impl Iterator<Item = &'a Quota> {
        let quotas = self.index.binding.get(node).into_iter().flatten();
        let quotas = quotas.filter_map(|quota| self.rows.quotas.get(quota));
        quotas.filter(move |quota| {
            quota.key.tenant == *tenant && quota.binds(node) && quota.model == *model
        })
    }

    /// To quotas of which type a device of such a node is charged.
    pub(crate) fn type_at(
        &self,
        tenant: &TenantName,
        node: &NodeName,
        model: &CanonicalModel,
        kind: DeviceKind,
    ) -> QuotaType {
        if self.dedicated_at(tenant, node, model).next().is_some() {
            QuotaType::Dedicated
        } else {
            type_of(kind)
        }
    }

    pub(crate) fn group_of(&self, tenant: &TenantName, device: &Device) -> Group {
        let kind = device.report.key.kind();
        let quota_type = self.type_at(tenant, &device.node, &device.canonical, kind);
        // A device's node is always there; without one it would be charged nowhere.
        let region = self.node(&device.node).map(|node| node.region.clone());
        let region = region.unwrap_or_else(|| unreachable!("device {} has no node", device.node));
        Group {
            region,
            quota_type,
            model: device.canonical.clone(),
        }
    }

    /// Counts anew how a device is charged to a tenant.
    pub(crate) fn recharge(&mut self, tenant: &TenantName, key: &DeviceKey) {
        let new = self.charge_of(tenant, key);
        let charges = self.index.charges.entry(tenant.clone()).or_default();
        let old = match &new {
            Some(charge) => charges.insert(key.clone(), charge.clone()),
            None => charges.remove(key),
        };
        if charges.is_empty() {
            self.index.charges.remove(tenant);
        }
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.change_demand(tenant, &old.group, |demand| {
                demand.devices -= 1;
                demand.placed -= u64::from(old.leased);
                demand.observed -= u64::from(old.observed);
            });
        }
        if let Some(new) = new {
            self.change_demand(tenant, &new.group, |demand| {
                demand.devices += 1;
                demand.placed += u64::from(new.leased);
                demand.observed += u64::from(new.observed);
            });
        }
    }

    /// Counts anew how a device is charged to everybody who holds or leases it.
    pub(crate) fn recharge_device(&mut self, key: &DeviceKey) {
        let device = self.rows.devices.get(key);
        let holders = device.into_iter().flat_map(|device| device.holders.keys());
        let lessee = self.lease_on(key).map(|lease| &lease.terms.tenant);
        let tenants: Vec<TenantName> = holders.chain(lessee).cloned().collect();
        for tenant in tenants {
            self.recharge(&tenant, key);
        }
    }

    /// Counts anew all that a tenant is charged for.
    pub(crate) fn recharge_tenant(&mut self, tenant: &TenantName) {
        let keys: Vec<DeviceKey> = self.charges(tenant).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.recharge(tenant, &key);
        }
    }

    /// A lease without devices counts, or counts no more.
    pub(crate) fn charge_unplaced(&mut self, lease: &Lease, before: u64, after: u64) {
        let group = lease.group();
        self.change_demand(&lease.terms.tenant, &group, |demand| {
            demand.unplaced = demand.unplaced + after - before;
        });
    }

    fn change_demand(
        &mut self,
        tenant: &TenantName,
        group: &Group,
        change: impl FnOnce(&mut Demand),
    ) {
        let groups = self.index.demand.entry(tenant.clone()).or_default();
        let demand = groups.entry(group.clone()).or_default();
        change(demand);
        if demand.is_empty() {
            groups.remove(group);
        }
        if groups.is_empty() {
            self.index.demand.remove(tenant);
        }
    }

    /// Counts everything anew, as after the catalogue changed what things are.
    pub(crate) fn recount(&mut self) {
        self.index.charges = OrdMap::new();
        self.index.demand = OrdMap::new();
        self.index.stock = OrdMap::new();
        self.index.in_group = OrdMap::new();
        let quotas: Vec<QuotaId> = self.rows.quotas.keys().copied().collect();
        for quota in quotas {
            if let Some(quota) = self.rows.quotas.get(&quota).cloned() {
                self.index.add_to_group(&quota);
            }
        }
        let devices: Vec<DeviceKey> = self.rows.devices.keys().cloned().collect();
        for key in &devices {
            self.recharge_device(key);
            self.restock(key);
        }
        // Devices of leases that are gone are charged too.
        let leased: Vec<DeviceKey> = self.index.lease_on.keys().cloned().collect();
        for key in &leased {
            self.recharge_device(key);
        }
        let leases: Vec<LeaseId> = self.index.live.iter().copied().collect();
        for lease in leases {
            if let Some(lease) = self.rows.leases.get(&lease).cloned()
                && lease.unplaced() > 0
            {
                self.charge_unplaced(&lease, 0, lease.unplaced());
            }
        }
    }
}

/// Quotas of which type a device outside dedicated nodes is charged to.
pub(crate) fn type_of(kind: DeviceKind) -> QuotaType {
    match kind {
        DeviceKind::Gpu => QuotaType::Flexible,
        DeviceKind::Mig => QuotaType::Mig,
        DeviceKind::Vgpu => QuotaType::Vgpu,
    }
}
