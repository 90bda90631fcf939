//! Which nodes and devices a tenant may be given, and how many on each node, whatever its quotas bear.

use std::collections::{BTreeMap, BTreeSet};

use imbl::OrdSet;

use crate::command::RequestLease;
use crate::device::{Device, DeviceKey, DeviceKind};
use crate::explanation::Rule;
use crate::id::{NodeName, TenantName};
use crate::lease::LeaseTerms;
use crate::node::{Node, NodeState};
use crate::placement::{Offer, Slot};
use crate::pool::Accelerator;
use crate::state::{Group, State};

/// A node that may serve a request.
struct Candidate<'a> {
    node: &'a NodeName,
    room: u32,
    devices_in_use: u32,
    free: Vec<(&'a DeviceKey, &'a Device)>,
    /// Instances of each GPU of the node, and how many of them are in use.
    instances: BTreeMap<&'a str, (u32, u32)>,
}

/// Nodes that may serve a request.
pub(super) struct Candidates<'a>(Vec<Candidate<'a>>);

impl<'a> Candidates<'a> {
    pub(super) fn offers(&self) -> Vec<Offer<'a>> {
        let offers = self.0.iter().map(|candidate| Offer {
            node: candidate.node,
            room: candidate.room,
            devices_in_use: candidate.devices_in_use,
            free: candidate
                .free
                .iter()
                .map(|(key, device)| candidate.slot(key, device))
                .collect(),
        });
        offers.collect()
    }
}

impl<'a> Candidate<'a> {
    fn slot(&self, key: &'a DeviceKey, device: &'a Device) -> Slot<'a> {
        let gpu = device.report.gpu().unwrap_or("");
        let (instances, in_use) = self.instances.get(gpu).copied().unwrap_or((1, 0));
        Slot {
            key,
            gpu,
            // The slot itself is free and one of them.
            siblings_in_use: in_use,
            siblings: instances.saturating_sub(1),
            numa: device.report.numa,
            nvlink: device.report.nvlink,
        }
    }
}

impl State {
    pub(super) fn candidates<'a>(
        &'a self,
        request: &RequestLease,
        terms: &LeaseTerms,
        group: &Group,
    ) -> Candidates<'a> {
        let nodes = self.stock(&group.region, &group.model);
        let nodes = nodes.filter_map(|(name, free)| {
            let node = self.node(name)?;
            match self.obstacle(request, terms, name, node) {
                Some(_) => None,
                None => self.candidate(terms, group, name, node, free),
            }
        });
        Candidates(nodes.collect())
    }

    /// What keeps a tenant off a node altogether.
    pub(super) fn obstacle(
        &self,
        request: &RequestLease,
        terms: &LeaseTerms,
        name: &NodeName,
        node: &Node,
    ) -> Option<Rule> {
        let tenant = &terms.tenant;
        if !request.nodes.is_empty() && !request.nodes.contains(name) {
            return Some(Rule::NodeNotNamed);
        }
        if self.bound_tenant(name).is_some_and(|bound| bound != tenant) {
            return Some(Rule::NodeDedicated);
        }
        if self.closed_to(tenant, name) {
            return Some(Rule::NodeGroup);
        }
        if node.state != NodeState::Up {
            return Some(Rule::NodeSilent);
        }
        if !node.settled {
            return Some(Rule::NodeUnsettled);
        }
        let leases = || self.leases_at(name).map(|lease| &lease.terms);
        let cores = leases().filter_map(|terms| terms.cpu_cores).map(u64::from);
        let cores_fit = fits(
            node.cpu_cores().map(u64::from),
            cores.sum(),
            terms.cpu_cores.map(u64::from),
        );
        let memory = leases().filter_map(|terms| terms.memory_bytes);
        let memory = memory.fold(0, u64::saturating_add);
        if !cores_fit || !fits(node.memory_bytes(), memory, terms.memory_bytes) {
            return Some(Rule::NodeRoom);
        }
        None
    }

    fn candidate<'a>(
        &'a self,
        terms: &LeaseTerms,
        group: &Group,
        name: &'a NodeName,
        node: &'a Node,
        free: &'a OrdSet<DeviceKey>,
    ) -> Option<Candidate<'a>> {
        // What lies on one shelf differs in its kind alone. A device of a node that is dedicated to the tenant is charged
        // to that quota and to no other.
        let mut known = None;
        let mut fits = |kind| match known {
            Some((same, fits)) if same == kind => fits,
            _ => {
                let of = self.type_at(&terms.tenant, name, &group.model, kind);
                let fits = of == group.quota_type;
                known = Some((kind, fits));
                fits
            }
        };
        let mut devices_in_use = 0;
        let mut divided = self.instances_leased_at(name);
        let mut instances: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        let mut fitting: Vec<(&DeviceKey, &Device)> = Vec::with_capacity(free.len());
        for (key, device) in node
            .devices
            .iter()
            .filter_map(|key| Some((key, self.device(key)?)))
        {
            divided |= key.kind() != DeviceKind::Gpu;
            if device.report.partitioned {
                continue;
            }
            let free = free.contains(key);
            if free && fits(key.kind()) {
                fitting.push((key, device));
            }
            let in_use = !free && (!device.holders.is_empty() || self.lease_on(key).is_some());
            devices_in_use += u32::from(in_use);
            if key.kind() != DeviceKind::Gpu
                && let Some(gpu) = device.report.gpu()
            {
                let of_gpu = instances.entry(gpu).or_default();
                *of_gpu = (of_gpu.0 + 1, of_gpu.1 + u32::from(in_use));
            }
        }
        let mut free = fitting;
        if divided {
            free.retain(|(key, device)| {
                self.lease_beside(key, device).is_none() && !self.held_beside(key)
            });
        }
        if free.is_empty() {
            return None;
        }
        let room = self.room_on(terms, name, &mut free, &instances);
        Some(Candidate {
            node: name,
            room,
            devices_in_use,
            free,
            instances,
        })
    }

    // A lease may be of instances that are there no more.
    fn instances_leased_at(&self, name: &NodeName) -> bool {
        let keys = self.leases_at(name).flat_map(|lease| lease.devices.keys());
        keys.into_iter().any(|key| key.kind() != DeviceKind::Gpu)
    }

    // Per-node limits count cards: an instance on a card that the tenant has already costs none. Cards that are in use
    // most come first, so that whole ones stay whole; where those have too few free instances, the emptiest do.
    fn room_on(
        &self,
        terms: &LeaseTerms,
        name: &NodeName,
        free: &mut Vec<(&DeviceKey, &Device)>,
        instances: &BTreeMap<&str, (u32, u32)>,
    ) -> u32 {
        let tenant = &terms.tenant;
        let Some(limit) = self.card_limit_on(tenant, name) else {
            return u32::MAX;
        };
        let had = self.cards_of(tenant, name);
        let room = limit.saturating_sub(u32::try_from(had.len()).unwrap_or(u32::MAX));
        if free.iter().all(|(key, _)| key.kind() == DeviceKind::Gpu) {
            return room;
        }
        let in_use = |gpu: &str| instances.get(gpu).map_or(0, |(_, in_use)| *in_use);
        let mut on_card: BTreeMap<&str, usize> = BTreeMap::new();
        for gpu in free.iter().filter_map(|(_, device)| device.report.gpu()) {
            *on_card.entry(gpu).or_default() += 1;
        }
        let on_had = on_card.iter().filter(|(gpu, _)| had.contains(*gpu));
        let on_had: usize = on_had.map(|(_, free)| free).sum();
        let mut others: Vec<(&str, usize)> = on_card.into_iter().collect();
        others.retain(|(gpu, _)| !had.contains(gpu));
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        others.sort_by_key(|(gpu, _)| (std::cmp::Reverse(in_use(gpu)), *gpu));
        let on_fullest: usize = others.iter().take(room).map(|(_, free)| free).sum();
        if on_had + on_fullest < usize::try_from(terms.count).unwrap_or(usize::MAX) {
            others.sort_by_key(|(gpu, free)| (std::cmp::Reverse(*free), *gpu));
        }
        others.truncate(room);
        let others: BTreeSet<&str> = others.into_iter().map(|(gpu, _)| gpu).collect();
        free.retain(|(_, device)| {
            let gpu = device.report.gpu();
            // Which card an instance without a parent is on is not known, so it may be any.
            gpu.is_some_and(|gpu| had.contains(gpu) || others.contains(gpu))
        });
        u32::MAX
    }

    /// Whether a node is in a resource group that is not for this tenant.
    pub(super) fn closed_to(&self, tenant: &TenantName, name: &NodeName) -> bool {
        let mut groups = self.groups_of(name).filter_map(|group| self.group(group));
        groups.any(|group| {
            let tenants = group.tenants.as_ref();
            tenants.is_some_and(|tenants| !tenants.contains(tenant))
        })
    }

    /// Cards that a tenant may have on a node, by the tightest of the node's groups; `None` is no limit.
    pub(crate) fn card_limit_on(&self, tenant: &TenantName, name: &NodeName) -> Option<u32> {
        let groups = self.groups_of(name);
        groups
            .filter_map(|group| self.card_limit(group, Some(tenant), Accelerator::Gpu))
            .min()
    }

    /// Cards of a node that a tenant has, whole or in part.
    pub(super) fn cards_of(&self, tenant: &TenantName, name: &NodeName) -> BTreeSet<&str> {
        let devices = self.node(name).into_iter().flat_map(|node| &node.devices);
        let devices = devices.filter_map(|key| Some((key, self.device(key)?)));
        let own = devices.filter(|(key, device)| {
            let leased = self.lease_on(key);
            device.holders.contains_key(tenant)
                || leased.is_some_and(|lease| lease.terms.tenant == *tenant)
        });
        own.filter_map(|(_, device)| device.report.gpu()).collect()
    }
}

// What is not known has no room for anything.
fn fits(total: Option<u64>, taken: u64, asked: Option<u64>) -> bool {
    match (total, asked) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(total), Some(asked)) => taken.saturating_add(asked) <= total,
    }
}
