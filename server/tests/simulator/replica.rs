//! One server machine: its processes one after the other, each the real fold, batcher and sweep on the shared journal.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gpuquota_core::{Answer, Command};
use gpuquota_server::clock::{CheckedClock, Clock};
use gpuquota_server::service::liveness::Liveness;
use gpuquota_server::service::sweep::sweep;
use gpuquota_server::service::{
    self, BatcherSettings, Committed, FoldError, Ledger, LedgerError, Origin, Receipt, Replicas,
    Snapshots,
};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::checker::{Reply, What, digest};
use crate::clock::SimReadings;
use crate::dice::Dice;
use crate::history::History;
use crate::journal::{Database, SimJournal};
use crate::link::Link;
use crate::plan::{Fault, Plan};
use crate::torn;

/// A running server process, as a caller reaches it.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) process: String,
    pub(crate) ledger: Ledger,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) clock: Arc<dyn Clock>,
}

struct Running {
    handle: Handle,
    /// Requests that it works on; they end with it.
    requests: JoinSet<()>,
}

/// A server machine.
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) link: Arc<Link>,
    pub(crate) readings: SimReadings,
    pub(crate) history: History,
    pub(crate) database: Arc<Database>,
    pub(crate) snapshots: Option<PathBuf>,
    pub(crate) plan: Plan,
    pub(crate) stop: Notify,
    running: Mutex<Option<Running>>,
}

impl Replica {
    pub(crate) fn new(
        name: String,
        link: Arc<Link>,
        readings: SimReadings,
        (history, database): (History, Arc<Database>),
        snapshots: Option<PathBuf>,
        plan: Plan,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            link,
            readings,
            history,
            database,
            snapshots,
            plan,
            stop: Notify::new(),
            running: Mutex::default(),
        })
    }

    /// Runs one process after the other, for ever.
    pub(crate) async fn serve(self: Arc<Self>, mut dice: Dice) {
        for incarnation in 1_u64.. {
            let process = format!("{}.{incarnation}", self.name);
            let store = SimJournal::new(self.database.clone(), self.link.clone(), dice.fork());
            // A digest takes longer than most of what is done here.
            let compared = dice.chance(100);
            tokio::select! {
                biased;
                () = self.link.crashed() => {}
                () = self.process(process, store.clone(), compared) => {}
            }
            self.running.lock().unwrap().take();
            store.lost();
            if self.link.has(Fault::Snapshot)
                && let Some(dir) = &self.snapshots
                && let Some(what) = torn::tear(dir, &mut dice)
            {
                self.history.note(format!("{}: {what}", self.name));
            }
            sleep(Duration::from_millis(dice.within(10, 1_000))).await;
        }
    }

    async fn process(&self, process: String, store: Arc<SimJournal>, compared: bool) {
        let clock: Arc<dyn Clock> = Arc::new(CheckedClock::new(self.readings.clone()));
        let every = self.plan.snapshot_every.unwrap_or(u64::MAX);
        let snapshots = self.snapshots.clone();
        let snapshots = snapshots.map(|dir| Snapshots::new(dir, every).in_place());
        let committed = match service::fold(&*store, snapshots.as_ref()).await {
            Ok(committed) => committed,
            Err(FoldError::Store(error)) => {
                return self
                    .history
                    .note(format!("{process} cannot start: {error}"));
            }
            Err(error) => {
                return self
                    .history
                    .alarm(format!("{process} cannot start: {error}"));
            }
        };
        self.history.push(What::Read {
            process: process.clone(),
            seq: committed.state.seq().0,
            head: Some(committed.head.to_string()),
            digest: compared.then(|| digest(&committed.state)),
            leases: None,
        });
        let settings = BatcherSettings {
            queue: self.plan.queue,
            batch: self.plan.batch,
            writer: process.clone(),
        };
        let stop = CancellationToken::new();
        let _ended = stop.clone().drop_guard();
        let (ledger, batcher) = service::start(
            store.clone(),
            clock.clone(),
            snapshots,
            committed,
            settings,
            stop.clone(),
        );
        let batcher = AbortOnDropHandle::new(batcher);
        let liveness = Arc::new(Liveness::new(clock.boot_ms()));
        let silent_after = Duration::from_millis(self.plan.silent_after_ms);
        let sweeping = sweep(
            ledger.clone(),
            clock.clone(),
            liveness.clone(),
            Replicas::new(store, &process, silent_after),
            silent_after,
            stop.clone(),
        );
        let _sweeping = AbortOnDropHandle::new(tokio::spawn(sweeping));
        let fatal = ledger.fatal().clone();
        let handle = Handle {
            process: process.clone(),
            ledger,
            liveness,
            clock,
        };
        *self.running.lock().unwrap() = Some(Running {
            handle,
            requests: JoinSet::new(),
        });
        tokio::select! {
            biased;
            () = fatal.cancelled() => self.history.note(format!("{process} ends: its storage failed")),
            () = self.stop.notified() => {
                self.history.note(format!("{process} is stopped"));
                stop.cancel();
                if batcher.await.is_err() {
                    self.history.alarm(format!("the batcher of {process} panicked"));
                }
            }
        }
    }

    /// The process that runs now.
    pub(crate) fn handle(&self) -> Option<Handle> {
        let running = self.running.lock().unwrap();
        running.as_ref().map(|running| running.handle.clone())
    }

    /// What it shows now.
    pub(crate) fn read(&self, with_digest: bool) -> Option<Arc<Committed>> {
        let handle = self.handle()?;
        let committed = handle.ledger.read();
        self.history.push(What::Read {
            process: handle.process,
            seq: committed.state.seq().0,
            head: Some(committed.head.to_string()),
            digest: with_digest.then(|| digest(&committed.state)),
            leases: None,
        });
        Some(committed)
    }

    /// Hands a request to the running process; its answer comes unless the process ends before. `None`: none runs.
    pub(crate) fn ask(&self, command: Command, origin: Origin) -> Option<oneshot::Receiver<Reply>> {
        let mut running = self.running.lock().unwrap();
        let running = running.as_mut()?;
        while running.requests.try_join_next().is_some() {}
        let (answer, received) = oneshot::channel();
        let (handle, history) = (running.handle.clone(), self.history.clone());
        running.requests.spawn(async move {
            let told = handle.ledger.submit(command, origin).await;
            let shown = handle.ledger.read().state.seq();
            if told.as_ref().is_ok_and(|receipt| receipt.seq > shown) {
                history.alarm(format!("{} answers what it does not show", handle.process));
            }
            // Whoever asked may have gone.
            let _ = answer.send(reply(told, &history));
        });
        Some(received)
    }
}

fn reply(told: Result<Receipt, LedgerError>, history: &History) -> Reply {
    let text = |answer| serde_json::to_string(&answer).unwrap();
    match told {
        Ok(receipt) => Reply::Decided {
            answer: text(Answer::Granted(receipt.outcome)),
            seq: Some(receipt.seq.0),
            told: None,
        },
        Err(LedgerError::Denied(denied)) => Reply::Decided {
            answer: text(Answer::Denied(denied)),
            seq: None,
            told: None,
        },
        Err(LedgerError::Unknown) => Reply::Lost,
        Err(error @ (LedgerError::Overloaded | LedgerError::Unavailable(_))) => {
            let reason = error.to_string();
            if reason.contains("invariant") {
                history.alarm(reason.clone());
            }
            Reply::Refused { reason }
        }
    }
}
