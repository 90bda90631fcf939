//! Judges a history. It knows nothing of who made it: the simulator, or clients of real processes.
//!
//! - **Bank rule (V1)**: after no row is more granted than there is, and what the ledger counts is what a recount says.
//! - **Acknowledged writes survive (V2)**: what somebody was told is in the journal, from that moment on.
//! - **At most once (V3)**: one operation id has one effect and one answer, byte for byte; one call has one row at most,
//!   after it was asked, and none if its caller was told that nothing was done.
//! - **Sessions**: only the newest session of a node is heard, and each report counts once.
//! - **Steps (V5)**: an agent may act only against who holds a device without right, and only as far as was said.
//! - **One fold**: every process shows a prefix of the one journal, never goes back, and folds it to the same bytes.
//! - **Invariants**: `State::verify` holds after every row.

mod bank;
mod entry;
mod fold;
mod operations;
mod reads;
mod requests;

use std::fmt;

pub(crate) use entry::{Entry, Invoke, Reply, RowEntry, Told, What};
pub(crate) use fold::{digest, fnv};

use fold::Journal;

/// What a history must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// V1.
    Bank,
    /// V2.
    Acknowledged,
    /// V3.
    Once,
    /// Newest session only, each report once.
    Session,
    /// V5: no step but by a decision that was due.
    Step,
    /// One journal, one fold.
    Fold,
    /// What must hold of every state.
    Invariant,
    /// Seen while it happened.
    Alarm,
}

/// A rule that a history breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Which rule.
    pub(crate) rule: Rule,
    /// How.
    pub(crate) text: String,
}

impl Violation {
    pub(crate) fn new(rule: Rule, text: impl Into<String>) -> Self {
        Self {
            rule,
            text: text.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.text)
    }
}

/// All that is wrong with `history`.
pub(crate) fn check(history: &[Entry]) -> Vec<Violation> {
    let mut found = Vec::new();
    for entry in history {
        if let What::Alarm { text } = &entry.what {
            found.push(Violation::new(Rule::Alarm, text.clone()));
        }
    }
    let journal = Journal::read(history, &mut found);
    bank::check(&journal, &mut found);
    operations::check(history, &journal, &mut found);
    requests::check(history, &journal, &mut found);
    reads::check(history, &journal, &mut found);
    found
}
