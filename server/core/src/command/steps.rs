//! What agents ask and tell of enforcement.

use crate::id::{Incarnation, NodeName, Seq, SessionId};
use crate::step::{Step, StepResult};

/// An agent is about to take steps above a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeginSteps {
    /// Which node, from its certificate.
    pub node: NodeName,
    /// In which session.
    pub session: SessionId,
    /// The policy that it acts by.
    pub incarnation: Incarnation,
    /// The row at which that became what it is.
    pub version: Seq,
    /// The steps, 1 to [`crate::step::MOST_IN_INTENT`].
    pub steps: Vec<Step>,
}

/// An agent says what came of a step, or that people were warned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndStep {
    /// Which node, from its certificate.
    pub node: NodeName,
    /// In which session.
    pub session: SessionId,
    /// Boot of the node, the scope of the number.
    pub boot_id: String,
    /// Grows in that boot.
    pub number: u64,
    /// Which step.
    pub step: Step,
    /// The policy that it was done by.
    pub version: Seq,
    /// What came of it.
    pub result: StepResult,
    /// One line for a person.
    pub detail: String,
    /// How long before it was heard it happened, milliseconds.
    pub age_ms: u64,
    /// Further outcomes of this kind that were left out.
    pub beside: u32,
}
