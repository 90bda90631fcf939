//! Denials: an explanation, not a string.

use serde::{Deserialize, Serialize};

use crate::ban::Barred;
use crate::device::DeviceKey;
use crate::explanation::{Change, Explanation, Rule};
use crate::id::{
    Code, GpuModel, HostResourceName, LeaseId, LicenceQuotaId, NodeName, ProjectId, QuotaId,
    Reference, ResourceKind, TenantName, TenantNumber,
};
use crate::limit::Limit;
use crate::quota::QuotaKey;

/// Why a command was not granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
pub enum Denied {
    /// A limit may not be set below what is in use.
    #[error(
        "{asked} is {excess} below what is in use: {used} of the quota's {limit} are held now; \
         end {excess} of them first, set on_excess to drain to give them the notice to leave, or force the release"
    )]
    BelowUse {
        /// Which quota.
        quota: QuotaId,
        /// The limit that was asked for.
        asked: String,
        /// The limit now.
        limit: String,
        /// Devices held under it now.
        used: u64,
        /// Devices that nothing would justify any more.
        excess: u64,
        /// What stands against it, and what would be accepted; answers that earlier versions kept do not have it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        because: Option<Box<Explanation>>,
    },
    /// A quota in use is not released without force.
    #[error("{used} devices are in use under this quota; end them first, or force the release")]
    InUse {
        /// Which quota.
        quota: QuotaId,
        /// Devices held under it now.
        used: u64,
        /// What stands against it, and what would be accepted; answers that earlier versions kept do not have it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        because: Option<Box<Explanation>>,
    },
    /// The caller's id names another quota of this tenant.
    #[error(
        "id {} already names the {} quota of {} from {} in {}",
        reference.0, key.quota_type, key.gpu_model, key.source.as_str(), key.region
    )]
    ReferenceTaken {
        /// The caller's id.
        reference: Reference,
        /// What it names.
        key: QuotaKey,
    },
    /// The node serves another tenant alone.
    #[error("node {node} is dedicated to another tenant")]
    NodeBound {
        /// Which node.
        node: NodeName,
        /// Whose it is; for administrators only.
        tenant: TenantName,
        /// What stands against it, and what would be accepted; answers that earlier versions kept do not have it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        because: Option<Box<Explanation>>,
    },
    /// Others have leases on nodes that were to serve one tenant alone.
    #[error("{}", because.text)]
    LeasedByOthers {
        /// Which, and whose.
        because: Box<Explanation>,
    },
    /// A dedicated quota names its nodes.
    #[error("a dedicated quota needs node_name, a list of at least one node")]
    DedicatedWithoutNodes,
    /// Only dedicated quotas name nodes.
    #[error("node_name belongs to dedicated quotas; leave it out or set quota_type to dedicated")]
    NodesWithoutDedicated,
    /// The number names another tenant.
    #[error("number {} belongs to tenant {tenant}", number.0)]
    NumberTaken {
        /// The number.
        number: TenantNumber,
        /// Whose it is.
        tenant: TenantName,
    },
    /// The code names something else.
    #[error("code {code} is taken by {holder}")]
    CodeTaken {
        /// The code.
        code: Code,
        /// What has it.
        holder: String,
    },
    /// The project belongs to another tenant, or has another tenant's name.
    #[error("project {project} belongs to tenant {tenant}")]
    ProjectTaken {
        /// The project.
        project: ProjectId,
        /// Whose it is.
        tenant: TenantName,
    },
    /// Two entries of the model catalogue claim the same.
    #[error("{what} of {gpu_model} stands in the catalogue's entry {other} already")]
    ModelClash {
        /// The entry that was to be put in.
        gpu_model: GpuModel,
        /// What both claim.
        what: String,
        /// The entry that has it.
        other: GpuModel,
    },
    /// More than fits.
    #[error("{what}: at most {most}")]
    TooMany {
        /// Of what.
        what: String,
        /// How many there may be.
        most: usize,
    },
    /// Something that the command refers to is not there.
    #[error("there is no {what} {name}")]
    Unknown {
        /// What kind of thing.
        what: String,
        /// Which.
        name: String,
    },
    /// The ledger counts this itself.
    #[error("{kind} is counted by gpuquota itself; {allowed}")]
    CountedHere {
        /// Which resource.
        kind: ResourceKind,
        /// What can be said of it.
        allowed: String,
    },
    /// More hosts of a kind than the tenant may have.
    #[error(
        "{asked} hosts of {resource} would be bound to the tenant, and its limit is {limit}; raise the limit or name fewer nodes"
    )]
    HostLimit {
        /// Which kind.
        resource: HostResourceName,
        /// How many may be.
        limit: String,
        /// How many would be.
        asked: u64,
        /// What stands against it, and what would be accepted; answers that earlier versions kept do not have it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        because: Option<Box<Explanation>>,
    },
    /// Something still refers to it.
    #[error("{what} {name} is in use by {used}; end that first")]
    ReferredTo {
        /// What kind of thing.
        what: String,
        /// Which.
        name: String,
        /// By what.
        used: String,
    },
    /// A licence quota may not be set below what is in use.
    #[error("{asked} is below the {used} licences in use; end {} of them first", used - u64::from(*asked))]
    LicencesInUse {
        /// Which.
        quota: LicenceQuotaId,
        /// What was asked for.
        asked: u32,
        /// Licences in use under it.
        used: u64,
        /// What stands against it, and what would be accepted; answers that earlier versions kept do not have it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        because: Option<Box<Explanation>>,
    },
    /// All licences are in use.
    #[error("{used} of {granted} licences are in use; give one back, or raise the quota")]
    LicencesExhausted {
        /// Licences that the tenant's quotas grant now.
        granted: u64,
        /// Licences in use.
        used: u64,
        /// What stands against it, and what would be accepted; answers that earlier versions kept do not have it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        because: Option<Box<Explanation>>,
    },
    /// A tenant has as many seats as any may have.
    #[error("the tenant has {most} seats, and no tenant may have more; give one back")]
    TooManySeats {
        /// How many it may have.
        most: usize,
    },
    /// The tenant is frozen.
    #[error("tenant {tenant} is frozen; nothing new is granted to it")]
    Frozen {
        /// Which.
        tenant: TenantName,
    },
    /// A node that is heard is not retired, nor a GPU taken from it, without force.
    #[error("node {node} is heard; stop its agent first, or force it")]
    NodeHeard {
        /// Which.
        node: NodeName,
    },
    /// Leased devices are not forgotten without force.
    #[error("{} leases have devices there, the first is {}; release them first, or force it", leases.len(), leases.first().map_or(0, |lease| lease.0))]
    Leased {
        /// Which.
        leases: Vec<LeaseId>,
    },
    /// A lease was not granted, or is not kept.
    #[error("{}", because.text)]
    Lease {
        /// Why, as a tree.
        because: Box<Explanation>,
    },
    /// The lease is to end or has ended; it cannot be renewed.
    #[error("lease {} is {state} and cannot be renewed; ask for a new one", lease.0)]
    LeaseOver {
        /// Which.
        lease: LeaseId,
        /// Where it stands.
        state: String,
        /// What stands against it, and what would be accepted; answers that earlier versions kept do not have it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        because: Option<Box<Explanation>>,
    },
    /// It changed after the caller read it.
    #[error("the {what} has changed since it was read; read it again and decide anew")]
    Changed {
        /// What kind of thing.
        what: String,
    },
    /// There is no such quota.
    #[error("there is no such quota")]
    NoSuchQuota,
    /// The operation id was used for another request.
    #[error("this idempotency key was used for another request within 24 hours")]
    OperationReused,
    /// A token that nobody made, that has ended, or that another key has used.
    #[error(
        "this join token does not count (any more); make a new one with `gpuquota-server join-token`"
    )]
    JoinRefused,
    /// Who asks is no node any more.
    #[error(transparent)]
    Barred(Barred),
    /// A newer session of the node took over, or the node was never seen.
    #[error("this session of the node is not its newest")]
    StaleSession,
    /// Reports before this one are missing.
    #[error("reports between {last} and {number} are missing; a full report is needed")]
    ReportGap {
        /// Last number in the journal.
        last: u64,
        /// Number that came.
        number: u64,
    },
    /// A device of another node was claimed.
    #[error("device {device} belongs to node {owner}")]
    DeviceOfOtherNode {
        /// Which device.
        device: DeviceKey,
        /// Whose it is.
        owner: NodeName,
    },
    /// A node claims more than any node has.
    #[error(
        "with this report the node would have more than {most} devices; send a full report of those it has"
    )]
    TooManyDevices {
        /// How many it may have.
        most: usize,
    },
    /// A report contradicts itself.
    #[error("the report names {device} twice, or as changed and gone")]
    DeviceTwice {
        /// Which device.
        device: DeviceKey,
    },
}

impl Denied {
    /// Of what follows from one fact alone: that fact, as a tree of one node.
    #[must_use]
    pub fn plainly(&self) -> Option<Explanation> {
        match self {
            Self::Frozen { .. } => Some(Explanation {
                admit: Some(Change::AskOperator),
                ..Explanation::new(Rule::Frozen, self.to_string())
            }),
            Self::TooManySeats { most } => Some(Explanation {
                limit: u32::try_from(*most).ok().map(Limit::Finite),
                used: u64::try_from(*most).ok(),
                asked: Some(1),
                admit: Some(Change::GiveBack { count: 1 }),
                ..Explanation::new(Rule::TooManySeats, self.to_string())
            }),
            _ => None,
        }
    }

    /// What stands against it as a tree, where a limit or what is in use does.
    #[must_use]
    pub fn because(&self) -> Option<&Explanation> {
        match self {
            Self::Lease { because } | Self::LeasedByOthers { because } => Some(because),
            Self::BelowUse { because, .. }
            | Self::InUse { because, .. }
            | Self::NodeBound { because, .. }
            | Self::HostLimit { because, .. }
            | Self::LicencesInUse { because, .. }
            | Self::LicencesExhausted { because, .. }
            | Self::LeaseOver { because, .. } => because.as_deref(),
            Self::ReferenceTaken { .. }
            | Self::DedicatedWithoutNodes
            | Self::NodesWithoutDedicated
            | Self::NumberTaken { .. }
            | Self::CodeTaken { .. }
            | Self::ProjectTaken { .. }
            | Self::ModelClash { .. }
            | Self::TooMany { .. }
            | Self::Unknown { .. }
            | Self::CountedHere { .. }
            | Self::ReferredTo { .. }
            | Self::TooManySeats { .. }
            | Self::Frozen { .. }
            | Self::NodeHeard { .. }
            | Self::Leased { .. }
            | Self::Changed { .. }
            | Self::NoSuchQuota
            | Self::OperationReused
            | Self::JoinRefused
            | Self::Barred(_)
            | Self::StaleSession
            | Self::ReportGap { .. }
            | Self::DeviceOfOtherNode { .. }
            | Self::TooManyDevices { .. }
            | Self::DeviceTwice { .. } => None,
        }
    }
}
