//! `gpuquota-agent exec`: a command that starts under a lease, with its GPUs and no others.
//!
//! The process that asks is the one that becomes the command. It asks the agent of its node over a Unix socket; the agent says by
//! its rules of attribution for which tenant (or a token does), leases the GPUs, waits until the policy that it acts by knows the lease, lets the
//! privileged half put the process into a control group where all other GPUs are denied, and says go. From then on the group is
//! what counts: the agent renews the lease while somebody lives there and gives it back when nobody does, over restarts of its own.

pub mod book;
pub mod client;
pub mod config;
pub mod desk;
pub mod devices;
pub mod door;
pub mod figures;
pub mod keeper;
pub mod lessor;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Longest line either way, bytes.
pub const LONGEST_LINE: u64 = 64 * 1024;

/// What a process that wants to start a command asks for; who it is the kernel says.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// For whom; absent: for whom the rules say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// How many devices.
    pub gpus: u32,
    /// Which model; absent: the only one of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Logical CPUs that go with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<u32>,
    /// Main memory that goes with them, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// A token of the server's REST interface that says for which tenants; never kept and never logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ask")
            .field("tenant", &self.tenant)
            .field("gpus", &self.gpus)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Answer {
    /// The command may start.
    Go {
        /// The lease.
        lease: u64,
        /// Whose it is.
        tenant: String,
        /// What the command's environment must say.
        environment: BTreeMap<String, String>,
    },
    /// The ledger says no; later it may say yes.
    Denied {
        /// Why, with what to do.
        why: String,
    },
    /// This caller may not ask for that.
    Refused {
        /// Why, with what to do.
        why: String,
    },
    /// Too many ask at the moment; soon there is room again.
    Busy {
        /// Who.
        why: String,
    },
    /// Nobody can say now: the server, the privileged half or the driver does not answer.
    Away {
        /// Who, with what to do.
        why: String,
    },
}

#[cfg(test)]
mod tests;
