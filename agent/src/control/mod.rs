//! The agent's own socket: `quiesce` makes it let go of the driver, `resume` makes it read again.
//!
//! One line of JSON each way over a Unix socket in the state directory. Only root and the agent's own user are heard; the kernel
//! says who speaks. A caller that closes its side before the answer, or waits too long for the agent to take its order up, takes the
//! order back. Where no agent runs, the order waits in the state directory for one that starts.

pub mod client;
pub mod quiet;
pub mod server;

use serde::{Deserialize, Serialize};

/// The socket in the state directory.
pub const SOCKET: &str = "control.sock";
/// Longest line, bytes.
const LONGEST_LINE: u64 = 4096;
/// How long the driver may be left alone by one order, milliseconds: a day.
const LONGEST_MS: u64 = 86_400_000;

/// What the agent is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// End all NVML workers and start none until it is over.
    Quiesce {
        /// After which time to read again by itself, milliseconds.
        for_ms: u64,
        /// Shown in reports and metrics' logs.
        reason: String,
    },
    /// Read again now.
    Resume,
}

impl Request {
    /// The request with its limits applied: at most a day, one short line of reason.
    #[must_use]
    pub fn within_limits(self) -> Self {
        match self {
            Self::Quiesce { for_ms, reason } => Self::Quiesce {
                for_ms: for_ms.min(LONGEST_MS),
                reason: reason
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(120)
                    .collect(),
            },
            Self::Resume => Self::Resume,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// It is as asked.
    pub done: bool,
    /// How long it took, milliseconds.
    #[serde(default)]
    pub took_ms: u64,
    /// Processes of the agent that still have the driver open, because it does not let go of them.
    #[serde(default)]
    pub open: Vec<u32>,
    /// Done, but not as it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// What is wrong, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Answer {
    fn refusal(error: &str) -> Self {
        Self {
            error: Some(error.to_owned()),
            ..Self::default()
        }
    }
}
