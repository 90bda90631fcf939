//! Answers against rows: what was acknowledged is durable, and one operation id has one effect and one answer.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::event::Event;
use gpuquota_core::id::NodeName;
use gpuquota_core::{Answer, Denied, Outcome};

use super::fold::{Durable, Journal};
use super::{Entry, Invoke, Reply, Rule, Violation, What};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

pub(super) fn check(history: &[Entry], journal: &Journal, found: &mut Vec<Violation>) {
    let mut by_op: BTreeMap<&str, Vec<&Durable>> = BTreeMap::new();
    for row in &journal.rows {
        if let Some(op) = &row.op {
            by_op.entry(op).or_default().push(row);
        }
    }
    for (op, rows) in &by_op {
        for pair in rows.windows(2) {
            let [first, second] = pair else { continue };
            let kept = first.record.replay.is_some() && second.record.replay.is_some();
            if !kept || second.at - first.at < DAY_MS {
                let text = format!(
                    "operation {op} has rows {} and {} within its time",
                    first.seq, second.seq
                );
                found.push(Violation::new(Rule::Once, text));
            }
        }
    }
    answers(history, journal, &by_op, found);
}

fn answers(
    history: &[Entry],
    journal: &Journal,
    by_op: &BTreeMap<&str, Vec<&Durable>>,
    found: &mut Vec<Violation>,
) {
    let mut calls: BTreeMap<u64, &Invoke> = BTreeMap::new();
    let mut told: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for (at_entry, entry) in history.iter().enumerate() {
        let (call, answer, seq) = match &entry.what {
            What::Invoke(invoke) => {
                calls.insert(invoke.call, invoke);
                continue;
            }
            What::Answer {
                call,
                reply: Reply::Decided { answer, seq, .. },
            } => (call, answer, seq),
            _ => continue,
        };
        let Some(invoke) = calls.get(call) else {
            continue;
        };
        let highest = journal.durable(at_entry).last().map_or(0, |row| row.seq);
        if seq.is_some_and(|seq| seq > highest) {
            let text = format!("call {call} was told of row {seq:?}; the last was {highest}");
            found.push(Violation::new(Rule::Acknowledged, text));
        }
        // What an HTTP server says is compared with what it said before here, and with rows in `requests`.
        let decided = serde_json::from_str::<Answer>(answer).ok();
        if decided == Some(Answer::Denied(Denied::OperationReused)) {
            reused(invoke, by_op, found);
            continue;
        }
        if let (Some(op), Some(fingerprint)) = (&invoke.op, &invoke.fingerprint) {
            told.entry((op, fingerprint)).or_default().insert(answer);
            let rows = by_op.get(op.as_str()).map(Vec::as_slice);
            kept(invoke, at_entry, decided.as_ref(), rows, found);
        } else if let Some(Answer::Granted(outcome)) = &decided {
            let mut before = journal.durable(at_entry).iter().rev();
            if !before.any(|row| shows(row, invoke, outcome)) {
                let text = format!("call {call} was told {answer}; no row says so");
                found.push(Violation::new(Rule::Acknowledged, text));
            }
        }
    }
    for ((op, _), answers) in told {
        // After a day the same id is a new request.
        let rows = by_op.get(op).map_or(0, Vec::len);
        if answers.len() > rows.max(1) {
            let text = format!("operation {op} was answered in different ways: {answers:?}");
            found.push(Violation::new(Rule::Once, text));
        }
    }
}

// The id was used for something else before, or its refusal is wrong.
fn reused(invoke: &Invoke, by_op: &BTreeMap<&str, Vec<&Durable>>, found: &mut Vec<Violation>) {
    let rows = invoke.op.as_deref().and_then(|op| by_op.get(op));
    let other = rows.into_iter().flatten().any(|row| {
        let replay = row.record.replay.as_ref();
        replay.is_some_and(|replay| Some(&replay.fingerprint) != invoke.fingerprint.as_ref())
    });
    if !other {
        let text = format!("call {} repeats nothing and was refused so", invoke.call);
        found.push(Violation::new(Rule::Once, text));
    }
}

// An answer that is kept stands in a row, as it was given.
fn kept(
    invoke: &Invoke,
    at_entry: usize,
    decided: Option<&Answer>,
    rows: Option<&[&Durable]>,
    found: &mut Vec<Violation>,
) {
    let mut replays = rows
        .unwrap_or_default()
        .iter()
        .filter(|row| row.at_entry < at_entry)
        .filter(|row| {
            let replay = row.record.replay.as_ref();
            replay.map(|replay| &replay.fingerprint) == invoke.fingerprint.as_ref()
        })
        .filter_map(|row| row.kept())
        .peekable();
    let (rule, what) = if replays.peek().is_none() {
        (Rule::Acknowledged, "has no durable row")
    } else if decided.is_some_and(|decided| !replays.any(|kept| kept == *decided)) {
        (Rule::Once, "was answered otherwise before")
    } else {
        return;
    };
    let text = format!("call {} of operation {:?} {what}", invoke.call, invoke.op);
    found.push(Violation::new(rule, text));
}

// Whether this row, or the state after it, bears out an answer that is not kept.
fn shows(row: &Durable, invoke: &Invoke, outcome: &Outcome) -> bool {
    let node = invoke.caller.strip_prefix("node:");
    let node = node.and_then(|node| NodeName::new(node).ok());
    let of_node = |named: &NodeName| node.as_ref() == Some(named);
    let events = &row.record.events;
    match outcome {
        Outcome::Seat(seat) => events.contains(&Event::SeatSet(seat.clone())),
        Outcome::Lease(lease) => row.state.lease(lease.id).is_some_and(|at| {
            at.epoch == lease.epoch && at.terms == lease.terms && at.devices == lease.devices
        }),
        Outcome::Quota(quota) => row.state.quota(*quota).is_some(),
        Outcome::LicenceQuota(quota) => row.state.licence_quota(*quota).is_some(),
        Outcome::Session(opened) => events.iter().any(|event| {
            matches!(event, Event::SessionOpened { node, session, .. }
                if of_node(node) && session == opened)
        }),
        Outcome::Reported(reported) => events.iter().any(|event| {
            matches!(event, Event::NodeReported { node, number, .. }
                if of_node(node) && number == reported)
        }),
        // It leaves nothing that could be looked for.
        _ => true,
    }
}
