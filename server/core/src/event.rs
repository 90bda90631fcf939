//! What can happen. An event's shape is never edited, only added to: old journals must fold for ever.
//!
//! What this program does not know it refuses to read, fields too: a row that a newer one wrote must not be folded into
//! half of what it says.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::archive::{Archive, Head};
use crate::ban::Ban;
use crate::catalogue::ModelEntry;
use crate::device::{DeviceKey, DeviceReport};
use crate::enforcement::Enforcement;
use crate::id::{
    Epoch, GpuModel, GroupName, HostResourceName, Incarnation, LeaseId, LicenceQuotaId, NodeName,
    ProductId, QuotaId, Reference, Region, SeatId, Seq, SessionId, TenantName, Timestamp,
};
use crate::join::{Certified, JoinToken};
use crate::lease::{EndReason, LeaseTerms, LeasedMake, Unconfirmed};
use crate::licence::{LicenceTerms, Product, Seat};
use crate::limit::Limit;
use crate::node::NodeFacts;
use crate::plan::{Cause, DrainEnd};
use crate::pool::{
    CardLimitKey, CounterSet, HostLimitKey, HostResource, Inventory, RegionProfile, ResourceGroup,
};
use crate::quota::{QuotaKey, QuotaSource};
use crate::settings::Settings;
use crate::state::Group;
use crate::step::{StepEnded, StepsBegun, StepsConfirmed, StepsHeld};
use crate::tenant::TenantProfile;

pub use crate::node::SilenceReason;
pub use crate::record::{KeptAnswer, Record, Replay};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A tenant is known from now on, under the next free number. Earlier versions wrote it; [`Event::TenantSet`] says more.
    TenantCreated {
        /// Its name.
        tenant: TenantName,
    },
    /// A quota was made or replaced.
    QuotaSet {
        /// Our number of it.
        quota: QuotaId,
        /// What makes it that quota.
        key: QuotaKey,
        /// How much.
        limit: Limit,
        /// From then on it grants nothing.
        expires_at: Option<Timestamp>,
        /// The caller's own number.
        reference: Option<Reference>,
        /// Nodes of a dedicated quota.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        nodes: BTreeSet<NodeName>,
    },
    /// A quota's end was reached.
    QuotaExpired {
        /// Which.
        quota: QuotaId,
    },
    /// A quota was taken away.
    QuotaReleased {
        /// Which.
        quota: QuotaId,
        /// Although something may have been in use.
        forced: bool,
    },
    /// A quota was put out of force, or back into it.
    QuotaSwitched {
        /// Which.
        quota: QuotaId,
        /// Whether it grants from now on.
        active: bool,
    },
    /// The operator said where a node stands and belongs.
    NodeDeclared {
        /// Which.
        node: NodeName,
        /// Where.
        region: Region,
        /// Its resource groups; `None` leaves them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        groups: Option<BTreeSet<GroupName>>,
        /// What is in it; `None` leaves it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        inventory: Option<Inventory>,
    },
    /// The operator described a tenant.
    TenantSet(TenantProfile),
    /// The operator described a region.
    RegionSet(RegionProfile),
    /// The operator described a resource group.
    GroupSet(ResourceGroup),
    /// A resource group is no longer described, and has no card limits.
    GroupRemoved {
        /// Which.
        group: GroupName,
    },
    /// A per-node card limit was set or taken away.
    CardLimitSet {
        /// Which.
        key: CardLimitKey,
        /// Cards on one node; `None` is no limit.
        cards: Option<u32>,
    },
    /// The operator described a kind of dedicated host.
    HostResourceSet(HostResource),
    /// A kind of dedicated host is no more, nor any limit of it.
    HostResourceRemoved {
        /// Which.
        resource: HostResourceName,
    },
    /// A limit of hosts was set or taken away.
    HostLimitSet {
        /// Which.
        key: HostLimitKey,
        /// Hosts; `None` is no limit.
        limit: Option<Limit>,
    },
    /// A model was put into the catalogue.
    ModelSet(ModelEntry),
    /// A model was taken out of the catalogue.
    ModelRemoved {
        /// Which.
        gpu_model: GpuModel,
    },
    /// Another system said what it counts.
    CounterSet(CounterSet),
    /// The operator described a software product.
    ProductSet(Product),
    /// A software product is no more.
    ProductRemoved {
        /// Which.
        product: ProductId,
    },
    /// A licence quota was made or changed.
    LicenceQuotaSet(LicenceTerms),
    /// A licence quota's end was reached.
    LicenceQuotaExpired {
        /// Which.
        quota: LicenceQuotaId,
    },
    /// A licence was checked out, or its end moved.
    SeatSet(Seat),
    /// A licence was given back.
    SeatReleased {
        /// Which seat.
        seat: SeatId,
    },
    /// A seat's end was reached.
    SeatExpired {
        /// Which.
        seat: SeatId,
    },
    /// An agent opened a session; every older one of its node is no longer heard.
    SessionOpened {
        /// Which node.
        node: NodeName,
        /// Region of a node that nobody declared.
        region: Region,
        /// Number of the session.
        session: SessionId,
        /// Boot of the node.
        boot_id: String,
        /// Version of the agent.
        agent_version: String,
        /// The server that hears it, by the name in its rows; earlier versions did not write it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
    },
    /// A node said how its devices and their holders changed.
    NodeReported {
        /// Which node.
        node: NodeName,
        /// Spool it came from.
        spool: String,
        /// Number in that spool.
        number: u64,
        /// When it was observed.
        observed_at: Timestamp,
        /// It replaces all that was known.
        full: bool,
        /// What the node says of itself, when it changed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        facts: Option<NodeFacts>,
        /// Devices that appeared or changed, or all of them.
        devices: Vec<DeviceReport>,
        /// Devices that are no more.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        gone: Vec<DeviceKey>,
        /// It was read before the session began, or nobody knows: the node may be another by now.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        earlier: bool,
    },
    /// A node is as the ledger has it, by its own word in its newest session.
    NodeSettled {
        /// Which node.
        node: NodeName,
    },
    /// A node is no longer heard.
    NodeSilent {
        /// Which.
        node: NodeName,
        /// Why.
        reason: SilenceReason,
    },
    /// A node and all its devices are forgotten.
    NodeRetired {
        /// Which.
        node: NodeName,
        /// Certificates that it was given before make it no node again; earlier versions did not say so.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        barred: bool,
    },
    /// Devices were taken away from their node.
    DevicesForgotten {
        /// Which node.
        node: NodeName,
        /// The devices.
        devices: BTreeSet<DeviceKey>,
    },
    /// A silent node is heard again in the same session.
    NodeHeard {
        /// Which.
        node: NodeName,
    },
    /// The operator chose how the ledger decides.
    SettingsSet(Settings),
    /// A lease was granted.
    LeaseGranted {
        /// Our number.
        lease: LeaseId,
        /// What was asked for.
        terms: LeaseTerms,
        /// Source of the quota that had room first.
        source: QuotaSource,
        /// Its devices and their nodes.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        devices: BTreeMap<DeviceKey, NodeName>,
        /// What those are called; earlier versions did not say it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        makes: Vec<LeasedMake>,
        /// Fencing epoch.
        epoch: Epoch,
        /// From then on it is to end.
        expires_at: Option<Timestamp>,
    },
    /// A lease's end moved.
    LeaseRenewed {
        /// Which.
        lease: LeaseId,
        /// Its new end.
        expires_at: Option<Timestamp>,
    },
    /// Nodes of a lease were bound to another tenant, or serve its tenant again.
    LeaseToLeave {
        /// Which.
        lease: LeaseId,
        /// From then on it is to end; `None`: it may stay.
        leave_by: Option<Timestamp>,
    },
    /// A lease is to end, and waits for its devices to be seen free.
    LeaseReleasing {
        /// Which.
        lease: LeaseId,
        /// Why.
        reason: EndReason,
        /// When waiting ends.
        deadline: Timestamp,
    },
    /// Some devices of such a lease were seen free; it waits for others.
    LeaseFreed {
        /// Which.
        lease: LeaseId,
        /// The devices.
        devices: BTreeSet<DeviceKey>,
        /// Those of them that were not seen free, and why they are waited for no more.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        unconfirmed: BTreeMap<DeviceKey, Unconfirmed>,
    },
    /// Waiting goes on: a node is not heard, or was not until now, and what it holds stays charged.
    LeaseWaiting {
        /// Which.
        lease: LeaseId,
        /// When waiting ends.
        deadline: Timestamp,
    },
    /// A lease is charged no more.
    LeaseEnded {
        /// Which.
        lease: LeaseId,
        /// Why it was to end.
        reason: EndReason,
        /// Devices that were never seen free, and why it ended nevertheless.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        unconfirmed: BTreeMap<DeviceKey, Unconfirmed>,
    },
    /// The tenant is to be told that a quota ends soon.
    QuotaNoticed {
        /// Which.
        quota: QuotaId,
        /// So many days before its end, or fewer.
        days: u32,
        /// Its end.
        expires_at: Timestamp,
    },
    /// A tenant uses more than its quotas grant after they became smaller, and has time to end the excess itself.
    DrainBegun {
        /// Whose.
        tenant: TenantName,
        /// Of what.
        group: Group,
        /// Why the quotas became smaller.
        cause: Cause,
        /// From then on leases are ended.
        deadline: Timestamp,
    },
    /// The deadline of a drain was reached, and leases were told to end.
    DrainEnforced {
        /// Whose.
        tenant: TenantName,
        /// Of what.
        group: Group,
    },
    /// Nothing is over any more.
    DrainEnded {
        /// Whose.
        tenant: TenantName,
        /// Of what.
        group: Group,
        /// What ended it.
        reason: DrainEnd,
    },
    /// The operator said what agents do about what is over a quota.
    QuotaEnforcementSet {
        /// Which.
        quota: QuotaId,
        /// `None`: its tenant says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        enforcement: Option<Enforcement>,
    },
    /// An agent may take these steps.
    StepsBegun(StepsBegun),
    /// Steps against a tenant wait for a person from now on: they were too many at once.
    StepsHeld(StepsHeld),
    /// A person lets steps against a tenant through.
    StepsConfirmed(StepsConfirmed),
    /// An agent said what came of a step, or that people were warned.
    StepEnded(StepEnded),
    /// A token is refused from now on.
    TokenRevoked {
        /// The token's `jti`.
        token: String,
        /// Its own end; after that the row is of no use.
        until: Timestamp,
    },
    /// A node may join with this token, once.
    JoinTokenMade(JoinToken),
    /// A node was given a certificate.
    NodeCertified(Certified),
    /// A node or a certificate is refused from now on.
    Banned(Ban),
    /// It is refused no more.
    Unbanned(Ban),
    /// Hours are over and every row in them stands before this one: what was metered in them is final.
    HourClosed {
        /// Beginning of the first, on the hour.
        from: Timestamp,
        /// End of the last, on the hour.
        to: Timestamp,
    },
    /// What was metered before this is in the table of usage, and leaves the state.
    UsageStored {
        /// On the hour.
        through: Timestamp,
    },
    /// A snapshot of the state was written.
    SnapshotTaken {
        /// Last row that it holds.
        seq: Seq,
        /// SHA-256 of the file, hexadecimal.
        digest: String,
    },
    /// Old rows were written to an archive and may leave the journal; their base stands for them.
    Archived(Archive),
    /// The journal was put back from a backup; what came after the backup is gone.
    Restored {
        /// Grows with each; no number of an earlier one is given out again.
        incarnation: Incarnation,
        /// Last row of the journal that was put aside, when it could be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaced: Option<Head>,
    },
}
