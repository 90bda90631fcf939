//! Reading leases and settings.

use std::ops::Bound;
use std::sync::Arc;

use super::State;
use crate::id::{LeaseId, NodeName, Region, Seq, TenantName};
use crate::lease::Lease;
use crate::settings::{LeaseMode, Settings};

impl State {
    /// What the operator chose for the whole ledger.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.rows.settings
    }

    /// One lease, ended ones while they are kept.
    #[must_use]
    pub fn lease(&self, lease: LeaseId) -> Option<&Lease> {
        self.rows.leases.get(&lease).map(Arc::as_ref)
    }

    /// All leases in order of their grant, ended ones while they are kept.
    pub fn leases(&self) -> impl DoubleEndedIterator<Item = &Lease> {
        self.rows.leases.values().map(Arc::as_ref)
    }

    /// Leases that were granted after this one, in order of their grant, ended ones while they are kept.
    pub fn leases_after(&self, lease: LeaseId) -> impl Iterator<Item = &Lease> {
        let after = (Bound::Excluded(lease), Bound::Unbounded);
        self.rows
            .leases
            .range(after)
            .map(|(_, lease)| lease.as_ref())
    }

    /// Leases that are charged, in order of their grant.
    pub fn live_leases(&self) -> impl Iterator<Item = &Lease> {
        self.live_leases_after(LeaseId(0))
    }

    /// Those of them that were granted after this one.
    pub fn live_leases_after(&self, lease: LeaseId) -> impl Iterator<Item = &Lease> {
        let after = (Bound::Excluded(lease), Bound::Unbounded);
        let live = self.index.live.range(after);
        live.filter_map(|lease| self.lease(*lease))
    }

    /// A tenant's live leases, in order of their grant.
    pub fn leases_of(&self, tenant: &TenantName) -> impl DoubleEndedIterator<Item = &Lease> {
        let leases = self.index.leases_of.get(tenant).into_iter().flatten();
        leases.filter_map(|lease| self.lease(*lease))
    }

    /// Live leases with devices on a node.
    pub fn leases_at(&self, node: &NodeName) -> impl Iterator<Item = &Lease> {
        let leases = self.index.leases_at.get(node).into_iter().flatten();
        leases.filter_map(|lease| self.lease(*lease))
    }

    /// Whether a lease waits for this node to be seen free.
    #[must_use]
    pub fn awaits(&self, node: &NodeName) -> bool {
        self.leases_at(node).any(|lease| !lease.active())
    }

    /// Nodes with devices of leases that are to end by a row after this one.
    pub fn released_since(&self, row: Seq) -> impl Iterator<Item = &NodeName> {
        let after = (Bound::Excluded((row, LeaseId(u64::MAX))), Bound::Unbounded);
        let leases = self.index.releasing.range(after);
        let leases = leases.filter_map(|(_, lease)| self.lease(*lease));
        leases.flat_map(|lease| lease.occupied().map(|(_, node)| node))
    }

    /// Whether a tenant needs leases in a region: it says so itself, else its region, else the settings.
    #[must_use]
    pub fn lease_mode(&self, tenant: &TenantName, region: &Region) -> LeaseMode {
        let of_tenant = self.tenant(tenant);
        let of_tenant = of_tenant.and_then(|tenant| tenant.profile.lease_mode);
        let of_region = || self.region(region).and_then(|region| region.lease_mode);
        of_tenant
            .or_else(of_region)
            .unwrap_or(self.rows.settings.lease_mode)
    }

    /// Whether a node is none of the dedicated ones that the tenant is kept on.
    #[must_use]
    pub fn kept_off(&self, tenant: &TenantName, node: &NodeName) -> bool {
        let confined = self.tenant(tenant);
        confined.is_some_and(|tenant| tenant.profile.confined)
            && self.bound_tenant(node) != Some(tenant)
            && self.is_confined(tenant)
    }

    /// Whether a tenant is granted nothing outside its dedicated nodes now.
    #[must_use]
    pub fn is_confined(&self, tenant: &TenantName) -> bool {
        let confined = self.tenant(tenant);
        confined.is_some_and(|tenant| tenant.profile.confined)
            && self
                .quotas_of(tenant)
                .any(|quota| quota.in_force() && !quota.nodes.is_empty())
    }
}
