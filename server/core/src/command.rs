//! What can be asked of the ledger, and what it answers.

mod answer;
mod node;
mod quota;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use crate::archive::{Archive, Head};
use crate::ban::Banned;
use crate::catalogue::ModelEntry;
use crate::device::{DeviceKey, DeviceReport, GpuUuid};
use crate::enforcement::Enforcement;
use crate::event::SilenceReason;
use crate::id::{
    Code, DisplayName, GpuModel, GroupName, HostResourceName, Incarnation, LabelName, LeaseId,
    LicenceQuotaId, NodeName, ProductId, ProjectId, QuotaId, Region, ResourceKind, SeatId, Seq,
    SessionId, SiteId, TenantName, TenantNumber, Timestamp,
};
use crate::join::{Certified, Digest};
use crate::lease::LeasePlacement;
use crate::licence::Product;
use crate::limit::Limit;
use crate::meter::Hour;
use crate::node::NodeFacts;
use crate::object::Object;
use crate::pool::{
    CardLimitKey, Counter, HostLimitKey, HostResource, RegionProfile, ResourceGroup,
};
use crate::quota::QuotaType;
use crate::settings::{LeaseMode, Settings};

pub use answer::{Answer, Decision, Outcome, StepsAllowed};
pub use node::DeclareNode;
pub use quota::{OnExcess, QuotaName, ReleaseQuota, SetQuota, SwitchQuota};
pub use steps::{BeginSteps, EndStep};

/// Everything that can be asked to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make or replace a quota.
    SetQuota(SetQuota),
    /// Take a quota away.
    ReleaseQuota(ReleaseQuota),
    /// Put a quota out of force, or back into it.
    SwitchQuota(SwitchQuota),
    /// Say where a node stands and belongs.
    DeclareNode(DeclareNode),
    /// Describe a tenant, or make it known.
    SetTenant(SetTenant),
    /// Describe a region.
    SetRegion(RegionProfile),
    /// Describe a resource group.
    SetGroup(ResourceGroup),
    /// Forget what was said of a resource group, its card limits too.
    RemoveGroup(GroupName),
    /// Bound the cards of a tenant on one node; `None` takes the bound away.
    SetCardLimit(CardLimitKey, Option<u32>),
    /// Describe a kind of dedicated host.
    SetHostResource(HostResource),
    /// Forget a kind of dedicated host, its limits too.
    RemoveHostResource(HostResourceName),
    /// Bound the hosts of a tenant; `None` takes the bound away.
    SetHostLimit(HostLimitKey, Option<Limit>),
    /// Put a model into the catalogue.
    SetModel(ModelEntry),
    /// Take a model out of the catalogue.
    RemoveModel(GpuModel),
    /// Take over what another system counts.
    SetCounter(SetCounter),
    /// Describe a software product.
    SetProduct(Product),
    /// Forget a software product that nothing refers to.
    RemoveProduct(ProductId),
    /// Make a licence quota.
    CreateLicenceQuota(CreateLicenceQuota),
    /// Change a licence quota.
    ChangeLicenceQuota(ChangeLicenceQuota),
    /// Choose how the ledger decides.
    SetSettings(Settings),
    /// Do it only while a thing is as the caller read it.
    IfUnchanged {
        /// What must not have changed.
        object: Object,
        /// The generation that the caller read.
        expected: Seq,
        /// What to do then.
        command: Box<Command>,
    },
    /// Promise devices to a tenant.
    RequestLease(RequestLease),
    /// Let a lease end later, or sooner.
    RenewLease {
        /// Which.
        lease: LeaseId,
        /// From now, milliseconds; `None`: it lasts until it is given back.
        ttl_ms: Option<u64>,
        /// The generation that the caller read; `None`: whatever it is.
        expected: Option<Seq>,
    },
    /// Give a lease back.
    ReleaseLease {
        /// Which.
        lease: LeaseId,
        /// Without waiting for its devices to be seen free.
        forced: bool,
        /// The generation that the caller read; `None`: whatever it is.
        expected: Option<Seq>,
    },
    /// A node was read again and is as the ledger has it: its devices may be given, and what waits for them may end.
    Agree {
        /// Which node, from its certificate.
        node: NodeName,
        /// In which session.
        session: SessionId,
        /// The row that the agent had heard of before that reading began; `None`: none in this session.
        read_after: Option<Seq>,
    },
    /// Check a licence out.
    CheckOutSeat(CheckOutSeat),
    /// Let a seat end later, or sooner.
    RenewSeat {
        /// Which.
        seat: SeatId,
        /// From now, milliseconds.
        ttl_ms: u32,
    },
    /// Give a licence back.
    ReleaseSeat(SeatId),
    /// An agent connects.
    OpenSession {
        /// Which node, from its certificate.
        node: NodeName,
        /// Region if nobody declared the node.
        default_region: Region,
        /// Boot of the node.
        boot_id: String,
        /// Version of the agent.
        agent_version: String,
    },
    /// An agent reports.
    Report(NodeReport),
    /// A node is no longer heard.
    MarkSilent {
        /// Which node.
        node: NodeName,
        /// In which session; a newer one makes this void.
        session: SessionId,
        /// Why.
        reason: SilenceReason,
    },
    /// Forget a node and all its devices.
    RetireNode {
        /// Which node.
        node: NodeName,
        /// Also while it is heard, and while its devices are leased.
        forced: bool,
    },
    /// Take a GPU, with its instances, away from its node, so that another may report it.
    ForgetGpu {
        /// UUID of the GPU.
        gpu: GpuUuid,
        /// Also while its node is heard, and while it is leased.
        forced: bool,
    },
    /// A silent node is heard again.
    MarkHeard {
        /// Which node.
        node: NodeName,
        /// In which session.
        session: SessionId,
    },
    /// Say what agents do about what is over a quota; `None`: its tenant says.
    SetQuotaEnforcement(QuotaId, Option<Enforcement>),
    /// An agent is about to take steps above a warning.
    BeginSteps(BeginSteps),
    /// An agent says what came of a step.
    EndStep(EndStep),
    /// Let steps against a tenant through that wait for a person; from now, milliseconds. 0 ends that.
    ConfirmSteps(Option<TenantName>, u64),
    /// Refuse a token from now on.
    RevokeToken {
        /// Its `jti`.
        token: String,
        /// Its own end.
        until: Timestamp,
    },
    /// Let a node join once with the token of this digest.
    MakeJoinToken {
        /// SHA-256 of the token.
        hash: Digest,
        /// Which node its bearer becomes.
        node: NodeName,
        /// From now, milliseconds.
        ttl_ms: u32,
    },
    /// Give a node a certificate, which is in nobody's hands before this is durable.
    Certify(Certified),
    /// Refuse a node or a certificate from now on, or, with `false`, no more.
    Ban(Banned, bool),
    /// Record what is due by time alone.
    Sweep,
    /// Record that the usage of all hours before this one is stored.
    NoteUsage {
        /// The first hour that is not.
        through: Hour,
    },
    /// Record that a snapshot was written.
    NoteSnapshot {
        /// Last row in it.
        seq: Seq,
        /// SHA-256 of the file, hexadecimal.
        digest: String,
    },
    /// Record that old rows are archived and that a base stands for them.
    NoteArchive(Archive),
    /// Begin the next incarnation, this one or a later one, on a journal that was put back from a backup; where the one
    /// that was put aside ended, when it could be read.
    Restore(Incarnation, Option<Head>),
}

/// Describe a tenant, or make it known; what is `None` stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetTenant {
    /// Which.
    pub tenant: TenantName,
    /// Its number in portals; a free one is taken for a new tenant without.
    pub number: Option<TenantNumber>,
    /// Its name for people.
    pub display_name: Option<DisplayName>,
    /// Its code in portals.
    pub code: Option<Code>,
    /// All its projects.
    pub projects: Option<BTreeSet<ProjectId>>,
    /// Whether nothing new is granted to it.
    pub frozen: Option<bool>,
    /// Whether it is granted nothing elsewhere while it has dedicated nodes.
    pub confined: Option<bool>,
    /// Whether it needs leases; `Some(None)`: its region says.
    pub lease_mode: Option<Option<LeaseMode>>,
    /// What agents do about what it holds beyond its right; `Some(None)`: its region says.
    pub enforcement: Option<Option<Enforcement>>,
}

/// Take over what another system counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetCounter {
    /// Whose.
    pub project: ProjectId,
    /// At which site; `None` is the central one.
    pub site: Option<SiteId>,
    /// Of what.
    pub kind: ResourceKind,
    /// The figures; `None` forgets them.
    pub counter: Option<Counter>,
}

/// Make a licence quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateLicenceQuota {
    /// Whose.
    pub tenant: TenantNumber,
    /// Of what.
    pub product: ProductId,
    /// How many licences.
    pub max: u32,
    /// `None`: it never ends.
    pub expires_at: Option<Timestamp>,
    /// Switched on.
    pub is_active: bool,
}

/// Change a licence quota; what is `None` stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeLicenceQuota {
    /// Which.
    pub quota: LicenceQuotaId,
    /// How many licences.
    pub max: Option<u32>,
    /// The end; `Some(None)` takes it away.
    pub expires_at: Option<Option<Timestamp>>,
    /// Switched on or off.
    pub is_active: Option<bool>,
    /// The generation that the caller read; `None`: whatever it is.
    pub expected: Option<Seq>,
}

/// Check a licence out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckOutSeat {
    /// Against whose quota.
    pub tenant: TenantName,
    /// Of what.
    pub product: ProductId,
    /// Who gets it.
    pub owner: DisplayName,
    /// From now, milliseconds.
    pub ttl_ms: u32,
}

/// Promise devices to a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLease {
    /// Whose they are to be.
    pub tenant: TenantName,
    /// Where.
    pub region: Region,
    /// Which model.
    pub gpu_model: GpuModel,
    /// Charged to quotas of which type; else it follows from the model.
    pub quota_type: Option<QuotaType>,
    /// How many.
    pub count: u32,
    /// Whether devices are chosen.
    pub placement: LeasePlacement,
    /// For which project of the tenant.
    pub project: Option<ProjectId>,
    /// From now, milliseconds; `None`: it lasts until it is given back.
    pub ttl_ms: Option<u64>,
    /// On these nodes only; none: on any.
    pub nodes: BTreeSet<NodeName>,
    /// On as many nodes as possible instead of as few.
    pub spread: bool,
    /// On so many nodes at most.
    pub most_nodes: Option<u32>,
    /// Logical CPUs that go with it on each of its nodes.
    pub cpu_cores: Option<u32>,
    /// Main memory that goes with it on each of its nodes, bytes.
    pub memory_bytes: Option<u64>,
    /// The caller's own words.
    pub labels: BTreeMap<LabelName, DisplayName>,
}

impl RequestLease {
    /// So many devices, and nothing else said.
    #[must_use]
    pub fn of(
        tenant: TenantName,
        region: Region,
        gpu_model: GpuModel,
        count: u32,
        placement: LeasePlacement,
    ) -> Self {
        Self {
            tenant,
            region,
            gpu_model,
            quota_type: None,
            count,
            placement,
            project: None,
            ttl_ms: None,
            nodes: BTreeSet::new(),
            spread: false,
            most_nodes: None,
            cpu_cores: None,
            memory_bytes: None,
            labels: BTreeMap::new(),
        }
    }
}

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Which node, from its certificate.
    pub node: NodeName,
    /// In which session.
    pub session: SessionId,
    /// Scope of the number.
    pub spool: String,
    /// 1, 2, 3, … in this spool.
    pub number: u64,
    /// How long before it was heard it was observed, milliseconds; `None` when not known.
    pub age_ms: Option<u64>,
    /// When it was heard; `None`: now. What waits to be decided gets no younger by that.
    pub heard_at: Option<Timestamp>,
    /// The row that the agent had heard of before that reading began; `None`: none in this session.
    pub read_after: Option<Seq>,
    /// It replaces all that is known of the node.
    pub full: bool,
    /// What the node says of itself, when it changed.
    pub facts: Option<NodeFacts>,
    /// Devices that appeared or changed, or all of them.
    pub devices: Vec<DeviceReport>,
    /// Devices that are no more.
    pub gone: Vec<DeviceKey>,
}
