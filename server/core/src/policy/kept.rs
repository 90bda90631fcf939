//! What is found against tenants, kept from row to row, and the nodes whose policy a row may have changed: so a busy
//! ledger costs what changed in it, not what is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Found, found};
use crate::id::{NodeName, Seq, TenantName};
use crate::settings::LeaseMode;
use crate::state::{Group, State};

/// What was found, and up to which row it was followed.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    row: Seq,
    found: BTreeMap<TenantName, (Seq, Arc<Found>)>,
    unleased: Option<Unleased>,
}

// What device rules say where leases are required.
type Unleased = (BTreeSet<TenantName>, BTreeSet<Group>);

impl Kept {
    /// What is found against a tenant in a state, be it newer or older than what was followed.
    pub fn found(&mut self, state: &State, tenant: &TenantName) -> Arc<Found> {
        if state.tenant(tenant).is_none() {
            return Arc::new(found(state, tenant));
        }
        let changes = state.changes();
        let changed = changes.of_tenant(tenant).max(changes.of_rules());
        if let Some((at, kept)) = self.found.get(tenant)
            && changed <= *at
            && *at <= state.seq()
        {
            return kept.clone();
        }
        let fresh = Arc::new(found(state, tenant));
        let newer = self
            .found
            .get(tenant)
            .is_none_or(|kept| kept.0 < state.seq());
        if newer {
            let kept = (state.seq(), fresh.clone());
            self.found.insert(tenant.clone(), kept);
        }
        fresh
    }

    /// Nodes whose policy may be another than at the state that was followed last; `None`: any may. What time alone
    /// changes is not among them.
    pub fn follow(&mut self, state: &State) -> Option<BTreeSet<NodeName>> {
        let since = std::mem::replace(&mut self.row, state.seq());
        let unleased = unleased(state);
        let rules = self.unleased != unleased;
        self.unleased = unleased;
        let Some(tenants) = state.changes().tenants_since(since).filter(|_| !rules) else {
            self.found.clear();
            return None;
        };
        let nodes = state.changes().nodes_since(since);
        let mut nodes: BTreeSet<NodeName> = nodes.cloned().collect();
        for tenant in tenants {
            nodes.extend(state.denying(tenant).cloned());
            // Nobody asked since everything changed, or the ledger did not know it before.
            let Some((_, before)) = self.found.get(tenant).cloned() else {
                let held = state.devices_of(tenant);
                nodes.extend(held.map(|(_, device)| device.node.clone()));
                continue;
            };
            let after = self.found(state, tenant);
            nodes.extend(before.keys().chain(after.keys()).cloned());
        }
        Some(nodes)
    }
}

fn unleased(state: &State) -> Option<Unleased> {
    let required = |mode| mode == Some(LeaseMode::Required);
    let somewhere = required(Some(state.settings().lease_mode))
        || state.regions().any(|region| required(region.lease_mode));
    let free = || {
        let tenants = state.tenants();
        let free = tenants.filter(|(_, it)| it.profile.lease_mode == Some(LeaseMode::Optional));
        free.map(|(name, _)| name.clone()).collect()
    };
    somewhere.then(|| (free(), state.numbered_groups()))
}
