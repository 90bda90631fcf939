//! The body of a journal row: events with who asked for them.

use serde::{Deserialize, Serialize};

use crate::command::Answer;
use crate::event::Event;

/// The body of one journal row: everything that one command did, with who asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Who asked: `admin:SUBJECT`, `node:NAME`, `server`.
    pub actor: String,
    /// Request id of the call, for the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Address that the call came from, for the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Why, in the caller's words, for the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
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
