//! Devices and their quotas: what a tenant holds or leases stays within what its quotas grant, as far as the ledger decides.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::device::{DeviceKey, DeviceReport};
use gpuquota_core::event::Event;
use gpuquota_core::id::{NodeName, QuotaId, Region, TenantName};
use gpuquota_core::limit::Limit;
use gpuquota_core::profile::CanonicalModel;
use gpuquota_core::quota::{QuotaKey, QuotaType};

use super::super::Rule;
use super::super::fold::Durable;
use super::Broken;
use super::leases::Leases;

struct Entitled {
    key: QuotaKey,
    limit: Limit,
    expires_at: Option<i64>,
    expired: bool,
    active: bool,
}

/// What the same quotas of a tenant are about.
type Place = (TenantName, Region, QuotaType, CanonicalModel);

#[derive(Default)]
struct Charged {
    leased: BTreeSet<DeviceKey>,
    held: BTreeSet<DeviceKey>,
    unplaced: u64,
}

impl Charged {
    fn used(&self) -> u64 {
        let devices = self.leased.union(&self.held).count() as u64;
        let without_lease = self.held.difference(&self.leased).count() as u64;
        devices + self.unplaced.saturating_sub(without_lease)
    }
}

#[derive(Default)]
pub(super) struct Devices {
    devices: BTreeMap<DeviceKey, (NodeName, DeviceReport)>,
    regions: BTreeMap<NodeName, Region>,
    quotas: BTreeMap<QuotaId, Entitled>,
}

impl Devices {
    pub(super) fn take(&mut self, event: &Event, row: &Durable) {
        match event {
            Event::QuotaSet {
                quota,
                key,
                limit,
                expires_at,
                ..
            } => {
                let known = self.quotas.get(quota);
                let entitled = Entitled {
                    active: known.is_none_or(|known| known.active),
                    key: key.clone(),
                    limit: *limit,
                    expires_at: expires_at.map(|end| end.0),
                    expired: expires_at.is_some_and(|end| end.0 <= row.at),
                };
                self.quotas.insert(*quota, entitled);
            }
            Event::QuotaReleased { quota, .. } => {
                self.quotas.remove(quota);
            }
            Event::QuotaExpired { quota } => {
                if let Some(entitled) = self.quotas.get_mut(quota) {
                    entitled.expired = true;
                }
            }
            Event::QuotaSwitched { quota, active } => {
                if let Some(entitled) = self.quotas.get_mut(quota) {
                    entitled.active = *active;
                }
            }
            Event::SessionOpened { node, region, .. }
            | Event::NodeDeclared { node, region, .. } => {
                self.regions.insert(node.clone(), region.clone());
            }
            Event::NodeReported {
                node,
                full,
                devices,
                gone,
                ..
            } => {
                self.devices
                    .retain(|key, (of, _)| of != node || !(*full || gone.contains(key)));
                for device in devices {
                    let entry = (node.clone(), device.clone());
                    self.devices.insert(device.key.clone(), entry);
                }
            }
            Event::NodeRetired { node, .. } => {
                self.devices.retain(|_, (of, _)| of != node);
            }
            Event::DevicesForgotten { devices, .. } => {
                self.devices.retain(|key, _| !devices.contains(key));
            }
            _ => {}
        }
    }

    /// Whose a quota is.
    pub(super) fn entitled(&self, quota: QuotaId) -> Option<&TenantName> {
        self.quotas.get(&quota).map(|entitled| &entitled.key.tenant)
    }

    /// All devices as their nodes last said.
    pub(super) fn reports(&self) -> impl Iterator<Item = &DeviceReport> {
        self.devices.values().map(|(_, report)| report)
    }

    /// A device as its node last said.
    pub(super) fn report(&self, key: &DeviceKey) -> Option<&DeviceReport> {
        self.devices.get(key).map(|(_, report)| report)
    }

    /// On which node a device is.
    pub(super) fn node(&self, key: &DeviceKey) -> Option<&NodeName> {
        self.devices.get(key).map(|(node, _)| node)
    }

    // On dedicated nodes it depends on which quota binds them, which is the ledger's own matter.
    fn any_dedicated(&self) -> bool {
        let mut quotas = self.quotas.values();
        quotas.any(|entitled| entitled.key.quota_type == QuotaType::Dedicated)
    }

    fn charged(&self, leases: &Leases) -> BTreeMap<Place, Charged> {
        let mut charged: BTreeMap<Place, Charged> = BTreeMap::new();
        let place = |tenant: &TenantName, key: &DeviceKey| -> Option<Place> {
            let (node, report) = self.devices.get(key)?;
            let quota_type = match key {
                DeviceKey::Gpu(_) => QuotaType::Flexible,
                DeviceKey::Mig { .. } => QuotaType::Mig,
                DeviceKey::Vgpu(_) => QuotaType::Vgpu,
            };
            let model = CanonicalModel::of(&report.gpu_model);
            let region = self.regions.get(node)?.clone();
            Some((tenant.clone(), region, quota_type, model))
        };
        for (key, (_, report)) in &self.devices {
            for tenant in report.tenants.iter().filter(|_| !report.partitioned) {
                if let Some(place) = place(tenant, key) {
                    charged.entry(place).or_default().held.insert(key.clone());
                }
            }
        }
        for live in leases.live.values() {
            let terms = &live.terms;
            let promised = (
                terms.tenant.clone(),
                terms.region.clone(),
                terms.quota_type,
                CanonicalModel::of(&terms.gpu_model),
            );
            for key in &live.devices {
                // A device that is gone is charged as what was promised.
                let place = place(&terms.tenant, key).unwrap_or_else(|| promised.clone());
                charged.entry(place).or_default().leased.insert(key.clone());
            }
            if live.unplaced() > 0 {
                charged.entry(promised).or_default().unplaced += live.unplaced();
            }
        }
        charged
    }

    /// Devices charged beyond what quotas grant.
    pub(super) fn over(&self, leases: &Leases, at: i64) -> u64 {
        if self.any_dedicated() {
            return 0;
        }
        let charged = self.charged(leases);
        let over = charged
            .iter()
            .map(|(place, charged)| charged.used().saturating_sub(self.granted(place, at)));
        over.sum()
    }

    /// Whether a tenant has more than its quotas grant of what this device counts as.
    pub(super) fn over_there(
        &self,
        leases: &Leases,
        tenant: &TenantName,
        device: &DeviceKey,
        at: i64,
    ) -> bool {
        let mut charged = self.charged(leases).into_iter();
        let there =
            charged.find(|((of, ..), charged)| of == tenant && charged.held.contains(device));
        there.is_some_and(|(place, charged)| charged.used() > self.granted(&place, at))
    }

    fn granted(&self, (tenant, region, quota_type, model): &Place, at: i64) -> u64 {
        let mut granted = 0_u64;
        for entitled in self.quotas.values() {
            let key = &entitled.key;
            let fits = key.tenant == *tenant
                && key.region == *region
                && key.quota_type == *quota_type
                && CanonicalModel::of(&key.gpu_model) == *model
                && !entitled.expired
                && entitled.active
                && entitled.expires_at.is_none_or(|end| end > at);
            granted = match (fits, entitled.limit) {
                (false, _) => granted,
                (true, Limit::Finite(limit)) => granted.saturating_add(limit.into()),
                (true, Limit::Unlimited) => u64::MAX,
            };
        }
        granted
    }

    /// The ledger's own figures after the row.
    pub(super) fn recount(&self, row: &Durable, leases: &Leases, broken: &mut Broken) {
        if self.any_dedicated() {
            return;
        }
        let charged = self.charged(leases);
        let used: BTreeMap<Place, u64> = charged
            .into_iter()
            .map(|(place, charged)| (place, charged.used()))
            .collect();
        let tenants: BTreeSet<&TenantName> = used.keys().map(|place| &place.0).collect();
        let known = row.state.tenants().map(|(tenant, _)| tenant);
        let tenants: BTreeSet<&TenantName> = tenants.into_iter().chain(known).collect();
        let mut counted: BTreeMap<Place, u64> = BTreeMap::new();
        for tenant in tenants {
            for (group, demand) in row.state.demands(tenant) {
                let group = group.clone();
                let place = (tenant.clone(), group.region, group.quota_type, group.model);
                counted.insert(place, demand.used());
            }
        }
        if counted != used {
            let text = format!("in use are {used:?}, the ledger counts {counted:?}");
            broken.add(Rule::Bank, text);
        }
    }
}
