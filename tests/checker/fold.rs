//! The rows of a history, folded one by one with the ledger's own code.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use gpuquota_core::event::KeptAnswer;
use gpuquota_core::id::{OpId, Seq, Timestamp};
use gpuquota_core::{Answer, Outcome, Record, State};

use super::{Entry, Rule, Violation, What};

/// One row, understood.
pub(crate) struct Durable {
    /// Its place in the history.
    pub(crate) at_entry: usize,
    pub(crate) seq: u64,
    pub(crate) at: i64,
    /// The operation id as its caller knows it.
    pub(crate) op: Option<String>,
    pub(crate) hash: String,
    pub(crate) record: Record,
    /// The ledger after it.
    pub(crate) state: State,
}

impl Durable {
    /// The answer that it keeps for repetitions of its operation.
    pub(crate) fn kept(&self) -> Option<Answer> {
        match &self.record.replay.as_ref()?.answer {
            KeptAnswer::Whole(answer) => Some(answer.clone()),
            KeptAnswer::Granted(lease) => {
                let lease = self.state.lease(*lease)?.clone();
                Some(Answer::Granted(Outcome::Lease(Arc::new(lease))))
            }
        }
    }
}

/// All rows that a history saw become durable.
pub(crate) struct Journal {
    pub(crate) rows: Vec<Durable>,
    /// Digest of the state after a row, where somebody compares it.
    pub(crate) digests: BTreeMap<u64, String>,
}

impl Journal {
    /// Folds and verifies after each row; stops at the first that cannot follow.
    pub(crate) fn read(history: &[Entry], found: &mut Vec<Violation>) -> Self {
        let wanted = compared(history);
        let mut journal = Self {
            rows: Vec::new(),
            digests: BTreeMap::new(),
        };
        let mut state = State::default();
        if wanted.contains(&0) {
            journal.digests.insert(0, digest(&state));
        }
        for (at_entry, entry) in history.iter().enumerate() {
            let What::Row(row) = &entry.what else {
                continue;
            };
            if row.seq != state.seq().0 + 1 || row.at < state.at().0 {
                let text = format!(
                    "row {} of {} cannot follow the rows before",
                    row.seq, row.at
                );
                found.push(Violation::new(Rule::Fold, text));
                return journal;
            }
            let Ok(record) = serde_json::from_str::<Record>(&row.body) else {
                let text = format!("row {} cannot be read: {}", row.seq, row.body);
                found.push(Violation::new(Rule::Fold, text));
                return journal;
            };
            let op = caller_op(row.op.as_deref(), record.replay.is_some());
            let folded = catch_unwind(AssertUnwindSafe(|| {
                let op = op.as_deref().and_then(|op| OpId::new(op).ok());
                state.apply(Seq(row.seq), Timestamp(row.at), op.as_ref(), &record);
                state.verify()
            }));
            match folded {
                Ok(Ok(())) => {}
                Ok(Err(broken)) => {
                    let text = format!("after row {}: {broken}", row.seq);
                    found.push(Violation::new(Rule::Invariant, text));
                }
                Err(_) => {
                    let text = format!("row {} contradicts those before it", row.seq);
                    found.push(Violation::new(Rule::Invariant, text));
                    return journal;
                }
            }
            if wanted.contains(&row.seq) {
                journal.digests.insert(row.seq, digest(&state));
            }
            journal.rows.push(Durable {
                at_entry,
                seq: row.seq,
                at: row.at,
                op,
                hash: row.hash.clone(),
                record,
                state: state.clone(),
            });
        }
        journal
    }

    /// The row at `seq`; there is none at 0.
    pub(crate) fn row(&self, seq: u64) -> Option<&Durable> {
        let at = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.rows.get(at)
    }

    /// The rows that were durable before this place in the history.
    pub(crate) fn durable(&self, at_entry: usize) -> &[Durable] {
        let end = self.rows.partition_point(|row| row.at_entry < at_entry);
        self.rows.get(..end).unwrap_or_default()
    }
}

/// A state's bytes in short.
pub(crate) fn digest(state: &State) -> String {
    fnv(&serde_json::to_vec(state).unwrap_or_default())
}

/// FNV-1a, hexadecimal.
pub(crate) fn fnv(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

// Rows whose state somebody took the digest of.
fn compared(history: &[Entry]) -> BTreeSet<u64> {
    let reads = history.iter().filter_map(|entry| match &entry.what {
        What::Read {
            seq,
            digest: Some(_),
            ..
        } => Some(*seq),
        _ => None,
    });
    reads.collect()
}

// A kept answer's id carries its day in the journal.
fn caller_op(op: Option<&str>, kept: bool) -> Option<String> {
    let op = op?;
    if !kept {
        return Some(op.to_owned());
    }
    let (caller, _day) = op.rsplit_once('@')?;
    Some(caller.to_owned())
}
