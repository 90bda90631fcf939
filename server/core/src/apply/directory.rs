//! What the operator declared changes the state.

use std::sync::Arc;

use imbl::OrdMap;

use crate::catalogue::Catalogue;
use crate::id::{GroupName, HostResourceName, ProjectId, ResourceKind, SiteId, Timestamp};
use crate::limit::Limit;
use crate::pool::{CardLimitKey, Counter, HostLimitKey};
use crate::state::State;
use crate::tenant::{Tenant, TenantProfile};

impl State {
    pub(super) fn set_tenant(&mut self, at: Timestamp, profile: &TenantProfile) {
        let old = self.rows.tenants.get(&profile.tenant).cloned();
        if let Some(old) = &old {
            self.index.remove_tenant(&old.profile);
        }
        let confined = old.as_ref().is_some_and(|old| old.profile.confined);
        if confined != profile.confined {
            self.touch_tenant(&profile.tenant);
        }
        self.index.add_tenant(profile);
        let tenant = Tenant {
            order: old
                .as_ref()
                .map_or(self.rows.tenants.len() as u64 + 1, |old| old.order),
            profile: profile.clone(),
            created_at: old.map_or(at, |old| old.created_at),
            updated_at: at,
        };
        self.rows.tenants.insert(profile.tenant.clone(), tenant);
    }

    pub(super) fn remove_group(&mut self, group: &GroupName) {
        self.rows.groups.remove(group);
        let limits = self.rows.card_limits.keys();
        let of_group: Vec<CardLimitKey> =
            limits.filter(|key| key.group == *group).cloned().collect();
        for key in of_group {
            self.rows.card_limits.remove(&key);
        }
    }

    pub(super) fn set_card_limit(&mut self, key: &CardLimitKey, cards: Option<u32>) {
        match cards {
            Some(cards) => self.rows.card_limits.insert(key.clone(), cards),
            None => self.rows.card_limits.remove(key),
        };
    }

    pub(super) fn remove_host_resource(&mut self, resource: &HostResourceName) {
        self.rows.host_resources.remove(resource);
        let limits = std::mem::take(&mut self.rows.host_limits);
        self.rows.host_limits = limits
            .into_iter()
            .map(|(tenant, limits)| (tenant, limits.without(resource)))
            .filter(|(_, limits)| !limits.is_empty())
            .collect();
    }

    pub(super) fn set_host_limit(&mut self, key: &HostLimitKey, limit: Option<Limit>) {
        let limits = self.rows.host_limits.get(&key.tenant);
        let limits = limits.cloned().unwrap_or_default();
        let limits = match limit {
            Some(limit) => limits.update(key.resource.clone(), limit),
            None => limits.without(&key.resource),
        };
        set_or_remove(
            &mut self.rows.host_limits,
            &key.tenant,
            limits,
            OrdMap::is_empty,
        );
    }

    pub(super) fn set_counter(
        &mut self,
        project: &ProjectId,
        site: Option<&SiteId>,
        kind: &ResourceKind,
        counter: Option<&Counter>,
    ) {
        let key = (site.cloned(), kind.clone());
        let mut counters = self.rows.counters.get(project).cloned().unwrap_or_default();
        match counter {
            Some(counter) => counters.0.insert(key, counter.clone()),
            None => counters.0.remove(&key),
        };
        set_or_remove(&mut self.rows.counters, project, counters, |c| {
            c.0.is_empty()
        });
    }

    /// The catalogue says which model a quota's name and a device's hardware are; both are looked up once, not for
    /// each decision.
    pub(super) fn name_models_again(&mut self) {
        let catalogue = Catalogue::of(&self.rows.models);
        let quotas = self.rows.quotas.iter();
        let quotas: Vec<_> = quotas
            .map(|(id, quota)| (*id, catalogue.canonical(&quota.key.gpu_model)))
            .collect();
        for (id, model) in quotas {
            if let Some(quota) = self.rows.quotas.get_mut(&id) {
                quota.model = model;
            }
        }
        let devices = self.rows.devices.iter();
        let devices: Vec<_> = devices
            .map(|(key, device)| (key.clone(), catalogue.of_device(&device.report)))
            .collect();
        for (key, canonical) in devices {
            if let Some(device) = self.rows.devices.get_mut(&key) {
                device.canonical = canonical;
            }
        }
        let leases = self.rows.leases.iter();
        let leases: Vec<_> = leases
            .map(|(id, lease)| (*id, catalogue.canonical(&lease.terms.gpu_model)))
            .collect();
        for (id, model) in leases {
            if let Some(lease) = self.rows.leases.get_mut(&id) {
                Arc::make_mut(lease).model = model;
            }
        }
        self.index.catalogue = catalogue;
        self.recount();
        self.touch_all();
    }
}

fn set_or_remove<K: Ord + Clone, V: Clone>(
    map: &mut OrdMap<K, V>,
    key: &K,
    value: V,
    empty: fn(&V) -> bool,
) {
    if empty(&value) {
        map.remove(key);
    } else {
        map.insert(key.clone(), value);
    }
}
