//! The state that decisions read: rows, and indexes that follow from them.
//!
//! All of it sits on persistent ordered maps: a clone is cheap, a reader keeps its own, and two folds of one journal
//! give the same bytes. A snapshot holds the rows only; [`State::verify`] recounts every index from them.

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use crate::command::Answer;
use crate::device::{Device, DeviceKey};
use crate::id::{NodeName, OpId, QuotaId, Reference, Seq, SessionId, TenantName, Timestamp};
use crate::node::Node;
use crate::quota::{Quota, QuotaKey};

/// How long the answer to an operation id is kept, milliseconds (dialects D0.11).
pub(crate) const REPLAY_WINDOW_MS: u64 = 24 * 60 * 60 * 1000;

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Order of creation: 1, 2, 3, …
    pub number: u64,
    /// When it became known.
    pub created_at: Timestamp,
}

/// An operation that was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// When.
    pub at: Timestamp,
    /// Digest of what was asked.
    pub fingerprint: String,
    /// What was answered.
    pub answer: Answer,
}

/// What a snapshot holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rows {
    pub(crate) seq: Seq,
    pub(crate) at: Timestamp,
    pub(crate) next_quota: u64,
    pub(crate) tenants: OrdMap<TenantName, Tenant>,
    pub(crate) quotas: OrdMap<QuotaId, Quota>,
    pub(crate) nodes: OrdMap<NodeName, Node>,
    pub(crate) devices: OrdMap<DeviceKey, Device>,
    pub(crate) operations: OrdMap<OpId, Operation>,
    pub(crate) revoked: OrdMap<String, Timestamp>,
    pub(crate) snapshot: Option<Seq>,
}

/// What follows from the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) by_key: OrdMap<QuotaKey, QuotaId>,
    pub(crate) by_reference: OrdMap<(TenantName, Reference), QuotaId>,
    pub(crate) by_tenant: OrdMap<TenantName, OrdSet<QuotaId>>,
    pub(crate) expiring: OrdSet<(Timestamp, QuotaId)>,
    pub(crate) binding: OrdMap<NodeName, OrdSet<QuotaId>>,
    pub(crate) held: OrdMap<TenantName, OrdSet<DeviceKey>>,
    pub(crate) operations: OrdSet<(Timestamp, OpId)>,
    pub(crate) revoked: OrdSet<(Timestamp, String)>,
}

/// The ledger after some journal row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Rows", into = "Rows")]
pub struct State {
    pub(crate) rows: Rows,
    pub(crate) index: Index,
}

/// An invariant does not hold; the ledger must not be written to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("broken invariant: {0}")]
pub struct Broken(pub String);

impl From<Rows> for State {
    fn from(rows: Rows) -> Self {
        let index = Index::of(&rows);
        Self { rows, index }
    }
}

impl From<State> for Rows {
    fn from(state: State) -> Self {
        state.rows
    }
}

impl State {
    /// Last row folded in.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.rows.seq
    }

    /// Time of that row; no later row has an earlier one.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.rows.at
    }

    /// Last row of the newest snapshot that was noted.
    #[must_use]
    pub fn snapshot(&self) -> Option<Seq> {
        self.rows.snapshot
    }

    /// All tenants by name.
    pub fn tenants(&self) -> impl Iterator<Item = (&TenantName, &Tenant)> {
        self.rows.tenants.iter()
    }

    /// All quotas, in order of creation.
    pub fn quotas(&self) -> impl Iterator<Item = &Quota> {
        self.rows.quotas.values()
    }

    /// All nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeName, &Node)> {
        self.rows.nodes.iter()
    }

    /// One node.
    #[must_use]
    pub fn node(&self, node: &NodeName) -> Option<&Node> {
        self.rows.nodes.get(node)
    }

    /// All devices by key.
    pub fn devices(&self) -> impl Iterator<Item = (&DeviceKey, &Device)> {
        self.rows.devices.iter()
    }

    /// One device.
    #[must_use]
    pub fn device(&self, key: &DeviceKey) -> Option<&Device> {
        self.rows.devices.get(key)
    }

    /// One quota.
    #[must_use]
    pub fn quota(&self, quota: QuotaId) -> Option<&Quota> {
        self.rows.quotas.get(&quota)
    }

    /// A tenant's quotas, in order of creation.
    pub fn quotas_of(&self, tenant: &TenantName) -> impl Iterator<Item = &Quota> {
        let ids = self.index.by_tenant.get(tenant).into_iter().flatten();
        ids.filter_map(|quota| self.rows.quotas.get(quota))
    }

    /// Devices that a tenant holds.
    pub fn devices_of(&self, tenant: &TenantName) -> impl Iterator<Item = (&DeviceKey, &Device)> {
        let keys = self.index.held.get(tenant).into_iter().flatten();
        keys.filter_map(|key| self.rows.devices.get_key_value(key))
    }

    /// Tenants that hold something now, known to the ledger or not.
    pub fn holders(&self) -> impl Iterator<Item = &TenantName> {
        self.index.held.keys()
    }

    /// The tenant that a node serves alone.
    #[must_use]
    pub fn bound_tenant(&self, node: &NodeName) -> Option<&TenantName> {
        let quotas = self.index.binding.get(node)?;
        quotas
            .iter()
            .filter_map(|quota| self.rows.quotas.get(quota))
            .find(|quota| quota.binds(node))
            .map(|quota| &quota.key.tenant)
    }

    /// The next moment at which time alone changes something.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.index.expiring.get_min().map(|(at, _)| *at)
    }

    /// The answer that was given to an operation id, while it is kept.
    #[must_use]
    pub fn operation(&self, op: &OpId, now: Timestamp) -> Option<&Operation> {
        let kept_since = now.before(REPLAY_WINDOW_MS);
        self.rows
            .operations
            .get(op)
            .filter(|operation| operation.at > kept_since)
    }

    /// Whether a token was revoked.
    #[must_use]
    pub fn revoked(&self, token: &str) -> bool {
        self.rows.revoked.contains_key(token)
    }

    /// A node's session.
    #[must_use]
    pub fn session(&self, node: &NodeName) -> Option<SessionId> {
        self.node(node).map(|node| node.session)
    }

    pub(crate) fn by_key(&self, key: &QuotaKey) -> Option<&Quota> {
        let quota = self.index.by_key.get(key)?;
        self.rows.quotas.get(quota)
    }

    pub(crate) fn by_reference(&self, tenant: &TenantName, reference: Reference) -> Option<&Quota> {
        let quota = self.index.by_reference.get(&(tenant.clone(), reference))?;
        self.rows.quotas.get(quota)
    }

    /// Recounts every index from the rows and checks what must always hold.
    ///
    /// # Errors
    /// With the first invariant that does not hold.
    pub fn verify(&self) -> Result<(), Broken> {
        let recount = Index::of(&self.rows);
        if recount != self.index {
            return Err(Broken("an index differs from a recount of its rows".into()));
        }
        if self.index.by_key.len() != self.rows.quotas.len() {
            return Err(Broken("two quotas share a key".into()));
        }
        let references = self.rows.quotas.values();
        let references = references.filter(|quota| quota.reference.is_some());
        if self.index.by_reference.len() != references.count() {
            return Err(Broken("two quotas of one tenant share an id".into()));
        }
        for (key, device) in &self.rows.devices {
            let listed = self
                .node(&device.node)
                .is_some_and(|n| n.devices.contains(key));
            if !listed || *key != device.report.key {
                return Err(Broken(format!("device {key} is not its node's")));
            }
        }
        for (name, node) in &self.rows.nodes {
            for key in &node.devices {
                if self.device(key).is_none_or(|device| device.node != *name) {
                    return Err(Broken(format!("node {name} lists {key}, which is not its")));
                }
            }
        }
        for quota in self.rows.quotas.values() {
            if !self.rows.tenants.contains_key(&quota.key.tenant) {
                return Err(Broken(format!("quota {} has no tenant", quota.id.0)));
            }
            if quota.id.0 >= self.rows.next_quota {
                return Err(Broken(format!(
                    "quota {} would be given out again",
                    quota.id.0
                )));
            }
            for node in quota.nodes.iter().filter(|node| quota.binds(node)) {
                if self.bound_tenant(node) != Some(&quota.key.tenant) {
                    return Err(Broken(format!("node {node} is bound to two tenants")));
                }
            }
        }
        Ok(())
    }
}

impl Index {
    pub(crate) fn of(rows: &Rows) -> Self {
        let mut index = Self::default();
        for quota in rows.quotas.values() {
            index.add_quota(quota);
        }
        for (key, device) in &rows.devices {
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
        index
    }

    pub(crate) fn add_quota(&mut self, quota: &Quota) {
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
        for node in &quota.nodes {
            self.binding
                .entry(node.clone())
                .or_default()
                .insert(quota.id);
        }
    }

    pub(crate) fn remove_quota(&mut self, quota: &Quota) {
        let known = self.by_key.remove(&quota.key);
        assert_eq!(known, Some(quota.id), "quota key index");
        if let Some(reference) = quota.reference {
            let reference = (quota.key.tenant.clone(), reference);
            let known = self.by_reference.remove(&reference);
            assert_eq!(known, Some(quota.id), "reference index");
        }
        remove_from(&mut self.by_tenant, &quota.key.tenant, &quota.id);
        if let Some(at) = quota.expires_at.filter(|_| !quota.expired) {
            let known = self.expiring.remove(&(at, quota.id));
            assert!(known.is_some(), "expiry index");
        }
        for node in &quota.nodes {
            remove_from(&mut self.binding, node, &quota.id);
        }
    }
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
