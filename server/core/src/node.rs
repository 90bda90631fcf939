//! Nodes: GPU hosts, what they said of themselves, and whether they are heard.

use imbl::OrdSet;
use serde::{Deserialize, Serialize};

use crate::device::DeviceKey;
use crate::id::{GroupName, Region, SessionId, Timestamp};
use crate::pool::Inventory;

/// Devices of one node at most, whatever it reports: no agent fills the ledger.
pub const MOST_DEVICES: usize = 2048;

/// Spools of one node that are remembered besides its last two. An agent sends again what was never acknowledged to it,
/// of all the boots since; whoever comes back with one from before those only shows for a moment what was so then, in a
/// session that has not settled.
pub const MOST_OLDER_SPOOLS: usize = 16;

/// Whether a node is heard. While it is not, what it holds stays charged and is shown as unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Declared, never heard.
    Expected,
    /// A session is open.
    Up,
    /// It said goodbye, or nothing for too long.
    Silent,
}

impl NodeState {
    /// All states, for metrics that must show zeros too.
    pub const ALL: [Self; 3] = [Self::Expected, Self::Up, Self::Silent];

    /// The word of metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expected => "expected",
            Self::Up => "up",
            Self::Silent => "silent",
        }
    }
}

/// What a node says of itself besides its devices. Unknown is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFacts {
    /// Logical CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<u32>,
    /// Main memory, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// NVIDIA driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// Whether NVML answers: `ok`, `absent`, `driver_not_loaded`, `mismatch`, `unresponsive`, `quiesced` (the agent leaves
    /// the driver alone on request), `broken`.
    pub nvml: String,
    /// One line for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub nvml_detail: String,
}

/// Where a spool's report numbers stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolMark {
    /// The spool's id.
    pub spool: String,
    /// Last number that is in the journal.
    pub number: u64,
}

/// A GPU host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Where it stands; the operator says so, never the node.
    pub region: Region,
    /// Whether it is heard.
    pub state: NodeState,
    /// Its newest session; grows by one with each.
    pub session: SessionId,
    /// The server that hears that session; `None`: opened before servers wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The spool it reports from.
    pub spool: Option<SpoolMark>,
    /// The spool before, whose late repetitions must not count again.
    pub previous_spool: Option<SpoolMark>,
    /// Those before that one, the newest first, [`MOST_OLDER_SPOOLS`] at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub older_spools: Vec<SpoolMark>,
    /// Since its session began, or it was heard again, it said who is on its devices. Until then what is known of them
    /// may be over: it stays charged, and nothing of the node is given away.
    #[serde(default)]
    pub settled: bool,
    /// What it said of itself.
    pub facts: NodeFacts,
    /// When it observed what it last reported.
    pub observed_at: Option<Timestamp>,
    /// Its devices.
    pub devices: OrdSet<DeviceKey>,
    /// Resource groups that the operator named; while there are none, its GPU products stand for them.
    pub declared_groups: OrdSet<GroupName>,
    /// What the operator says is in it.
    pub inventory: Option<Inventory>,
}

impl Node {
    /// A node that was declared or is seen for the first time.
    #[must_use]
    pub fn new(region: Region) -> Self {
        Self {
            region,
            state: NodeState::Expected,
            session: SessionId(0),
            owner: None,
            spool: None,
            previous_spool: None,
            older_spools: Vec::new(),
            settled: false,
            facts: NodeFacts::default(),
            observed_at: None,
            devices: OrdSet::new(),
            declared_groups: OrdSet::new(),
            inventory: None,
        }
    }

    /// Whether what is known of its devices is what is so now.
    #[must_use]
    pub fn told(&self) -> bool {
        self.state == NodeState::Up && self.settled
    }

    /// Last number of a spool that is in the journal, `None` for one that is not remembered.
    #[must_use]
    pub fn journalled(&self, spool: &str) -> Option<u64> {
        let marks = self.spool.iter().chain(&self.previous_spool);
        let mut marks = marks.chain(&self.older_spools);
        let mark = marks.find(|mark| mark.spool == spool);
        mark.map(|mark| mark.number)
    }

    /// A report with this number of this spool was taken.
    pub(crate) fn mark_spool(&mut self, mark: SpoolMark) {
        let same = |old: &SpoolMark| old.spool == mark.spool;
        if self.spool.as_ref().is_some_and(|old| !same(old)) {
            if let Some(before) = self.previous_spool.take() {
                self.older_spools.insert(0, before);
            }
            self.previous_spool = self.spool.take();
            self.older_spools.retain(|old| !same(old));
            self.older_spools.truncate(MOST_OLDER_SPOOLS);
        }
        self.spool = Some(mark);
    }

    /// Logical CPUs: as its agent says, else as the operator declared; `None` is unknown.
    #[must_use]
    pub fn cpu_cores(&self) -> Option<u32> {
        let declared = self.inventory.as_ref();
        let declared = declared.and_then(|inventory| inventory.cpu_cores);
        self.facts.cpu_cores.or(declared)
    }

    /// Main memory, bytes: as its agent says, else as the operator declared; `None` is unknown.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        let declared = self.inventory.as_ref();
        let declared = declared.and_then(|inventory| inventory.memory_bytes);
        self.facts.memory_bytes.or(declared)
    }
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
