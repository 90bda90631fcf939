//! What follows from the rows and is looked up.

use std::collections::BTreeSet;

use imbl::{OrdMap, OrdSet};

use super::Rows;
use super::demand::{Charge, Demand, Group};
use super::drain::next_notice;
use super::stock::Stock;
use crate::catalogue::Catalogue;
use crate::device::{DeviceKey, DeviceKind};
use crate::id::{
    GroupName, LeaseId, LicenceQuotaId, NodeName, OpId, ProjectId, QuotaId, Reference, SeatId, Seq,
    TenantName, TenantNumber, Timestamp,
};
use crate::join::Digest;
use crate::lease::{Lease, LeasePhase};
use crate::licence::{LicenceQuota, Seat};
use crate::quota::{Quota, QuotaKey};
use crate::tenant::TenantProfile;

/// What follows from the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) by_key: OrdMap<QuotaKey, QuotaId>,
    pub(crate) by_reference: OrdMap<(TenantName, Reference), QuotaId>,
    pub(crate) by_tenant: OrdMap<TenantName, OrdSet<QuotaId>>,
    pub(crate) with_quotas: OrdMap<u64, TenantName>,
    pub(crate) expiring: OrdSet<(Timestamp, QuotaId)>,
    /// Next notices of ends to come.
    pub(crate) notices: OrdSet<(Timestamp, QuotaId)>,
    /// Deadlines of drains that were not enforced yet.
    pub(crate) drains_due: OrdSet<(Timestamp, TenantName, Group)>,
    pub(crate) binding: OrdMap<NodeName, OrdSet<QuotaId>>,
    pub(crate) held: OrdMap<TenantName, OrdSet<DeviceKey>>,
    /// Devices with processes of nobody.
    pub(crate) nobodys: OrdSet<DeviceKey>,
    pub(crate) operations: OrdSet<(Timestamp, OpId)>,
    pub(crate) revoked: OrdSet<(Timestamp, String)>,
    pub(crate) join_tokens: OrdSet<(Timestamp, Digest)>,
    pub(crate) catalogue: Catalogue,
    pub(crate) numbers: OrdMap<TenantNumber, TenantName>,
    pub(crate) projects: OrdMap<ProjectId, TenantName>,
    pub(crate) groups_of: OrdMap<NodeName, OrdSet<GroupName>>,
    pub(crate) nodes_in: OrdMap<GroupName, OrdSet<NodeName>>,
    pub(crate) licences_of: OrdMap<TenantName, OrdSet<LicenceQuotaId>>,
    pub(crate) licences_expiring: OrdSet<(Timestamp, LicenceQuotaId)>,
    pub(crate) seats_of: OrdMap<TenantName, OrdSet<SeatId>>,
    pub(crate) seats_expiring: OrdSet<(Timestamp, SeatId)>,
    pub(crate) live: OrdSet<LeaseId>,
    pub(crate) leases_of: OrdMap<TenantName, OrdSet<LeaseId>>,
    pub(crate) leases_at: OrdMap<NodeName, OrdSet<LeaseId>>,
    pub(crate) lease_on: OrdMap<DeviceKey, LeaseId>,
    /// Ends of active leases, and of waiting for those that are to end.
    pub(crate) leases_due: OrdSet<(Timestamp, LeaseId)>,
    /// Leases that are to end, by the row that said so.
    pub(crate) releasing: OrdSet<(Seq, LeaseId)>,
    pub(crate) leases_ended: OrdSet<(Timestamp, LeaseId)>,
    pub(crate) in_group: OrdMap<TenantName, OrdMap<Group, OrdSet<QuotaId>>>,
    pub(crate) charges: OrdMap<TenantName, OrdMap<DeviceKey, Charge>>,
    pub(crate) demand: OrdMap<TenantName, OrdMap<Group, Demand>>,
    pub(crate) stock: Stock,
}

impl Index {
    pub(crate) fn of(rows: &Rows) -> Self {
        let mut index = Self::default();
        for quota in rows.quotas.values() {
            index.add_quota(rows, quota);
        }
        for (key, device) in &rows.devices {
            if device.report.unattributed {
                index.nobodys.insert(key.clone());
            }
            for tenant in device.holders.keys() {
                index
                    .held
                    .entry(tenant.clone())
                    .or_default()
                    .insert(key.clone());
            }
        }
        for (op, operation) in &rows.operations {
            index.operations.insert((operation.at, op.clone()));
        }
        for (token, until) in &rows.revoked {
            index.revoked.insert((*until, token.clone()));
        }
        for (hash, token) in &rows.join_tokens {
            index.join_tokens.insert((token.until, hash.clone()));
        }
        index.catalogue = Catalogue::of(&rows.models);
        for tenant in rows.tenants.values() {
            index.add_tenant(&tenant.profile);
        }
        for node in rows.nodes.keys() {
            index.place_node(rows, node);
        }
        for quota in rows.licence_quotas.values() {
            index.add_licence(quota);
        }
        for seat in rows.seats.values() {
            index.add_seat(seat);
        }
        for lease in rows.leases.values() {
            index.add_lease(lease);
        }
        for (tenant, drains) in &rows.drains {
            for (group, drain) in &drains.0 {
                index.add_drain(tenant, group, drain);
            }
        }
        index
    }

    pub(crate) fn add_tenant(&mut self, profile: &TenantProfile) {
        self.numbers.insert(profile.number, profile.tenant.clone());
        for project in &profile.projects {
            self.projects
                .insert(project.clone(), profile.tenant.clone());
        }
    }

    pub(crate) fn remove_tenant(&mut self, profile: &TenantProfile) {
        let known = self.numbers.remove(&profile.number);
        assert_eq!(known.as_ref(), Some(&profile.tenant), "tenant numbers");
        for project in &profile.projects {
            let known = self.projects.remove(project);
            assert_eq!(known.as_ref(), Some(&profile.tenant), "projects");
        }
    }

    /// Looks again which groups a node belongs to: those that the operator named, else one for each GPU product
    /// without its blanks (dialects D3.5).
    pub(crate) fn place_node(&mut self, rows: &Rows, name: &NodeName) {
        let mut groups = OrdSet::new();
        if let Some(node) = rows.nodes.get(name) {
            groups = node.declared_groups.clone();
            if groups.is_empty() {
                let devices = node.devices.iter().filter_map(|key| rows.devices.get(key));
                let gpus = devices.filter(|device| device.report.key.kind() == DeviceKind::Gpu);
                let declared = node
                    .inventory
                    .as_ref()
                    .and_then(|it| it.gpu_product.as_ref());
                let declared = declared.filter(|_| node.observed_at.is_none());
                let products = gpus
                    .map(|device| device.report.model.as_str())
                    .chain(declared.map(|product| product.as_str()));
                groups = products
                    .filter_map(|product| GroupName::new(&product.replace(' ', "")).ok())
                    .collect();
            }
        }
        let old = if groups.is_empty() {
            self.groups_of.remove(name)
        } else {
            self.groups_of.insert(name.clone(), groups.clone())
        };
        let old = old.unwrap_or_default();
        if old == groups {
            return;
        }
        for group in &old {
            remove_from(&mut self.nodes_in, group, name);
        }
        for group in &groups {
            add_to(&mut self.nodes_in, group, name.clone());
        }
    }

    pub(crate) fn add_licence(&mut self, quota: &LicenceQuota) {
        let terms = &quota.terms;
        add_to(&mut self.licences_of, &terms.tenant, terms.quota);
        if let Some(at) = terms.expires_at.filter(|_| !quota.expired) {
            self.licences_expiring.insert((at, terms.quota));
        }
    }

    pub(crate) fn remove_licence(&mut self, quota: &LicenceQuota) {
        let terms = &quota.terms;
        remove_from(&mut self.licences_of, &terms.tenant, &terms.quota);
        if let Some(at) = terms.expires_at.filter(|_| !quota.expired) {
            let known = self.licences_expiring.remove(&(at, terms.quota));
            assert!(known.is_some(), "licence expiry index");
        }
    }

    pub(crate) fn add_seat(&mut self, seat: &Seat) {
        add_to(&mut self.seats_of, &seat.tenant, seat.seat);
        self.seats_expiring.insert((seat.expires_at, seat.seat));
    }

    pub(crate) fn remove_seat(&mut self, seat: &Seat) {
        remove_from(&mut self.seats_of, &seat.tenant, &seat.seat);
        let known = self.seats_expiring.remove(&(seat.expires_at, seat.seat));
        assert!(known.is_some(), "seat expiry index");
    }

    pub(crate) fn add_lease(&mut self, lease: &Lease) {
        if lease.live() {
            self.live.insert(lease.id);
            add_to(&mut self.leases_of, &lease.terms.tenant, lease.id);
        }
        for (key, _) in lease.occupied() {
            let other = self.lease_on.insert(key.clone(), lease.id);
            assert_eq!(other, None, "a device has two live leases");
        }
        for node in occupied_nodes(lease) {
            add_to(&mut self.leases_at, node, lease.id);
        }
        match &lease.phase {
            LeasePhase::Active => {
                if let Some(at) = lease.ends_at() {
                    self.leases_due.insert((at, lease.id));
                }
            }
            LeasePhase::Releasing {
                deadline,
                since_row,
                ..
            } => {
                self.leases_due.insert((*deadline, lease.id));
                self.releasing.insert((*since_row, lease.id));
            }
            LeasePhase::Ended { at, .. } => {
                self.leases_ended.insert((*at, lease.id));
            }
        }
    }

    pub(crate) fn remove_lease(&mut self, lease: &Lease) {
        if lease.live() {
            self.live.remove(&lease.id);
            remove_from(&mut self.leases_of, &lease.terms.tenant, &lease.id);
        }
        for (key, _) in lease.occupied() {
            let known = self.lease_on.remove(key);
            assert_eq!(known, Some(lease.id), "lease of a device");
        }
        for node in occupied_nodes(lease) {
            remove_from(&mut self.leases_at, node, &lease.id);
        }
        let known = match &lease.phase {
            LeasePhase::Active => lease
                .ends_at()
                .is_none_or(|at| self.leases_due.remove(&(at, lease.id)).is_some()),
            LeasePhase::Releasing {
                deadline,
                since_row,
                ..
            } => {
                self.releasing.remove(&(*since_row, lease.id));
                self.leases_due.remove(&(*deadline, lease.id)).is_some()
            }
            LeasePhase::Ended { at, .. } => self.leases_ended.remove(&(*at, lease.id)).is_some(),
        };
        assert!(known, "lease end index");
    }

    pub(crate) fn add_to_group(&mut self, quota: &Quota) {
        let groups = self.in_group.entry(quota.key.tenant.clone()).or_default();
        add_to(groups, &quota.group(), quota.id);
    }

    fn remove_from_group(&mut self, quota: &Quota) {
        let tenant = &quota.key.tenant;
        let empty = self.in_group.get_mut(tenant).is_some_and(|groups| {
            remove_from(groups, &quota.group(), &quota.id);
            groups.is_empty()
        });
        if empty {
            self.in_group.remove(tenant);
        }
    }

    pub(crate) fn add_quota(&mut self, rows: &Rows, quota: &Quota) {
        self.add_to_group(quota);
        if let Some(tenant) = rows.tenants.get(&quota.key.tenant) {
            let name = quota.key.tenant.clone();
            self.with_quotas.insert(tenant.order, name);
        }
        self.by_key.insert(quota.key.clone(), quota.id);
        if let Some(reference) = quota.reference {
            let reference = (quota.key.tenant.clone(), reference);
            self.by_reference.insert(reference, quota.id);
        }
        self.by_tenant
            .entry(quota.key.tenant.clone())
            .or_default()
            .insert(quota.id);
        if let Some(at) = quota.expires_at.filter(|_| !quota.expired) {
            self.expiring.insert((at, quota.id));
        }
        if let Some(at) = next_notice(quota) {
            self.notices.insert((at, quota.id));
        }
        for node in &quota.nodes {
            self.binding
                .entry(node.clone())
                .or_default()
                .insert(quota.id);
        }
    }

    pub(crate) fn remove_quota(&mut self, rows: &Rows, quota: &Quota) {
        self.remove_from_group(quota);
        let known = self.by_key.remove(&quota.key);
        assert_eq!(known, Some(quota.id), "quota key index");
        if let Some(reference) = quota.reference {
            let reference = (quota.key.tenant.clone(), reference);
            let known = self.by_reference.remove(&reference);
            assert_eq!(known, Some(quota.id), "reference index");
        }
        remove_from(&mut self.by_tenant, &quota.key.tenant, &quota.id);
        if !self.by_tenant.contains_key(&quota.key.tenant)
            && let Some(tenant) = rows.tenants.get(&quota.key.tenant)
        {
            self.with_quotas.remove(&tenant.order);
        }
        if let Some(at) = quota.expires_at.filter(|_| !quota.expired) {
            let known = self.expiring.remove(&(at, quota.id));
            assert!(known.is_some(), "expiry index");
        }
        if let Some(at) = next_notice(quota) {
            let known = self.notices.remove(&(at, quota.id));
            assert!(known.is_some(), "notice index");
        }
        for node in &quota.nodes {
            remove_from(&mut self.binding, node, &quota.id);
        }
    }
}

fn occupied_nodes(lease: &Lease) -> BTreeSet<&NodeName> {
    lease.occupied().map(|(_, node)| node).collect()
}

/// Takes `value` out of the set under `key`, and the set with it when it was the last.
pub(crate) fn remove_from<K: Ord + Clone, V: Ord + Clone>(
    index: &mut OrdMap<K, OrdSet<V>>,
    key: &K,
    value: &V,
) {
    let empty = index.get_mut(key).is_some_and(|set| {
        let known = set.remove(value);
        assert!(known.is_some(), "index entry that should be there");
        set.is_empty()
    });
    if empty {
        index.remove(key);
    }
}

/// Puts `value` into the set under `key`.
pub(crate) fn add_to<K: Ord + Clone, V: Ord + Clone>(
    index: &mut OrdMap<K, OrdSet<V>>,
    key: &K,
    value: V,
) {
    index.entry(key.clone()).or_default().insert(value);
}
