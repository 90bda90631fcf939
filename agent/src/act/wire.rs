//! Steps and what came of them as messages of the wire. Conversions only.

use gpuquota_proto::agent_v1 as wire;

use crate::plan::step::{Outcome, Rung, Step, Told};
use crate::policy::{Class, Version};
use crate::report::wire::device_key;

/// Longest text that goes out, bytes.
const DETAIL: usize = 256;
/// Longest path of a group that goes out, bytes.
const GROUP: usize = 1024;

/// A step as the server is asked for it.
pub(super) fn step(step: &Step) -> wire::Step {
    wire::Step {
        rung: rung(step.rung).into(),
        tenant: step.whom.tenant.clone().unwrap_or_default(),
        device: Some(device_key(&step.whom.device)),
        class: class(step.class).into(),
        pid: step.process.map(|process| process.pid),
        start_time: step.process.map(|process| process.start_time),
        group: cut(&step.group, GROUP),
    }
}

/// What came of one. Number, boot and age are given where it is kept.
pub(super) fn outcome(told: &Told, version: Version) -> wire::Outcome {
    wire::Outcome {
        step: Some(step(&told.step)),
        incarnation: version.incarnation,
        version: version.row,
        kind: kind(told.outcome).into(),
        detail: cut(&told.detail, DETAIL),
        ..wire::Outcome::default()
    }
}

fn rung(rung: Rung) -> wire::Rung {
    match rung {
        Rung::Warn => wire::Rung::Warn,
        Rung::Restrict => wire::Rung::Restrict,
        Rung::Term => wire::Rung::Term,
        Rung::Kill => wire::Rung::Kill,
        Rung::Lift => wire::Rung::Lift,
    }
}

fn class(class: Class) -> wire::ViolationClass {
    match class {
        Class::Squatter => wire::ViolationClass::Squatter,
        Class::Foreign => wire::ViolationClass::Foreign,
        Class::OverQuota => wire::ViolationClass::OverQuota,
        Class::OverNodeLimit => wire::ViolationClass::OverNodeLimit,
        Class::Unattributed => wire::ViolationClass::Unattributed,
        Class::Ghost => wire::ViolationClass::Ghost,
    }
}

fn kind(outcome: Outcome) -> wire::OutcomeKind {
    match outcome {
        Outcome::Done => wire::OutcomeKind::Done,
        Outcome::Verified => wire::OutcomeKind::Verified,
        Outcome::Gone => wire::OutcomeKind::Gone,
        Outcome::Refused => wire::OutcomeKind::Refused,
        Outcome::Failed => wire::OutcomeKind::Failed,
        Outcome::Impossible => wire::OutcomeKind::Impossible,
    }
}

// Whole characters of one line.
fn cut(text: &str, bytes: usize) -> String {
    let mut kept = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if kept.len() + c.len_utf8() > bytes {
            break;
        }
        kept.push(c);
    }
    kept
}
