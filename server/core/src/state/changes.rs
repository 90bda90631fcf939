//! When what last changed: after which row a figure that somebody computed is still right.
//!
//! It follows from the rows that were folded, not from the state, so it is neither in a snapshot nor compared; a state
//! that was read from a snapshot has changed in everything at its last row.

use imbl::{OrdMap, OrdSet};

use crate::id::{NodeName, Seq, TenantName};

/// Last rows that changed something, by what they changed.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    tenants: OrdMap<TenantName, Seq>,
    tenants_by_row: OrdSet<(Seq, TenantName)>,
    all_tenants: Seq,
    nodes: Seq,
    licences: Seq,
    rules: Seq,
    judged: OrdMap<NodeName, Seq>,
    judged_by_row: OrdSet<(Seq, NodeName)>,
    bans: Seq,
}

impl Changes {
    /// Everything changed at this row.
    pub(crate) fn at(seq: Seq) -> Self {
        Self {
            tenants: OrdMap::new(),
            tenants_by_row: OrdSet::new(),
            all_tenants: seq,
            nodes: seq,
            licences: seq,
            rules: seq,
            judged: OrdMap::new(),
            judged_by_row: OrdSet::new(),
            bans: seq,
        }
    }

    pub(crate) fn tenant(&mut self, tenant: &TenantName, seq: Seq) {
        if let Some(old) = self.tenants.insert(tenant.clone(), seq) {
            self.tenants_by_row.remove(&(old, tenant.clone()));
        }
        self.tenants_by_row.insert((seq, tenant.clone()));
    }

    pub(crate) fn all_tenants(&mut self, seq: Seq) {
        self.all_tenants = seq;
        self.tenants.clear();
        self.tenants_by_row.clear();
    }

    pub(crate) fn rules(&mut self, seq: Seq) {
        self.rules = seq;
    }

    pub(crate) fn judged(&mut self, node: &NodeName, seq: Seq) {
        self.judged_no_more(node);
        self.judged.insert(node.clone(), seq);
        self.judged_by_row.insert((seq, node.clone()));
    }

    pub(crate) fn judged_no_more(&mut self, node: &NodeName) {
        if let Some(old) = self.judged.remove(node) {
            self.judged_by_row.remove(&(old, node.clone()));
        }
    }

    pub(crate) fn nodes(&mut self, seq: Seq) {
        self.nodes = seq;
    }

    pub(crate) fn licences(&mut self, seq: Seq) {
        self.licences = seq;
    }

    pub(crate) fn bans(&mut self, seq: Seq) {
        self.bans = seq;
    }

    /// Who is refused as a node, and was not before.
    #[must_use]
    pub fn of_bans(&self) -> Seq {
        self.bans
    }

    /// A tenant's quotas, what it uses of them, or how it is called.
    #[must_use]
    pub fn of_tenant(&self, tenant: &TenantName) -> Seq {
        let own = self.tenants.get(tenant).copied().unwrap_or_default();
        own.max(self.all_tenants)
    }

    /// Which nodes there are, where they belong, whether they are heard and what is in them; not who holds it.
    #[must_use]
    pub fn of_nodes(&self) -> Seq {
        self.nodes
    }

    /// Software products, licence quotas, who uses them, and how their tenants are called.
    #[must_use]
    pub fn of_licences(&self) -> Seq {
        self.licences
    }

    /// What is said for everybody of leases, cards and enforcement; who may hold what follows from it.
    #[must_use]
    pub fn of_rules(&self) -> Seq {
        self.rules.max(self.all_tenants)
    }

    /// Tenants that changed after a row; `None`: any may have.
    pub fn tenants_since(&self, row: Seq) -> Option<impl Iterator<Item = &TenantName>> {
        let since = self.tenants_by_row.iter().rev();
        let since = since
            .take_while(move |(at, _)| *at > row)
            .map(|(_, tenant)| tenant);
        (self.of_rules() <= row).then_some(since)
    }

    /// Nodes of which a row after this one said what is on them, whether they are heard, or whose they are.
    pub fn nodes_since(&self, row: Seq) -> impl Iterator<Item = &NodeName> {
        let since = self.judged_by_row.iter().rev();
        since
            .take_while(move |(at, _)| *at > row)
            .map(|(_, node)| node)
    }
}
