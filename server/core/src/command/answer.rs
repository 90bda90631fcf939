//! What the ledger answers to a command.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::explain::Denied;
use crate::id::{LicenceQuotaId, QuotaId, SessionId};
use crate::lease::Lease;
use crate::licence::Seat;

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
    /// The licence quota is so.
    LicenceQuota(LicenceQuotaId),
    /// The seat is so.
    Seat(Seat),
    /// The lease is so.
    Lease(Arc<Lease>),
    /// The session's number.
    Session(SessionId),
    /// The highest report number of that spool in the journal.
    Reported(u64),
    /// Which steps of an intent an agent may take.
    Steps(StepsAllowed),
    /// The highest number of an outcome of that boot in the journal.
    Taken(u64),
}

/// Which steps of an intent an agent may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepsAllowed {
    /// Their places in the intent, ascending.
    pub allowed: Vec<u32>,
    /// Why not the others, for a person; empty when all are allowed.
    pub refused: String,
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
