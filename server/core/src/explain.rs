//! Denials: an explanation, not a string.

use serde::{Deserialize, Serialize};

use crate::device::DeviceKey;
use crate::id::{NodeName, QuotaId, Reference, TenantName};
use crate::quota::QuotaKey;

/// Why a command was not granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
pub enum Denied {
    /// A limit may not be set below what is in use.
    #[error(
        "{asked} is {excess} below what is in use: {used} of the quota's {limit} are held now; \
         end {excess} of them first, or set num to 0 to force the release"
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
    },
    /// A quota in use is not released without force.
    #[error("{used} devices are in use under this quota; end them first, or force the release")]
    InUse {
        /// Which quota.
        quota: QuotaId,
        /// Devices held under it now.
        used: u64,
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
    },
    /// A dedicated quota names its nodes.
    #[error("a dedicated quota needs node_name, a list of at least one node")]
    DedicatedWithoutNodes,
    /// Only dedicated quotas name nodes.
    #[error("node_name belongs to dedicated quotas; leave it out or set quota_type to dedicated")]
    NodesWithoutDedicated,
    /// There is no such quota.
    #[error("there is no such quota")]
    NoSuchQuota,
    /// The operation id was used for another request.
    #[error("this idempotency key was used for another request within 24 hours")]
    OperationReused,
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
