//! A history as plain data: what callers asked and were told, which rows became durable, what was read. One JSON object
//! a line when it is written down.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that happened, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// When, milliseconds since the history began.
    pub(crate) t: i64,
    /// What.
    #[serde(flatten)]
    pub(crate) what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(crate) enum What {
    /// A caller asks. A repetition is a call of its own under the same operation id.
    Invoke(Invoke),
    /// What the caller was told.
    Answer {
        /// Which call.
        call: u64,
        /// What it was told.
        reply: Reply,
    },
    /// A journal row became durable.
    Row(RowEntry),
    /// A caller saw a state.
    Read {
        /// Which process showed it; a restarted server is another one.
        process: String,
        /// Last row in it.
        seq: u64,
        /// Hash of that row, hexadecimal, where the reader saw it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        head: Option<String>,
        /// Digest of the whole state, where the reader took one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<String>,
        /// Epochs of all leases that have not ended, by number, where the reader asked for them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leases: Option<BTreeMap<u64, u64>>,
    },
    /// What a node truly has, once all it said was acknowledged: tenants by device.
    Truth {
        /// Which node.
        node: String,
        /// Its devices.
        devices: BTreeMap<String, Vec<String>>,
    },
    /// Something that must never happen was seen while it happened.
    Alarm {
        /// What.
        text: String,
    },
    /// For people: a fault, a start, an end.
    Note {
        /// What.
        text: String,
    },
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Invoke {
    /// Number of the call.
    pub(crate) call: u64,
    /// Who asks.
    pub(crate) caller: String,
    /// Which server it asks.
    pub(crate) server: String,
    /// Request id, as the journal has it too: of this call alone, not of its repetitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<String>,
    /// Operation id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) op: Option<String>,
    /// Digest of what it asks; with one, the answer is kept for repetitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<String>,
    /// What it asks, for people.
    pub(crate) command: String,
}

/// What a caller was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// Granted or denied: the answer's bytes, and for a grant the row at which it may be read.
    Decided {
        /// The core's `Answer` as JSON, or the body of an HTTP response.
        answer: String,
        /// The row.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seq: Option<u64>,
        /// What the body of an HTTP response says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        told: Option<Told>,
    },
    /// The server could not decide, and nothing was done.
    Refused {
        /// Why.
        reason: String,
    },
    /// Nothing came back: it was done or it was not.
    Lost,
}

/// An HTTP response, as far as it is compared with rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    /// A lease.
    Lease {
        /// Its number.
        lease: u64,
        /// Its fencing epoch.
        epoch: u64,
        /// Its devices, in order.
        devices: Vec<String>,
    },
    /// A no of the ledger.
    Denied,
}

/// A journal row, as the database has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RowEntry {
    /// Its place.
    pub(crate) seq: u64,
    /// Wall time in it, milliseconds since 1970.
    pub(crate) at: i64,
    /// Which process decided it.
    pub(crate) writer: String,
    /// Operation id as the journal has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) op: Option<String>,
    /// The record as JSON.
    pub(crate) body: String,
    /// Its hash, hexadecimal.
    pub(crate) hash: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Plain data with text keys: it cannot fail.
        f.write_str(&serde_json::to_string(self).unwrap_or_default())
    }
}
