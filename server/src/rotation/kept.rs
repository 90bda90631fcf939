//! The state of a rotation, as it is kept.

use gpuquota_core::id::Timestamp;
use gpuquota_proto::pinned::Pin;
use serde::{Deserialize, Serialize};

use super::phase::Phase;

pub(super) const VERSION: u32 = 1;

/// The state, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Of this form.
    pub version: u32,
    /// How far it is.
    pub phase: Phase,
    /// Of the old authority's key.
    pub old: String,
    /// Of the new one's.
    pub new: String,
    /// Within this time agents ask for a certificate of whoever signs, milliseconds.
    pub renew_within_ms: u64,
    /// What was done, the oldest first.
    pub steps: Vec<Told>,
}

/// One step that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// When, milliseconds since 1970 (UTC).
    pub at_ms: i64,
    /// What it led to.
    pub phase: Phase,
    /// The user id of whoever did it.
    pub uid: u32,
    /// Although nodes would be left behind.
    pub forced: bool,
    /// Why.
    pub reason: Option<String>,
}

impl Kept {
    /// Of a rotation that begins.
    #[must_use]
    pub fn new(old: Pin, new: Pin, renew_within_ms: u64) -> Self {
        Self {
            version: VERSION,
            phase: Phase::Prepared,
            old: old.to_string(),
            new: new.to_string(),
            renew_within_ms,
            steps: Vec::new(),
        }
    }

    /// Both keys.
    #[must_use]
    pub fn pins(&self) -> Option<(Pin, Pin)> {
        Some((self.old.parse().ok()?, self.new.parse().ok()?))
    }

    /// Notes a step.
    pub fn told(&mut self, now: Timestamp, phase: Phase, forced: bool, reason: Option<String>) {
        self.phase = phase;
        self.steps.push(Told {
            at_ms: now.0,
            phase,
            uid: rustix::process::getuid().as_raw(),
            forced,
            reason,
        });
    }
}
