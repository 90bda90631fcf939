//! The one writer: takes all commands that wait, decides them, appends their rows with one statement, then answers.
//!
//! Nothing is answered before it is durable. A lost race with another writer drops the decided batch, catches up and
//! decides again. A failed fsync ends the process, because only a restart knows what the disk really holds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arc_swap::ArcSwap;
use gpuquota_core::mutant::{Mutant, planted};
use gpuquota_core::{Command, State};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, decide};
use super::fold::{FoldError, overtaken};
use super::{Committed, Counters, Job, Ledger, LedgerError, Origin, Snapshots};
use crate::clock::Clock;
use crate::store::{Appended, Store, StoreError};

/// How the batcher works.
#[derive(Clone, Debug)]
pub struct BatcherSettings {
    /// Commands that may wait; one more is refused.
    pub queue: usize,
    /// Commands decided together at most.
    pub batch: usize,
    /// Name of this server in the rows that it writes.
    pub writer: String,
}

/// Starts the batcher on a folded journal. It ends when `stop` is cancelled and all that waited is answered.
pub fn start(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    snapshots: Option<Snapshots>,
    committed: Committed,
    settings: BatcherSettings,
    stop: CancellationToken,
) -> (Ledger, JoinHandle<()>) {
    let (sender, jobs) = mpsc::channel(settings.queue);
    let ledger = Ledger {
        jobs: sender,
        committed: Arc::new(ArcSwap::from_pointee(committed)),
        counters: Arc::default(),
        fatal: CancellationToken::new(),
    };
    let batcher = Batcher {
        store,
        clock,
        snapshots,
        settings,
        ledger: ledger.clone(),
        broken: None,
    };
    let task = tokio::spawn(batcher.run(jobs, stop));
    (ledger, task)
}

struct Batcher {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    snapshots: Option<Snapshots>,
    settings: BatcherSettings,
    ledger: Ledger,
    /// An invariant broke: reads go on, writes do not.
    broken: Option<String>,
}

impl Batcher {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>, stop: CancellationToken) {
        let mut waiting = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => jobs.close(),
                _ = jobs.recv_many(&mut waiting, self.settings.batch) => {}
            }
            if waiting.is_empty() {
                // After close(), what still waits is taken; an empty receive is the end.
                if jobs.recv_many(&mut waiting, self.settings.batch).await == 0 {
                    break;
                }
            }
            self.process(std::mem::take(&mut waiting)).await;
            if self.ledger.fatal.is_cancelled() {
                break;
            }
            self.snapshot();
        }
    }

    async fn process(&mut self, jobs: Vec<Job>) {
        if let Some(reason) = &self.broken {
            let reason = reason.clone();
            return self.refuse(jobs, &reason);
        }
        let now = match self.clock.now() {
            Ok(now) => now,
            Err(jump) => return self.refuse(jobs, &jump.to_string()),
        };
        loop {
            let from = self.ledger.read();
            let decided = catch_unwind(AssertUnwindSafe(|| {
                decide(&from, &jobs, now, &self.settings.writer)
            }));
            let Ok(batch) = decided else {
                tracing::error!(ledger.seq = from.state.seq().0, "a decision panicked");
                return self.close(jobs);
            };
            if batch.rows.is_empty() {
                return self.answer(jobs, batch);
            }
            if planted(Mutant::AnswerBeforeAppend) {
                let rows = batch.rows.clone();
                self.answer(jobs, batch);
                let _ = self.store.append(&rows).await;
                return;
            }
            match self.store.append(&batch.rows).await {
                Ok(Appended::Written) => {
                    Counters::add(&self.ledger.counters.appends, 1);
                    Counters::add(&self.ledger.counters.rows, batch.rows.len());
                    return self.answer(jobs, batch);
                }
                Ok(Appended::Behind) => match overtaken(&*self.store, &from).await {
                    Ok(committed) => self.publish(committed),
                    Err(FoldError::Broken(broken)) => {
                        tracing::error!(error = %broken, "cannot catch up with the journal");
                        return self.close(jobs);
                    }
                    Err(error) => {
                        tracing::error!(error = %error, "cannot catch up with the journal");
                        return self.stop(jobs, "the journal cannot be read");
                    }
                },
                Err(StoreError::Full(error)) => {
                    tracing::error!(error = %error, "the ledger's disk is full; writes are refused");
                    return self.refuse(jobs, "its disk is full; free space and try again");
                }
                Err(StoreError::Busy(error)) => {
                    tracing::error!(error = %error, "another program holds the ledger locked; writes are refused");
                    return self.refuse(
                        jobs,
                        "another program holds its file locked; end that one and try again",
                    );
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the ledger's storage failed; the server stops so that a restart replays what is durable"
                    );
                    return self.stop(jobs, "its storage failed");
                }
            }
        }
    }

    fn publish(&self, committed: Committed) {
        self.ledger.committed.store(Arc::new(committed));
    }

    fn answer(&self, jobs: Vec<Job>, batch: Batch) {
        if !batch.rows.is_empty() {
            self.publish(batch.committed);
        }
        let counters = &self.ledger.counters;
        for (job, answer) in jobs.into_iter().zip(batch.answers) {
            let counter = if answer.is_ok() {
                &counters.granted
            } else {
                &counters.denied
            };
            Counters::add(counter, 1);
            // Whoever asked may have gone; what was decided stands.
            let _ = job.reply.send(answer.map_err(LedgerError::from));
        }
    }

    fn refuse(&self, jobs: Vec<Job>, reason: &str) {
        Counters::add(&self.ledger.counters.failed, jobs.len());
        for job in jobs {
            let _ = job
                .reply
                .send(Err(LedgerError::Unavailable(reason.to_owned())));
        }
    }

    // Reads go on, writes do not: a restart would end here again.
    fn close(&mut self, jobs: Vec<Job>) {
        let reason = "an invariant of the ledger is broken; see the log".to_owned();
        tracing::error!("{reason}; the server is read-only");
        self.refuse(jobs, &reason);
        self.broken = Some(reason);
    }

    fn stop(&self, jobs: Vec<Job>, reason: &str) {
        self.ledger.fatal.cancel();
        self.refuse(jobs, reason);
    }

    // The state is immutable, so a snapshot is written beside the batcher.
    fn snapshot(&mut self) {
        let Some(snapshots) = &self.snapshots else {
            return;
        };
        let committed = self.ledger.read();
        if !snapshots.due(&committed.state) {
            return;
        }
        let (snapshots, ledger) = (snapshots.clone(), self.ledger.clone());
        tokio::spawn(async move {
            if let Some((seq, digest)) = snapshots.write(committed).await {
                let command = Command::NoteSnapshot { seq, digest };
                if let Err(error) = ledger.submit(command, Origin::server()).await {
                    tracing::warn!(error = %error, "a snapshot was written but not noted");
                }
            }
        });
    }
}

/// For tests and tools: a state as committed with a given head.
impl Committed {
    /// Nothing has happened yet.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            state: State::default(),
            head: crate::store::Hash::EMPTY,
        }
    }
}
