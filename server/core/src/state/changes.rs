//! When what last changed: after which row a figure that somebody computed is still right.
//!
//! It follows from the rows that were folded, not from the state, so it is neither in a snapshot nor compared; a state
//! that was read from a snapshot has changed in everything at its last row.

use imbl::OrdMap;

use crate::id::{Seq, TenantName};

/// Last rows that changed something, by what they changed.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    tenants: OrdMap<TenantName, Seq>,
    all_tenants: Seq,
    nodes: Seq,
    licences: Seq,
}

impl Changes {
    /// Everything changed at this row.
    pub(crate) fn at(seq: Seq) -> Self {
        Self {
            tenants: OrdMap::new(),
            all_tenants: seq,
            nodes: seq,
            licences: seq,
        }
    }

    pub(crate) fn tenant(&mut self, tenant: &TenantName, seq: Seq) {
        self.tenants.insert(tenant.clone(), seq);
    }

    pub(crate) fn all_tenants(&mut self, seq: Seq) {
        self.all_tenants = seq;
        self.tenants.clear();
    }

    pub(crate) fn nodes(&mut self, seq: Seq) {
        self.nodes = seq;
    }

    pub(crate) fn licences(&mut self, seq: Seq) {
        self.licences = seq;
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
}
