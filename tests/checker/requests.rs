//! Calls against rows, by request id: what a caller was told is what the row says, and whoever was told that nothing was
//! done finds nothing done.

use std::collections::BTreeMap;

use gpuquota_core::id::LeaseId;
use gpuquota_core::lease::Lease;
use gpuquota_core::{Answer, Outcome};

use super::fold::{Durable, Journal};
use super::{Entry, Invoke, Reply, Rule, Told, Violation, What};

pub(super) fn check(history: &[Entry], journal: &Journal, found: &mut Vec<Violation>) {
    let mut rows: BTreeMap<&str, Vec<&Durable>> = BTreeMap::new();
    for row in &journal.rows {
        if let Some(request) = &row.record.request_id {
            rows.entry(request).or_default().push(row);
        }
    }
    let mut calls: BTreeMap<u64, &Invoke> = BTreeMap::new();
    for (at_entry, entry) in history.iter().enumerate() {
        match &entry.what {
            What::Invoke(invoke) => {
                calls.insert(invoke.call, invoke);
                let own = rows_of(&rows, invoke);
                if own.len() > 1 {
                    let text = format!("call {} has {} rows", invoke.call, own.len());
                    found.push(Violation::new(Rule::Once, text));
                }
                for row in own.iter().filter(|row| row.at_entry < at_entry) {
                    let text = format!(
                        "call {} has row {} before it was made",
                        invoke.call, row.seq
                    );
                    found.push(Violation::new(Rule::Once, text));
                }
            }
            What::Answer { call, reply } => {
                let Some(invoke) = calls.get(call) else {
                    continue;
                };
                let own = rows_of(&rows, invoke);
                match reply {
                    Reply::Refused { reason } => {
                        for row in own {
                            let text = format!(
                                "call {call} was told that nothing was done ({reason}), and row {} did it",
                                row.seq
                            );
                            found.push(Violation::new(Rule::Acknowledged, text));
                        }
                    }
                    Reply::Decided {
                        told: Some(told),
                        seq,
                        ..
                    } => {
                        let before = journal.durable(at_entry);
                        if let Some(wrong) = judge(invoke, told, *seq, before, own) {
                            let text = format!("call {call} was told {told:?}; {wrong}");
                            found.push(Violation::new(Rule::Acknowledged, text));
                        }
                    }
                    Reply::Decided { told: None, .. } | Reply::Lost => {}
                }
            }
            What::Row(_)
            | What::Read { .. }
            | What::Truth { .. }
            | What::Alarm { .. }
            | What::Note { .. } => {}
        }
    }
}

fn rows_of<'a>(rows: &'a BTreeMap<&str, Vec<&'a Durable>>, invoke: &Invoke) -> &'a [&'a Durable] {
    let own = invoke.request.as_deref().and_then(|id| rows.get(id));
    own.map_or(&[], Vec::as_slice)
}

// What is wrong with what a caller was told, if something is. `before` are the rows of that moment, `own` those of the call.
fn judge(
    invoke: &Invoke,
    told: &Told,
    seq: Option<u64>,
    before: &[Durable],
    own: &[&Durable],
) -> Option<String> {
    // Under an operation id the row that it had first says what was answered.
    let kept = invoke.op.as_deref().map(|op| {
        let mut rows = before.iter().rev();
        let row = rows.find(|row| row.op.as_deref() == Some(op));
        row.and_then(Durable::kept)
    });
    match (told, &kept) {
        (_, Some(None)) => Some("no row keeps an answer of its operation".to_owned()),
        (Told::Denied, Some(Some(Answer::Denied(_)))) => None,
        (Told::Lease { .. }, Some(Some(Answer::Granted(Outcome::Lease(lease))))) => {
            differs(told, Some(lease.as_ref()))
        }
        (_, Some(Some(other))) => Some(format!("its row says {other:?}")),
        (Told::Denied, None) => own.first().map(|row| format!("row {} did it", row.seq)),
        (Told::Lease { lease, .. }, None) => {
            let at = seq.and_then(|seq| before.iter().rev().find(|row| row.seq == seq));
            match at {
                Some(row) => differs(told, row.state.lease(LeaseId(*lease))),
                None => Some(format!("row {seq:?} is not there")),
            }
        }
    }
}

fn differs(told: &Told, known: Option<&Lease>) -> Option<String> {
    let known = known.map(|lease| Told::Lease {
        lease: lease.id.0,
        epoch: lease.epoch.0,
        devices: lease.devices.keys().map(ToString::to_string).collect(),
    });
    (known.as_ref() != Some(told)).then(|| format!("the rows say {known:?}"))
}
