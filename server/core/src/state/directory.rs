//! Reading what the operator declared: tenants, regions, groups, hosts, models, counters.

use std::collections::BTreeSet;

use super::State;
use crate::catalogue::{Catalogue, ModelEntry};
use crate::id::{
    GroupName, HostResourceName, NodeName, ProjectId, Region, ResourceKind, SiteId, TenantName,
    TenantNumber,
};
use crate::limit::Limit;
use crate::pool::{Accelerator, CardLimitKey, Counter, HostResource, RegionProfile, ResourceGroup};
use crate::tenant::Tenant;

impl State {
    /// One tenant.
    #[must_use]
    pub fn tenant(&self, tenant: &TenantName) -> Option<&Tenant> {
        self.rows.tenants.get(tenant)
    }

    /// The tenant with this number.
    #[must_use]
    pub fn tenant_by_number(&self, number: TenantNumber) -> Option<&Tenant> {
        self.tenant(self.index.numbers.get(&number)?)
    }

    /// The tenant whose project this is. A tenant's own name is a project of it too.
    #[must_use]
    pub fn tenant_of_project(&self, project: &ProjectId) -> Option<&Tenant> {
        match self.index.projects.get(project) {
            Some(tenant) => self.tenant(tenant),
            None => self.tenant(&TenantName::new(project.as_str()).ok()?),
        }
    }

    /// Regions that the operator described.
    pub fn regions(&self) -> impl Iterator<Item = &RegionProfile> {
        self.rows.regions.values()
    }

    /// One region that the operator described.
    #[must_use]
    pub fn region(&self, region: &Region) -> Option<&RegionProfile> {
        self.rows.regions.get(region)
    }

    /// The site that a region is part of; `None` is the central one.
    #[must_use]
    pub fn site_of(&self, region: &Region) -> Option<&SiteId> {
        self.rows.regions.get(region)?.site.as_ref()
    }

    /// Resource groups that the operator described.
    pub fn groups(&self) -> impl Iterator<Item = &ResourceGroup> {
        self.rows.groups.values()
    }

    /// One resource group that the operator described.
    #[must_use]
    pub fn group(&self, group: &GroupName) -> Option<&ResourceGroup> {
        self.rows.groups.get(group)
    }

    /// Groups that have nodes, described or not.
    pub fn groups_with_nodes(&self) -> impl Iterator<Item = &GroupName> {
        self.index.nodes_in.keys()
    }

    /// Nodes of a resource group.
    pub fn nodes_in(&self, group: &GroupName) -> impl Iterator<Item = &NodeName> {
        self.index.nodes_in.get(group).into_iter().flatten()
    }

    /// Resource groups of a node.
    pub fn groups_of(&self, node: &NodeName) -> impl Iterator<Item = &GroupName> {
        self.index.groups_of.get(node).into_iter().flatten()
    }

    /// Per-node card limits that are set.
    pub fn card_limits(&self) -> impl Iterator<Item = (&CardLimitKey, u32)> {
        self.rows
            .card_limits
            .iter()
            .map(|(key, cards)| (key, *cards))
    }

    /// Cards that a tenant may have on one node of a group: its own limit, else the one for everybody; `None` is no
    /// limit.
    #[must_use]
    pub fn card_limit(
        &self,
        group: &GroupName,
        tenant: Option<&TenantName>,
        accelerator: Accelerator,
    ) -> Option<u32> {
        let limit = |tenant: Option<&TenantName>| {
            let key = CardLimitKey {
                group: group.clone(),
                tenant: tenant.cloned(),
                accelerator,
            };
            self.rows.card_limits.get(&key).copied()
        };
        tenant
            .and_then(|tenant| limit(Some(tenant)))
            .or_else(|| limit(None))
    }

    /// Kinds of dedicated hosts.
    pub fn host_resources(&self) -> impl Iterator<Item = &HostResource> {
        self.rows.host_resources.values()
    }

    /// Hosts of a kind that may be bound to a tenant; unlimited where nothing is set.
    #[must_use]
    pub fn host_limit(&self, tenant: &TenantName, resource: &HostResourceName) -> Limit {
        let limits = self.rows.host_limits.get(tenant);
        let limit = limits.and_then(|limits| limits.get(resource));
        limit.copied().unwrap_or(Limit::Unlimited)
    }

    /// Host limits that are set for a tenant.
    pub fn host_limits_of(
        &self,
        tenant: &TenantName,
    ) -> impl Iterator<Item = (&HostResourceName, Limit)> {
        let limits = self.rows.host_limits.get(tenant).into_iter().flatten();
        limits.map(|(resource, limit)| (resource, *limit))
    }

    /// Nodes that serve a tenant alone.
    #[must_use]
    pub fn bound_nodes(&self, tenant: &TenantName) -> BTreeSet<&NodeName> {
        let binding = self.quotas_of(tenant).filter(|quota| quota.in_force());
        binding.flat_map(|quota| &quota.nodes).collect()
    }

    /// Nodes that a tenant has: those that serve it alone, and those on which it holds a device.
    #[must_use]
    pub fn held_nodes(&self, tenant: &TenantName) -> BTreeSet<&NodeName> {
        let mut nodes = self.bound_nodes(tenant);
        nodes.extend(self.devices_of(tenant).map(|(_, device)| &device.node));
        nodes
    }

    /// Whether a node is a host of this kind.
    #[must_use]
    pub fn is_host(&self, node: &NodeName, resource: &HostResource) -> bool {
        self.groups_of(node)
            .any(|group| resource.groups.contains(group))
    }

    /// The model catalogue's entries.
    pub fn models(&self) -> impl Iterator<Item = &ModelEntry> {
        self.rows.models.values()
    }

    /// The model catalogue.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.index.catalogue
    }

    /// What other systems count for a project.
    pub fn counters_of(
        &self,
        project: &ProjectId,
    ) -> impl Iterator<Item = (Option<&SiteId>, &ResourceKind, &Counter)> {
        let counters = self.rows.counters.get(project).into_iter();
        counters
            .flat_map(|counters| &counters.0)
            .map(|((site, kind), counter)| (site.as_ref(), kind, counter))
    }

    /// One counter of a project.
    #[must_use]
    pub fn counter(
        &self,
        project: &ProjectId,
        site: Option<&SiteId>,
        kind: &ResourceKind,
    ) -> Option<&Counter> {
        let counters = &self.rows.counters.get(project)?.0;
        counters.get(&(site.cloned(), kind.clone()))
    }
}
