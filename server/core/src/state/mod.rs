//! The state that decisions read: rows, and indexes that follow from them.
//!
//! All of it sits on persistent ordered maps: a clone is cheap, a reader keeps its own, and two folds of one journal
//! give the same bytes. A snapshot holds the rows only; [`State::verify`] recounts every index from them.

mod changes;
mod demand;
mod directory;
mod drain;
mod index;
mod lease;
mod licence;
mod meter;
mod pairs;
mod steps;
mod stock;
mod verify;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::ban::{Banned, Readmitted};
use crate::catalogue::ModelEntry;
use crate::command::Answer;
use crate::device::{Device, DeviceKey};
use crate::id::{
    Epoch, GpuModel, GroupName, HostResourceName, Incarnation, LeaseId, LicenceQuotaId, NodeName,
    OpId, ProductId, ProjectId, QuotaId, Reference, Region, ResourceKind, SeatId, Seq, SessionId,
    SiteId, TenantName, Timestamp,
};
use crate::join::{Digest, Joining};
use crate::lease::Lease;
use crate::licence::{LicenceQuota, Product, Seat};
use crate::limit::Limit;
use crate::node::Node;
use crate::object::Object;
use crate::pool::{CardLimitKey, Counter, HostResource, RegionProfile, ResourceGroup};
use crate::quota::{Quota, QuotaKey};
use crate::settings::Settings;
use crate::tenant::Tenant;

pub use changes::Changes;
pub(crate) use demand::{Charge, type_of};
pub use demand::{Demand, Group};
pub(crate) use drain::{Drains, NOTICES, notice_at};
pub(crate) use index::{Index, add_to, remove_from};
pub(crate) use meter::Meter;
pub(crate) use steps::{Steps, Together};
pub use verify::Broken;

/// How long the answer to an operation id is kept, milliseconds (dialects D0.11).
pub(crate) const REPLAY_WINDOW_MS: u64 = 24 * 60 * 60 * 1000;

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

/// What a snapshot holds, and what a base holds for ever: it is only added to, and what an earlier version did not write
/// has a default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rows {
    pub(crate) incarnation: Incarnation,
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
    pub(crate) regions: OrdMap<Region, RegionProfile>,
    pub(crate) groups: OrdMap<GroupName, ResourceGroup>,
    #[serde(with = "pairs")]
    pub(crate) card_limits: OrdMap<CardLimitKey, u32>,
    pub(crate) host_resources: OrdMap<HostResourceName, HostResource>,
    pub(crate) host_limits: OrdMap<TenantName, OrdMap<HostResourceName, Limit>>,
    pub(crate) models: OrdMap<GpuModel, ModelEntry>,
    pub(crate) counters: OrdMap<ProjectId, Counters>,
    pub(crate) products: OrdMap<ProductId, Product>,
    pub(crate) next_licence_quota: u64,
    pub(crate) licence_quotas: OrdMap<LicenceQuotaId, LicenceQuota>,
    pub(crate) next_seat: u64,
    pub(crate) seats: OrdMap<SeatId, Seat>,
    pub(crate) settings: Settings,
    /// Rows that changed things last; earlier versions did not keep them.
    #[serde(default, with = "pairs", skip_serializing_if = "OrdMap::is_empty")]
    pub(crate) generations: OrdMap<Object, Seq>,
    pub(crate) next_lease: u64,
    pub(crate) last_epoch: Epoch,
    pub(crate) leases: OrdMap<LeaseId, Arc<Lease>>,
    pub(crate) drains: OrdMap<TenantName, Drains>,
    pub(crate) meter: Meter,
    /// Steps of agents; earlier versions did not keep them.
    #[serde(default, skip_serializing_if = "Steps::is_empty")]
    pub(crate) steps: Steps,
    /// Last sessions of nodes that were retired.
    pub(crate) retired: OrdMap<NodeName, SessionId>,
    /// Join tokens that have not ended.
    pub(crate) join_tokens: OrdMap<Digest, Joining>,
    /// Who is refused as a node, since when.
    #[serde(with = "pairs", skip_serializing_if = "OrdMap::is_empty")]
    pub(crate) bans: OrdMap<Banned, Timestamp>,
    /// Nodes that were retired, with the certificates that they were given since.
    #[serde(skip_serializing_if = "OrdMap::is_empty")]
    pub(crate) gone: OrdMap<NodeName, Readmitted>,
}

/// What other systems count for one project, by site and kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counters(
    #[serde(with = "pairs")] pub(crate) OrdMap<(Option<SiteId>, ResourceKind), Counter>,
);

/// The ledger after some journal row.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Rows", into = "Rows")]
pub struct State {
    pub(crate) rows: Rows,
    pub(crate) index: Index,
    pub(crate) changes: Changes,
    /// Devices that the row being folded may have changed; empty between rows.
    pub(crate) touched: BTreeSet<DeviceKey>,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows && self.index == other.index
    }
}

impl From<Rows> for State {
    fn from(rows: Rows) -> Self {
        let mut state = Self {
            index: Index::of(&rows),
            changes: Changes::at(rows.seq),
            rows,
            touched: BTreeSet::new(),
        };
        state.recount();
        state.touched.clear();
        state
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

    /// How often the journal was put back from a backup.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.rows.incarnation
    }

    /// Time of that row; no later row has an earlier one.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.rows.at
    }

    /// When what last changed.
    #[must_use]
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Tenants that have quotas, in order of creation.
    pub fn tenants_with_quotas(&self) -> impl ExactSizeIterator<Item = &TenantName> {
        self.index.with_quotas.values()
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

    /// Quotas that were made after this one, in order of their making; all where none is named.
    pub fn quotas_after(&self, quota: Option<QuotaId>) -> impl Iterator<Item = &Quota> {
        let after = (
            quota.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        );
        self.rows.quotas.range(after).map(|(_, quota)| quota)
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

    /// Devices with a process of nobody that the agents' rules know.
    pub fn nobodys_devices(&self) -> impl Iterator<Item = (&DeviceKey, &Device)> {
        let keys = self.index.nobodys.iter();
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
        let due = [
            self.index.expiring.get_min().map(|(at, _)| *at),
            self.index.licences_expiring.get_min().map(|(at, _)| *at),
            self.index.seats_expiring.get_min().map(|(at, _)| *at),
            self.index.leases_due.get_min().map(|(at, _)| *at),
            self.index.notices.get_min().map(|(at, _)| *at),
            self.index.drains_due.get_min().map(|(at, ..)| *at),
            self.hour_due(),
        ];
        due.into_iter().flatten().min()
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

    /// The node that a join token makes its bearer at `now`, and the token's end.
    #[must_use]
    pub fn joining(&self, hash: &Digest, now: Timestamp) -> Option<(&NodeName, Timestamp)> {
        let token = self.rows.join_tokens.get(hash);
        token
            .filter(|token| token.until > now)
            .map(|token| (&token.node, token.until))
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
}
