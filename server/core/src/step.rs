//! Steps above a warning that agents take, and what came of them.

use serde::{Deserialize, Serialize};

use crate::device::DeviceKey;
use crate::enforcement::{Mode, SaidBy};
use crate::id::{NodeName, QuotaId, Seq, TenantName, Timestamp};
use crate::usage::ViolationClass;

/// Steps that the state keeps; the journal has all.
pub const MOST_STEPS: usize = 4096;
/// Of them, those of one node that needed no leave.
pub const MOST_TOLD: usize = 256;
/// Steps in one intent at most.
pub const MOST_IN_INTENT: usize = 256;
/// Boots of a node whose outcomes are told apart.
pub const MOST_BOOTS: usize = 4;

/// Our number of a step.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct StepId(pub u64);

/// How high a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// People are told.
    Warn,
    /// New opens of the device are denied.
    Restrict,
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
    /// A whole scope that the agent made is killed.
    KillScope,
    /// A restriction is taken away.
    Lift,
}

impl Rung {
    /// The word of the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Restrict => "restrict",
            Self::Term => "term",
            Self::Kill => "kill",
            Self::KillScope => "kill_scope",
            Self::Lift => "lift",
        }
    }

    /// What a ladder must allow for it to be asked for; `None`: nobody asks.
    #[must_use]
    pub fn needs(self) -> Option<Mode> {
        match self {
            Self::Warn | Self::Lift => None,
            Self::Restrict => Some(Mode::Restrict),
            Self::Term | Self::Kill | Self::KillScope => Some(Mode::Evict),
        }
    }

    /// Whether it ends processes.
    #[must_use]
    pub fn ends(self) -> bool {
        self.needs() == Some(Mode::Evict)
    }
}

/// What a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepClass {
    /// As [`ViolationClass::Squatter`].
    Squatter,
    /// As [`ViolationClass::Foreign`].
    Foreign,
    /// As [`ViolationClass::OverQuota`].
    OverQuota,
    /// As [`ViolationClass::OverNodeLimit`].
    OverNodeLimit,
    /// Processes of nobody that the agent's rules know.
    Unattributed,
    /// Leased, and nothing runs.
    Ghost,
}

impl StepClass {
    /// The word of the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Squatter => "squatter",
            Self::Foreign => "foreign",
            Self::OverQuota => "over_quota",
            Self::OverNodeLimit => "over_node_limit",
            Self::Unattributed => "unattributed",
            Self::Ghost => "ghost",
        }
    }
}

impl From<ViolationClass> for StepClass {
    fn from(class: ViolationClass) -> Self {
        match class {
            ViolationClass::Squatter => Self::Squatter,
            ViolationClass::Foreign => Self::Foreign,
            ViolationClass::OverQuota => Self::OverQuota,
            ViolationClass::OverNodeLimit => Self::OverNodeLimit,
        }
    }
}

/// One thing that an agent is about to do, or did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// How high.
    pub rung: Rung,
    /// To whom; `None`: to nobody that the rules know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantName>,
    /// On which device.
    pub device: DeviceKey,
    /// Why.
    pub class: StepClass,
    /// The process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its start, field 22 of `/proc/PID/stat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<u64>,
    /// The control group that is restricted, or that the process is in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
}

/// A step that was allowed, and by whose word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begun {
    /// What.
    pub step: Step,
    /// The quota that the device counts against; `None`: none, or it is nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaId>,
    /// Who says how far to go.
    pub said_by: SaidBy,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepResult {
    /// It was done.
    Done,
    /// Two readings in a row do not show it any more.
    Verified,
    /// It had ended, or left the device, before.
    Gone,
    /// The privileged half does not do this.
    Refused,
    /// It was tried and failed.
    Failed,
    /// The node cannot do it.
    Impossible,
}

impl StepResult {
    /// The word of the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Verified => "verified",
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Impossible => "impossible",
        }
    }
}

/// What an agent says came of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// What.
    pub result: StepResult,
    /// One line for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// When.
    pub at: Timestamp,
    /// Further outcomes of this kind that the agent left out.
    #[serde(default, skip_serializing_if = "is_none")]
    pub beside: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's shape")]
fn is_none(count: &u32) -> bool {
    *count == 0
}

/// A step as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRow {
    /// Our number.
    pub id: StepId,
    /// On which node.
    pub node: NodeName,
    /// What.
    pub step: Step,
    /// The quota that the device counted against.
    pub quota: Option<QuotaId>,
    /// Who said how far to go; `None`: it needed no leave.
    pub said_by: Option<SaidBy>,
    /// The policy that the agent acted by.
    pub version: Seq,
    /// The journal's row that allowed it, or that told of it where it needed no leave.
    pub row: Seq,
    /// When that was.
    pub at: Timestamp,
    /// What came of it; `None`: not yet known.
    pub ended: Option<Ended>,
}

/// Steps against a tenant wait for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Since when.
    pub since: Timestamp,
    /// Processes that would have been ended in one minute.
    pub processes: u64,
    /// Devices that would have been acted upon in one minute.
    pub devices: u64,
    /// Devices that the tenant held then.
    pub of: u64,
}

/// An agent may take these steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepsBegun {
    /// Which node.
    pub node: NodeName,
    /// The policy that it acts by.
    pub version: Seq,
    /// What, and by whose word.
    pub steps: Vec<Begun>,
}

/// Steps against a tenant, or against processes of nobody, wait for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepsHeld {
    /// Whose; `None`: of nobody that the agents' rules know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantName>,
    /// The node that asked last.
    pub node: NodeName,
    /// Processes that would have been ended in one minute.
    pub processes: u64,
    /// Devices that would have been acted upon in one minute.
    pub devices: u64,
    /// Devices that the tenant held, or nobody's processes.
    pub of: u64,
}

/// What came of a step, or that people were warned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepEnded {
    /// Which node.
    pub node: NodeName,
    /// Boot of the node.
    pub boot: String,
    /// Number in that boot.
    pub number: u64,
    /// The policy that it was done by.
    pub version: Seq,
    /// Which step.
    pub step: Step,
    /// What came of it.
    pub ended: Ended,
}

/// A person lets steps against a tenant, or against processes of nobody, through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepsConfirmed {
    /// Whose; `None`: of nobody that the agents' rules know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantName>,
    /// Until then.
    pub until: Timestamp,
}
