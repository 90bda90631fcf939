//! What can be asked of the ledger, and what it answers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::device::{DeviceKey, DeviceReport};
use crate::event::{Event, SilenceReason};
use crate::explain::Denied;
use crate::id::{
    GpuModel, NodeName, QuotaId, Reference, Region, Seq, SessionId, TenantName, Timestamp,
};
use crate::limit::Limit;
use crate::node::NodeFacts;
use crate::quota::{QuotaSource, QuotaType};

/// Everything that can be asked to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make or replace a quota.
    SetQuota(SetQuota),
    /// Take a quota away.
    ReleaseQuota(ReleaseQuota),
    /// Say where a node stands.
    DeclareNode {
        /// Which node.
        node: NodeName,
        /// Where it stands.
        region: Region,
    },
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
    /// A silent node is heard again.
    MarkHeard {
        /// Which node.
        node: NodeName,
        /// In which session.
        session: SessionId,
    },
    /// Refuse a token from now on.
    RevokeToken {
        /// Its `jti`.
        token: String,
        /// Its own end.
        until: Timestamp,
    },
    /// Record what is due by time alone.
    Sweep,
    /// Record that a snapshot was written.
    NoteSnapshot {
        /// Last row in it.
        seq: Seq,
        /// SHA-256 of the file, hexadecimal.
        digest: String,
    },
}

/// How a caller names a quota (dialects D1.2, D1.3, D1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaName {
    /// Whose.
    pub tenant: TenantName,
    /// Where.
    pub region: Region,
    /// From where.
    pub source: QuotaSource,
    /// Which model.
    pub gpu_model: GpuModel,
    /// Type, if the caller says it; else it follows from `reference` or the model.
    pub quota_type: Option<QuotaType>,
    /// The caller's own number.
    pub reference: Option<Reference>,
}

/// Make or replace a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetQuota {
    /// Which.
    pub name: QuotaName,
    /// The new total, not a difference.
    pub limit: Limit,
    /// `None`: it never ends.
    pub expires_at: Option<Timestamp>,
    /// Nodes that serve this tenant alone; makes the quota dedicated.
    pub nodes: Option<BTreeSet<NodeName>>,
}

/// Take a quota away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseQuota {
    /// Which.
    pub name: QuotaName,
    /// Also while something is in use.
    pub forced: bool,
    /// Whether there being none is an error.
    pub must_exist: bool,
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
    /// How long ago it was observed, milliseconds; `None` when not known.
    pub age_ms: Option<u64>,
    /// It replaces all that is known of the node.
    pub full: bool,
    /// What the node says of itself, when it changed.
    pub facts: Option<NodeFacts>,
    /// Devices that appeared or changed, or all of them.
    pub devices: Vec<DeviceReport>,
    /// Devices that are no more.
    pub gone: Vec<DeviceKey>,
}

/// A decision in favour: what will have happened once it is in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Possibly none: what was asked is so already.
    pub events: Vec<Event>,
    /// The answer.
    pub outcome: Outcome,
}

/// Answer to a command that was granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is so.
    Done,
    /// The quota is so.
    Quota(QuotaId),
    /// The session's number.
    Session(SessionId),
    /// The highest report number of that spool in the journal.
    Reported(u64),
}

/// What a command was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Granted.
    Granted(Outcome),
    /// Not granted.
    Denied(Denied),
}
