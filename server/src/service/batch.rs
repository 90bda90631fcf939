//! Deciding a batch: from the committed state and the commands that wait to the rows to append. Pure.

use gpuquota_core::event::{Event, Replay};
use gpuquota_core::id::{OpId, Timestamp};
use gpuquota_core::mutant::{Mutant, planted};
use gpuquota_core::{Answer, Command, Denied, Outcome, Record};

use super::{Committed, Job, Origin, Receipt};
use crate::store::{Hash, Row};

/// A batch decided on what was committed, or is about to be; not yet durable.
pub(super) struct Batch {
    /// Hash of the last row before it.
    pub(super) after: Hash,
    pub(super) rows: Vec<Row>,
    pub(super) committed: Committed,
    /// One answer a job, in order.
    pub(super) answers: Vec<Result<Receipt, Denied>>,
}

/// Decides all jobs one after the other, what is due by time first.
pub(super) fn decide(from: &Committed, jobs: &[Job], now: Timestamp, writer: &str) -> Batch {
    let mut batch = Batch::on(from);
    batch.take(jobs, now, writer);
    batch
}

/// What a command would be answered at `now`, what is due by time first. Nothing is kept of it.
pub(super) fn preview(
    from: &Committed,
    command: &Command,
    now: Timestamp,
) -> Result<Outcome, Denied> {
    let due = decide(from, &[], now, "preview").committed.state;
    let decision = due.decide(command, now.max(due.at()))?;
    Ok(decision.outcome)
}

impl Batch {
    /// Nothing yet.
    pub(super) fn on(from: &Committed) -> Self {
        Self {
            after: from.head,
            rows: Vec::new(),
            committed: from.clone(),
            answers: Vec::new(),
        }
    }

    /// Decides more jobs, what is due by time first.
    pub(super) fn take(&mut self, jobs: &[Job], now: Timestamp, writer: &str) {
        let state = &self.committed.state;
        // A clock that was set back does not make the journal go back.
        let now = now.max(state.at());
        if state.next_due().is_some_and(|due| due <= now) && !planted(Mutant::DecideBeforeSweep) {
            // A sweep is always granted.
            let _ = self.step(&Command::Sweep, &Origin::server(), now, writer);
        }
        for job in jobs {
            let answer = self.step(&job.command, &job.origin, now, writer);
            self.answers.push(answer);
        }
    }

    fn step(
        &mut self,
        command: &Command,
        origin: &Origin,
        now: Timestamp,
        writer: &str,
    ) -> Result<Receipt, Denied> {
        let state = &self.committed.state;
        if let (Some(op), Some(fingerprint)) = (&origin.op, &origin.fingerprint)
            && let Some(operation) = state.operation(op, now)
        {
            if operation.fingerprint != *fingerprint && !planted(Mutant::IgnoreFingerprint) {
                return Err(Denied::OperationReused);
            }
            let answer = operation.answer.clone();
            return self.receipt(answer);
        }
        let (mut events, answer) = match state.decide(command, now) {
            Ok(decision) => (decision.events, Answer::Granted(decision.outcome)),
            Err(denied) => (Vec::new(), Answer::Denied(denied)),
        };
        own(&mut events, writer);
        let replay = origin
            .fingerprint
            .as_ref()
            .map(|fingerprint| Replay::of(fingerprint.clone(), &answer, &events));
        if !events.is_empty() || replay.is_some() {
            let tenants = state.unnamed_in(&events);
            self.append(
                Record {
                    actor: origin.actor.clone(),
                    request_id: origin.request_id.clone(),
                    from: origin.from.clone(),
                    reason: origin.reason.clone(),
                    replay,
                    tenants,
                    events,
                },
                origin,
                now,
                writer,
            );
        }
        self.receipt(answer)
    }

    fn receipt(&self, answer: Answer) -> Result<Receipt, Denied> {
        match answer {
            Answer::Granted(outcome) => Ok(Receipt {
                outcome,
                seq: self.committed.state.seq(),
            }),
            Answer::Denied(denied) => Err(denied),
        }
    }

    fn append(&mut self, record: Record, origin: &Origin, now: Timestamp, writer: &str) {
        let seq = self.committed.state.seq().next();
        self.committed
            .state
            .apply(seq, now, origin.op.as_ref(), &record);
        // A record is plain data with text keys; serde_json cannot fail on it.
        let body = serde_json::to_string(&record).unwrap_or_default();
        let op = row_op(origin.op.as_ref(), &record, now);
        let row = Row::new(self.committed.head, seq, now, writer, op, body);
        self.committed.head = row.hash;
        self.rows.push(row);
    }
}

// Whoever journals a session is the one that hears it.
fn own(events: &mut [Event], writer: &str) {
    for event in events {
        if let Event::SessionOpened { owner, .. } = event {
            *owner = Some(writer.to_owned());
        }
    }
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// How the journal writes an operation id. A key whose answer is kept 24 hours may come again for something new after
/// that, and the journal's ids are unique for ever, so such an id carries the day of its answer.
fn row_op(op: Option<&OpId>, record: &Record, at: Timestamp) -> Option<OpId> {
    let op = op?;
    if record.replay.is_none() {
        return Some(op.clone());
    }
    OpId::new(&format!("{op}@{}", at.0.div_euclid(DAY_MS))).ok()
}

/// The operation id as its caller knows it.
pub(super) fn caller_op(row: &Row, record: &Record) -> Option<OpId> {
    let op = row.op.as_ref()?;
    if record.replay.is_none() {
        return Some(op.clone());
    }
    let (caller, _day) = op.as_str().rsplit_once('@')?;
    OpId::new(caller).ok()
}
