//! What can happen. An event's shape is never edited, only added to: old journals must fold for ever.
//!
//! What this program does not know it refuses to read, fields too: a row that a newer one wrote must not be folded into
//! half of what it says.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::command::Answer;
use crate::device::{DeviceKey, DeviceReport};
use crate::id::{NodeName, QuotaId, Reference, Region, Seq, SessionId, TenantName, Timestamp};
use crate::limit::Limit;
use crate::node::NodeFacts;
use crate::quota::QuotaKey;

/// The body of one journal row: everything that one command did, with who asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Who asked: `admin:SUBJECT`, `node:NAME`, `server`.
    pub actor: String,
    /// Request id of the call, for the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// For a call with an operation id: what was asked and answered, so that it can be replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
    /// What happened, in order. Empty for a denial that is kept for its replay.
    pub events: Vec<Event>,
}

/// An answer kept for repetitions of its operation id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// Digest of method, path and body: another request under the same id is refused.
    pub fingerprint: String,
    /// What was answered.
    pub answer: Answer,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A tenant is known from now on.
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
    /// The operator said where a node stands.
    NodeDeclared {
        /// Which.
        node: NodeName,
        /// Where.
        region: Region,
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
    },
    /// A node is no longer heard.
    NodeSilent {
        /// Which.
        node: NodeName,
        /// Why.
        reason: SilenceReason,
    },
    /// A silent node is heard again in the same session.
    NodeHeard {
        /// Which.
        node: NodeName,
    },
    /// A token is refused from now on.
    TokenRevoked {
        /// The token's `jti`.
        token: String,
        /// Its own end; after that the row is of no use.
        until: Timestamp,
    },
    /// A snapshot of the state was written.
    SnapshotTaken {
        /// Last row that it holds.
        seq: Seq,
        /// SHA-256 of the file, hexadecimal.
        digest: String,
    },
}

/// Why a node is no longer heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SilenceReason {
    /// Its agent said goodbye.
    Stopped,
    /// Nothing was heard for too long.
    Timeout,
}
