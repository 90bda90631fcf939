//! What the tests wrote, kept as plainly as it can be, and the numbers that follow from it.

use std::collections::{BTreeMap, BTreeSet};

use super::leases::Leased;

pub(super) const TENANTS: [(&str, u64); 3] = [("t1", 1), ("t2", 2), ("t3", 3)];
/// Regions with their sites; those without one are the central site's.
pub(super) const REGIONS: [(&str, Option<&str>); 4] = [
    ("default", None),
    ("east", None),
    ("edge", Some("7")),
    ("far", Some("8")),
];
pub(super) const SITES: [Option<&str>; 3] = [None, Some("7"), Some("8")];
pub(super) const GPU: &str = "nvidia.com/gpu";
pub(super) const MIG: &str = "nvidia.com/mig-1g.10gb";
/// Another name of [`MIG`] while the catalogue says so.
pub(super) const ALIAS: &str = "small-slice";
/// Models of quotas with the type that they have here.
pub(super) const MODELS: [(&str, &str); 5] = [
    (GPU, "flexible"),
    (MIG, "mig"),
    (ALIAS, "mig"),
    ("V-8Q", "vgpu"),
    ("V-4Q", "vgpu"),
];
pub(super) const GROUPS: [&str; 2] = ["G", "H"];
pub(super) const HOSTS: [&str; 2] = ["c4", "m4"];

/// A node that never moves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) region: &'static str,
    pub(super) group: &'static str,
    /// CPUs, and as many GiB of memory.
    pub(super) cores: u32,
}

const fn node(name: &'static str, region: &'static str, group: &'static str, cores: u32) -> Node {
    Node {
        name,
        region,
        group,
        cores,
    }
}

pub(super) const NODES: [Node; 5] = [
    node("n1", "default", "G", 4),
    node("n2", "edge", "G", 8),
    node("n3", "default", "H", 16),
    node("n4", "edge", "H", 32),
    node("n5", "east", "H", 64),
];

/// Tenant, region, source, type, model.
pub(super) type Key = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

/// A quota of document 000.
#[derive(Clone, Debug)]
pub(super) struct Quota {
    pub(super) num: u64,
    pub(super) expired: bool,
    pub(super) node: Option<&'static str>,
}

/// A device as its agent reported it.
#[derive(Clone, Debug)]
pub(super) struct Device {
    /// Its address as the ledger writes it.
    pub(super) key: String,
    pub(super) node: usize,
    pub(super) kind: &'static str,
    pub(super) model: &'static str,
    pub(super) tenants: Vec<&'static str>,
    pub(super) licensed: bool,
}

/// A quota of document 003.
#[derive(Clone, Debug)]
pub(super) struct Licence {
    pub(super) tenant: &'static str,
    pub(super) product: u64,
    pub(super) max: u64,
    pub(super) active: bool,
    pub(super) expired: bool,
}

/// Everything that was written or reported.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) quotas: BTreeMap<Key, Quota>,
    pub(super) devices: Vec<Device>,
    /// As the native API listed them last.
    pub(super) leases: Vec<Leased>,
    pub(super) alias: bool,
    pub(super) hosts: BTreeMap<&'static str, BTreeSet<&'static str>>,
    /// -1 is unlimited.
    pub(super) host_limits: BTreeMap<(&'static str, &'static str), i64>,
    pub(super) cards: BTreeMap<(&'static str, Option<&'static str>), u64>,
    /// Quota and use by tenant, type and site.
    pub(super) counters: BTreeMap<(&'static str, &'static str, Option<&'static str>), (u64, u64)>,
    pub(super) frozen: BTreeSet<&'static str>,
    pub(super) licences: BTreeMap<u64, Licence>,
    pub(super) seats: BTreeMap<u64, (&'static str, u64)>,
    /// Nodes whose agents said goodbye; what is held there stays held.
    pub(super) silent: BTreeSet<usize>,
}

pub(super) fn site_of(region: &str) -> Option<&'static str> {
    REGIONS.iter().find(|(name, _)| *name == region).unwrap().1
}

impl World {
    pub(super) fn model(&self, name: &'static str) -> &'static str {
        if name == ALIAS && self.alias {
            MIG
        } else {
            name
        }
    }

    /// Type and region of each charge, by tenant.
    pub(super) fn charged(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        let charges = self.charges().into_iter();
        charges
            .map(|charge| (charge.tenant, charge.kind, charge.region))
            .collect()
    }

    /// Nodes that serve a tenant alone.
    pub(super) fn bound(&self, tenant: &str) -> Vec<Node> {
        let live = |node: &Node| {
            let mut quotas = self.quotas.iter();
            quotas.any(|(key, quota)| {
                key.0 == tenant && !quota.expired && quota.node == Some(node.name)
            })
        };
        NODES.into_iter().filter(live).collect()
    }

    /// Nodes that serve a tenant alone, or on which it holds something.
    pub(super) fn held(&self, tenant: &str) -> Vec<Node> {
        let bound: BTreeSet<&str> = self.bound(tenant).iter().map(|node| node.name).collect();
        let mut nodes = Vec::new();
        for (number, node) in NODES.into_iter().enumerate() {
            let mut here = self.devices.iter().filter(|device| device.node == number);
            if bound.contains(node.name) || here.any(|device| device.tenants.contains(&tenant)) {
                nodes.push(node);
            }
        }
        nodes
    }

    /// Whether a node is a host of this kind.
    pub(super) fn is_host(&self, node: &Node, kind: &str) -> bool {
        self.hosts
            .get(kind)
            .is_some_and(|groups| groups.contains(node.group))
    }

    /// Seats and licensed vGPUs of a product.
    pub(super) fn licences_used(&self, tenant: &str, product: u64) -> u64 {
        let seats = self
            .seats
            .values()
            .filter(|seat| **seat == (tenant, product))
            .count();
        let of_product =
            |device: &&Device| device.licensed && device.model.ends_with("-8Q") && product == 1;
        let devices = self.devices.iter().filter(of_product);
        let vgpus = devices
            .filter(|device| device.tenants.contains(&tenant))
            .count();
        (seats + vgpus) as u64
    }

    /// What quotas of a product grant now.
    pub(super) fn licences_granted(&self, tenant: &str, product: u64) -> u64 {
        let quotas = self.licences.values();
        let granting = quotas
            .filter(|it| it.tenant == tenant && it.product == product && it.active && !it.expired);
        granting.map(|it| it.max).sum()
    }
}
