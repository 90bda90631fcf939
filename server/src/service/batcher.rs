//! The one writer: takes all commands that wait, decides them, appends their rows with one statement, then answers.
//!
//! Nothing is answered before it is durable. While a batch is written the next one is decided upon it. A lost race with another writer drops the decided batch, catches up and
//! decides again. When the connection is lost after rows were sent, the answers are held until the journal says whether the
//! rows are there. A failed fsync ends the process, because only a restart knows what the disk really holds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use gpuquota_core::id::Seq;
use gpuquota_core::mutant::{Mutant, planted};
use gpuquota_core::{Command, State};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ahead::Ahead;
use super::batch::{Batch, decide};
use super::catching_up::news;
use super::history::History;
use super::trouble::{Then, Trouble};
use super::turns::Turns;
use super::{Committed, Counters, Job, Ledger, LedgerError, Origin, Shared, Snapshots};
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

/// Why nothing is written any more.
const ENDED: &str = "its storage failed, or is not what it was";
/// Looks for others' rows at least so often, where others write.
const LOOK: Duration = Duration::from_millis(250);
/// After a database was not reached.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

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
    let (others, seq) = (store.hints().is_some(), committed.state.seq());
    let shared = Shared::new(settings.writer.clone(), others, seq, clock.boot_ms());
    let ledger = Ledger {
        jobs: sender,
        committed: Arc::new(ArcSwap::from_pointee(committed)),
        counters: Arc::default(),
        denials: Arc::default(),
        history: Arc::new(History::new(store.clone(), snapshots.clone())),
        fatal: CancellationToken::new(),
        store: store.clone(),
        shared: Arc::new(shared),
    };
    let batcher = Batcher {
        hints: store.hints(),
        store,
        clock,
        snapshots,
        settings,
        ledger: ledger.clone(),
        broken: None,
        away: None,
        next_look: Instant::now(),
        turns: Turns::default(),
    };
    let task = tokio::spawn(batcher.run(jobs, stop));
    (ledger, task)
}

pub(super) struct Batcher {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    /// Says when others wrote; `None` where nobody else can.
    pub(super) hints: Option<watch::Receiver<Seq>>,
    snapshots: Option<Snapshots>,
    pub(super) settings: BatcherSettings,
    pub(super) ledger: Ledger,
    /// Reads go on, writes do not, until a restart.
    broken: Option<String>,
    /// The database is not reached; until the next look nothing is tried.
    pub(super) away: Option<String>,
    pub(super) next_look: Instant,
    pub(super) turns: Turns,
}

impl Batcher {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>, stop: CancellationToken) {
        let mut ahead = Ahead::default();
        loop {
            let idle = ahead.jobs.is_empty() && jobs.is_empty();
            if self.turns.held() && (idle || self.turns.over(Instant::now())) {
                self.store.end_turn().await;
                self.turns.ended();
            }
            if ahead.jobs.is_empty() {
                self.wait(&mut jobs, &mut ahead.jobs, &stop).await;
            }
            if ahead.jobs.is_empty() && jobs.is_closed() {
                // After close(), what still waits is taken; an empty receive is the end.
                if jobs.recv_many(&mut ahead.jobs, self.settings.batch).await == 0 {
                    break;
                }
            }
            if !ahead.jobs.is_empty() {
                ahead = self.process(ahead, &mut jobs).await;
            }
            if self.ledger.fatal.is_cancelled() {
                self.refuse(ahead.jobs, ENDED);
                break;
            }
            self.snapshot();
        }
        if self.turns.held() {
            self.store.end_turn().await;
        }
        // After a failure of the storage some still wait that were never tried.
        jobs.close();
        let mut waiting = Vec::new();
        while jobs.recv_many(&mut waiting, self.settings.batch).await > 0 {
            self.refuse(std::mem::take(&mut waiting), ENDED);
        }
    }

    // Until something is to be done here; sees what others write meanwhile.
    async fn wait(
        &mut self,
        jobs: &mut mpsc::Receiver<Job>,
        waiting: &mut Vec<Job>,
        stop: &CancellationToken,
    ) {
        let follows = self.hints.is_some() && self.broken.is_none();
        let known = self.ledger.read().state.seq();
        tokio::select! {
            biased;
            () = stop.cancelled() => jobs.close(),
            () = tokio::time::sleep_until(self.next_look), if follows => self.follow().await,
            _ = jobs.recv_many(waiting, self.settings.batch) => {}
            () = news(&mut self.hints, known), if follows && self.away.is_none() => self.follow().await,
        }
    }

    // Sees what others wrote while nothing waits here.
    async fn follow(&mut self) {
        if let Err(trouble) = self.look().await {
            self.give_up(Vec::new(), trouble);
        }
    }

    // Answers these commands, however they were decided before; what came meanwhile.
    async fn process(&mut self, these: Ahead, incoming: &mut mpsc::Receiver<Job>) -> Ahead {
        let mut ahead = Ahead::default();
        self.decide_and_write(these, incoming, &mut ahead).await;
        ahead
    }

    async fn decide_and_write(
        &mut self,
        mut these: Ahead,
        incoming: &mut mpsc::Receiver<Job>,
        ahead: &mut Ahead,
    ) {
        let away = self
            .away
            .as_ref()
            .filter(|_| Instant::now() < self.next_look);
        if let Some(reason) = self.broken.as_ref().or(away) {
            let reason = reason.clone();
            return self.refuse(these.jobs, &reason);
        }
        let now = match self.clock.now() {
            Ok(now) => now,
            Err(jump) => return self.refuse(these.jobs, &jump.to_string()),
        };
        // Whether the state was the newest at some moment since these commands came.
        let mut newest = !self.ledger.shared.others();
        loop {
            match self.turn().await {
                Ok(looked) => newest |= looked,
                Err(trouble) => return self.give_up(these.jobs, trouble),
            }
            let from = self.ledger.read();
            let before = these.decided(from.head);
            let decided = catch_unwind(AssertUnwindSafe(|| {
                before.unwrap_or_else(|| decide(&from, &these.jobs, now, &self.settings.writer))
            }));
            let Ok(batch) = decided else {
                tracing::error!(ledger.seq = from.state.seq().0, "a decision panicked");
                return self.give_up(these.jobs, Trouble::broken());
            };
            if batch.rows.is_empty() && newest {
                return self.answer(these.jobs, batch);
            }
            // A denial, or a grant of what is so already, must not rest on what another server has changed.
            if batch.rows.is_empty() {
                match self.look().await {
                    Ok(_) => newest = true,
                    Err(trouble) => return self.give_up(these.jobs, trouble),
                }
                continue;
            }
            if planted(Mutant::AnswerBeforeAppend) {
                let rows = batch.rows.clone();
                self.answer(these.jobs, batch);
                let _ = self.store.append(&rows).await;
                return;
            }
            let begun_ms = self.clock.boot_ms();
            let overtaken = match self.append(&batch, incoming, ahead).await {
                Ok(Appended::Written) => {
                    self.ledger.shared.newest(begun_ms);
                    self.reached();
                    return self.written(these.jobs, batch);
                }
                Ok(Appended::Behind) => self.overtaken().await,
                Err(StoreError::Unknown(error)) => {
                    tracing::warn!(error = %error, "the database was lost while it wrote; answers wait");
                    match self.settle(&from, &batch).await {
                        Ok(true) => return self.written(these.jobs, batch),
                        Ok(false) => Ok(()),
                        Err(trouble) => Err(trouble),
                    }
                }
                Err(error) => Err(Trouble::of_append(error)),
            };
            if let Err(trouble) = overtaken {
                return self.give_up(these.jobs, trouble);
            }
            newest = true;
        }
    }

    pub(super) fn publish(&self, committed: Committed) {
        let seq = committed.state.seq();
        self.ledger.committed.store(Arc::new(committed));
        self.ledger.shared.publish(seq);
    }

    pub(super) fn reached(&mut self) {
        self.next_look = Instant::now() + LOOK;
        if self.away.take().is_some() {
            tracing::info!("the ledger's database is reached again");
        }
    }

    fn written(&self, jobs: Vec<Job>, batch: Batch) {
        Counters::add(&self.ledger.counters.appends, 1);
        Counters::add(&self.ledger.counters.rows, batch.rows.len());
        self.answer(jobs, batch);
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
        self.fail(jobs, &LedgerError::Unavailable(reason.to_owned()));
    }

    fn fail(&self, jobs: Vec<Job>, error: &LedgerError) {
        Counters::add(&self.ledger.counters.failed, jobs.len());
        for job in jobs {
            let _ = job.reply.send(Err(error.clone()));
        }
    }

    fn give_up(&mut self, jobs: Vec<Job>, trouble: Trouble) {
        let reason = trouble.reason;
        match trouble.then {
            Then::Refuse => {
                tracing::error!(reason, "writes are refused");
                // Whatever it is, others' rows may still be read.
                self.next_look = Instant::now() + LOOK_AGAIN;
            }
            Then::Wait => self.lost(&reason),
            // Reads go on, writes do not: a restart would end here again.
            Then::Close => {
                tracing::error!(reason, "the server is read-only");
                self.broken = Some(reason.clone());
            }
            Then::End => {
                tracing::error!(
                    reason,
                    "the server stops so that a restart replays what is durable"
                );
                self.ledger.fatal.cancel();
            }
        }
        match trouble.sent {
            true => self.fail(jobs, &LedgerError::Unknown),
            false if trouble.then == Then::End => self.refuse(jobs, ENDED),
            false => self.refuse(jobs, &reason),
        }
    }

    fn lost(&mut self, reason: &str) {
        if self.away.is_none() {
            tracing::warn!(reason, "writes are refused, reads go on");
        }
        self.turns.ended();
        self.away = Some(reason.to_owned());
        self.next_look = Instant::now() + LOOK_AGAIN;
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
