//! How the ledger decides where the operator may choose. Part of the journal, so that every replica and every later
//! fold decides the same.

use serde::{Deserialize, Serialize};

use crate::enforcement::Enforcing;
use crate::quota::QuotaSource;

/// Whether what runs within a quota is fine without a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseMode {
    /// It is.
    Optional,
    /// What runs without a lease is a squatter.
    Required,
}

impl LeaseMode {
    /// The word of the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

impl std::str::FromStr for LeaseMode {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "optional" => Ok(Self::Optional),
            "required" => Ok(Self::Required),
            _ => Err(()),
        }
    }
}

/// What the operator chose for the whole ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Quotas of this source are filled before those of the other.
    pub consume_first: QuotaSource,
    /// Whether leases are needed where neither region nor tenant says.
    pub lease_mode: LeaseMode,
    /// How long a lease that is to end waits for its devices to be seen free, milliseconds, 1 or more. The time of a node
    /// that is not heard does not count.
    pub confirm_within_ms: u64,
    /// How long a leased device may stand idle before it is called a ghost, milliseconds.
    pub ghost_after_ms: u64,
    /// How long those who are over a quota that was lowered, ended or released have to leave, milliseconds.
    pub drain_notice_ms: u64,
    /// What agents do about what the ledger does not justify.
    #[serde(default, skip_serializing_if = "Enforcing::is_usual")]
    pub enforcing: Enforcing,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            consume_first: QuotaSource::Purchase,
            lease_mode: LeaseMode::Optional,
            confirm_within_ms: 10 * 60 * 1000,
            ghost_after_ms: 60 * 60 * 1000,
            drain_notice_ms: 24 * 60 * 60 * 1000,
            enforcing: Enforcing::default(),
        }
    }
}
