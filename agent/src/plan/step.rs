//! What can be done about a holder that the ledger does not justify, and what came of it.

use crate::policy::{Class, Mode, Whom};

/// Rungs of the ladder, and the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// People are told.
    Warn,
    /// New opens are denied.
    Restrict,
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
    /// New opens are denied no more.
    Lift,
}

impl Rung {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Warn,
        Self::Restrict,
        Self::Term,
        Self::Kill,
        Self::Lift,
    ];

    /// The word of metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Restrict => "restrict",
            Self::Term => "term",
            Self::Kill => "kill",
            Self::Lift => "lift",
        }
    }
}

impl Rung {
    /// How far a ladder must go for it.
    #[must_use]
    pub fn needs(self) -> Mode {
        match self {
            Self::Lift => Mode::Observe,
            Self::Warn => Mode::Warn,
            Self::Restrict => Mode::Restrict,
            Self::Term | Self::Kill => Mode::Evict,
        }
    }
}

/// A process by what tells it from whoever has its number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    /// Host process id.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`, clock ticks since boot.
    pub start_time: u64,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub rung: Rung,
    /// About whom, on what.
    pub whom: Whom,
    /// Why.
    pub class: Class,
    /// Whom a signal is for.
    pub process: Option<Process>,
    /// Control group that is restricted, or that the process is in; empty for a warning.
    pub group: String,
    /// Device nodes that it is about.
    pub nodes: Vec<String>,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It is done; a restriction was also seen to hold.
    Done,
    /// Two readings in a row do not show it any more.
    Verified,
    /// It had ended, or left the device, before.
    Gone,
    /// The privileged half does not do this.
    Refused,
    /// It was tried and did not work.
    Failed,
    /// This node cannot do it.
    Impossible,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Done,
        Self::Verified,
        Self::Gone,
        Self::Refused,
        Self::Failed,
        Self::Impossible,
    ];

    /// The word of metric labels.
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

/// What is to be told of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Which.
    pub step: Step,
    /// How it ended.
    pub outcome: Outcome,
    /// One line for a person.
    pub detail: String,
}
