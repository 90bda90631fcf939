//! What the network half asks of the privileged half, and what it answers: one line of JSON each way over a Unix socket.
//!
//! The network half decides nothing here: each order is checked again by who obeys it, against the kernel and against what
//! it may not touch.

use serde::{Deserialize, Serialize};

/// Longest order, bytes.
pub const LONGEST_LINE: u64 = 64 * 1024;

/// Longest answer, bytes: that to `Restrictions` has all groups.
pub const LONGEST_ANSWER: u64 = 1 << 20;

/// A process as the decision saw it; its pid alone names nobody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Process id in the host's namespace.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`, clock ticks since boot.
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

/// How a process is told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// What this node can do at all.
    Can,
    /// Signals one process that has a GPU's node open.
    Signal {
        /// Whom.
        who: Identity,
        /// How.
        signal: Signal,
        /// Control group that it was in, as `/proc/PID/cgroup` writes it; in another one it is not signalled.
        group: String,
        /// Device nodes of which it must have one open; one at least is named.
        nodes: Vec<String>,
        /// Of the policy that it is done by, for the log.
        version: u64,
    },
    /// Denies opens of these device nodes to all that runs in a control group and below, besides what denies more already.
    Restrict {
        /// The group, as `/proc/PID/cgroup` writes it.
        group: String,
        /// Device nodes, e.g. `/dev/nvidia0` and MIG's `/dev/nvidia-caps/nvidia-cap12`; the whole set that is denied from now on.
        nodes: Vec<String>,
        /// Of the policy that it is done by, for the log.
        version: u64,
    },
    /// Takes away what `Restrict` did to a group.
    Lift {
        /// Which.
        group: String,
    },
    /// What is restricted now, as the kernel says it.
    Restrictions,
    /// Puts a process of this program, which waits to become a tenant's command, where all GPUs' nodes but these are denied.
    Enclose {
        /// Whom.
        who: Identity,
        /// The lease that it runs under.
        lease: u64,
        /// Device nodes of the lease.
        allow: Vec<String>,
        /// Of the policy that it is done by, for the log.
        version: u64,
    },
    /// Kills all that is in a scope that this program made.
    KillScope {
        /// Name of the unit.
        scope: String,
        /// Of the policy that it is done by, for the log.
        version: u64,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Reply {
    /// It is done; a restriction was also seen to hold: by query, and by an open that was denied.
    Done,
    /// Nothing was there to be done to: it ended, its number is another's by now, or it let go of the GPU.
    Gone {
        /// One line.
        detail: String,
    },
    /// It is not done, for what was asked is not allowed.
    Refused {
        /// One line for a person.
        detail: String,
    },
    /// It was tried and did not work.
    Failed {
        /// One line for a person.
        detail: String,
    },
    /// This node cannot do it.
    Impossible {
        /// One line for a person: why, and what to do.
        detail: String,
    },
    /// The answer to `Can`.
    Able {
        /// Signals by pidfd.
        signal: bool,
        /// Programs on control groups.
        restrict: bool,
        /// Scopes of the system manager, with programs on them.
        #[serde(default)]
        enclose: bool,
        /// Why not, a line each.
        lacking: Vec<String>,
    },
    /// It is enclosed.
    Enclosed {
        /// The control group, as `/proc/PID/cgroup` writes it.
        group: String,
    },
    /// The answer to `Restrictions`.
    Restricted {
        /// Each group and the nodes that it is denied.
        groups: Vec<Restriction>,
    },
}

/// A group and what it is denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restriction {
    /// The group, as `/proc/PID/cgroup` writes it.
    pub group: String,
    /// Device nodes; one that is no more is absent.
    pub nodes: Vec<String>,
}
