//! The shared journal and each server's connection to it, with faults at every step of a write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use gpuquota_core::id::{OpId, Seq};
use gpuquota_server::store::{Appended, Base, Beat, Row, Store, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::checker::{RowEntry, What};
use crate::dice::Dice;
use crate::history::History;
use crate::link::Link;
use crate::plan::Fault;

/// How long a server waits for its turn.
const TURN: Duration = Duration::from_millis(200);

/// The durable rows.
pub(crate) struct Database {
    history: History,
    table: Mutex<Table>,
    /// One for each connection: who is woken first must not be left to chance, as it is among those that share one.
    listeners: Mutex<Vec<watch::Sender<Seq>>>,
    turn: Arc<Semaphore>,
    beats: Mutex<BTreeMap<String, Instant>>,
}

#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    operations: BTreeSet<OpId>,
    full: bool,
}

impl Database {
    pub(crate) fn new(history: History) -> Arc<Self> {
        Arc::new(Self {
            history,
            table: Mutex::default(),
            listeners: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
            beats: Mutex::default(),
        })
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.table.lock().unwrap().full = full;
    }

    // The guarded insert: all rows or none, the highest row right before the first, an operation id once.
    fn insert(&self, rows: &[Row]) -> Result<Appended, StoreError> {
        let mut table = self.table.lock().unwrap();
        let last = table.rows.last().map_or(Seq(0), |row| row.seq);
        if rows.first().is_none_or(|first| first.seq != last.next()) {
            return Ok(Appended::Behind);
        }
        if table.full {
            return Err(StoreError::Full(sqlx::Error::WorkerCrashed));
        }
        for op in rows.iter().filter_map(|row| row.op.as_ref()) {
            if !table.operations.insert(op.clone()) {
                self.history
                    .alarm(format!("operation {op} is appended twice"));
                return Err(StoreError::Fatal(sqlx::Error::WorkerCrashed));
            }
        }
        for row in rows {
            self.history.push(What::Row(RowEntry {
                seq: row.seq.0,
                at: row.at.0,
                writer: row.writer.clone(),
                op: row.op.as_ref().map(ToString::to_string),
                body: row.body.clone(),
                hash: row.hash.to_string(),
            }));
        }
        table.rows.extend_from_slice(rows);
        if let Some(last) = rows.last() {
            for listener in self.listeners.lock().unwrap().iter() {
                listener.send_replace(last.seq);
            }
        }
        Ok(Appended::Written)
    }

    fn after(&self, seq: Seq, most: u32) -> Vec<Row> {
        let table = self.table.lock().unwrap();
        let from = usize::try_from(seq.0).unwrap().min(table.rows.len());
        let rows = table.rows[from..].iter();
        rows.take(usize::try_from(most).unwrap()).cloned().collect()
    }
}

/// Where in the course of an append the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    BeforeSending,
    OnTheWay,
    BeforeAnswer,
}

/// What becomes of one append, drawn before it begins.
struct Fate {
    crash: Option<Crash>,
    /// The connection breaks after so long, whether the rows have landed or not.
    cut_after: Option<u64>,
    /// The sync fails; `true`: after the rows became durable.
    sync_fails: Option<bool>,
    twice_after: Option<u64>,
    out: u64,
    back: u64,
}

/// One server process's connection.
pub(crate) struct SimJournal {
    database: Arc<Database>,
    link: Arc<Link>,
    dice: Mutex<Dice>,
    /// Hints come, or never do.
    hints: watch::Receiver<Seq>,
    /// Appends that have not landed yet.
    under_way: watch::Sender<u32>,
    turn: Mutex<Option<OwnedSemaphorePermit>>,
}

impl SimJournal {
    pub(crate) fn new(database: Arc<Database>, link: Arc<Link>, mut dice: Dice) -> Arc<Self> {
        let (sender, hints) = watch::channel(Seq(0));
        if dice.chance(600) {
            database.listeners.lock().unwrap().push(sender);
        }
        Arc::new(Self {
            hints,
            database,
            link,
            dice: Mutex::new(dice),
            under_way: watch::Sender::new(0),
            turn: Mutex::default(),
        })
    }

    /// The connection is gone, and its turn with it.
    pub(crate) fn lost(&self) {
        self.turn.lock().unwrap().take();
    }

    fn fate(&self) -> Fate {
        let dice = &mut *self.dice.lock().unwrap();
        let mut is = |fault, in_thousand| dice.chance(in_thousand) && self.link.has(fault);
        let (crash, cut) = (is(Fault::Crash, 40), is(Fault::LostAppend, 60));
        let (sync, twice) = (is(Fault::Fsync, 15), is(Fault::TwiceAppended, 60));
        let slow = is(Fault::SlowJournal, 1000);
        let mut delay = || if slow { dice.delay() } else { dice.below(3) };
        let (out, back, again, cut_after) = (delay(), delay(), delay(), delay());
        let step = [Crash::BeforeSending, Crash::OnTheWay, Crash::BeforeAnswer];
        let (step, durable) = (dice.pick(&step), dice.chance(500));
        Fate {
            crash: crash.then_some(step),
            cut_after: cut.then_some(cut_after),
            sync_fails: sync.then_some(durable),
            twice_after: twice.then_some(again),
            out,
            back,
        }
    }

    // The statement travels alone: the server that sent it may be gone when it lands. One that was done may come again.
    fn send(
        &self,
        rows: &[Row],
        out: u64,
        sync_fails: Option<bool>,
        again: Option<u64>,
    ) -> oneshot::Receiver<Result<Appended, StoreError>> {
        let (answer, received) = oneshot::channel();
        let (database, rows) = (self.database.clone(), rows.to_vec());
        let under_way = self.under_way.clone();
        under_way.send_modify(|count| *count += 1);
        tokio::spawn(async move {
            sleep(Duration::from_millis(out)).await;
            let failed = Err(StoreError::Fatal(sqlx::Error::WorkerCrashed));
            let done = match sync_fails {
                Some(false) => failed,
                Some(true) => database.insert(&rows).and(failed),
                None => database.insert(&rows),
            };
            let again = again.filter(|_| done.is_ok());
            if again.is_none() {
                under_way.send_modify(|count| *count -= 1);
            }
            // Nobody may listen any more.
            let _ = answer.send(done);
            if let Some(again) = again {
                sleep(Duration::from_millis(again)).await;
                let _ = database.insert(&rows);
                under_way.send_modify(|count| *count -= 1);
            }
        });
        received
    }
}

#[async_trait]
impl Store for SimJournal {
    async fn rows_after(&self, seq: Seq, most: u32) -> Result<Vec<Row>, StoreError> {
        let (delay, crash) = {
            let dice = &mut *self.dice.lock().unwrap();
            let crash = dice.chance(2) && self.link.has(Fault::Crash);
            let slow = self.link.has(Fault::SlowJournal);
            (if slow { dice.delay() } else { dice.below(2) }, crash)
        };
        sleep(Duration::from_millis(delay)).await;
        if crash {
            self.link.crash("while it reads the journal").await;
        }
        if self.link.parted() {
            sleep(Duration::from_millis(100)).await;
            return Err(unreachable());
        }
        Ok(self.database.after(seq, most))
    }

    async fn append(&self, rows: &[Row]) -> Result<Appended, StoreError> {
        let fate = self.fate();
        if fate.crash == Some(Crash::BeforeSending) {
            self.link.crash("before its append is sent").await;
        }
        if self.link.parted() {
            self.lost();
            sleep(Duration::from_millis(100)).await;
            return Err(unreachable());
        }
        let mut answer = self.send(rows, fate.out, fate.sync_fails, fate.twice_after);
        if fate.crash == Some(Crash::OnTheWay) {
            self.link.crash("while its append is on the way").await;
        }
        if let Some(cut_after) = fate.cut_after {
            sleep(Duration::from_millis(cut_after)).await;
            return Err(unknown());
        }
        let done = (&mut answer).await.unwrap();
        if fate.crash == Some(Crash::BeforeAnswer) {
            self.link.crash("before its append is answered").await;
        }
        sleep(Duration::from_millis(fate.back)).await;
        if self.link.parted() {
            return Err(unknown());
        }
        done
    }

    async fn catch_up(&self, seq: Seq, most: u32) -> Result<Vec<Row>, StoreError> {
        let mut under_way = self.under_way.subscribe();
        under_way.wait_for(|count| *count == 0).await.unwrap();
        self.rows_after(seq, most).await
    }

    async fn last(&self) -> Result<Option<Row>, StoreError> {
        Ok(self.database.after(Seq(0), u32::MAX).pop())
    }

    // Nobody archives here, so the journal begins with its first row.
    async fn base(&self) -> Result<Option<Base>, StoreError> {
        Ok(None)
    }

    async fn put_base(&self, base: &Base) -> Result<(), StoreError> {
        unreachable!("a base at {} in the simulation", base.seq)
    }

    async fn drop_archived(&self, base: &Base) -> Result<u64, StoreError> {
        unreachable!("an archive up to {} in the simulation", base.seq)
    }

    fn hints(&self) -> Option<watch::Receiver<Seq>> {
        Some(self.hints.clone())
    }

    async fn take_turn(&self) -> Result<(), StoreError> {
        if self.link.parted() {
            return Err(unreachable());
        }
        let free = self.database.turn.clone().acquire_owned();
        match timeout(TURN, free).await {
            Ok(permit) => {
                *self.turn.lock().unwrap() = Some(permit.unwrap());
                Ok(())
            }
            Err(_) => Err(StoreError::Busy(sqlx::Error::PoolTimedOut)),
        }
    }

    async fn end_turn(&self) {
        self.lost();
    }

    async fn beat(&self, writer: &str) -> Result<Vec<Beat>, StoreError> {
        if self.link.parted() {
            return Err(unreachable());
        }
        let mut beats = self.database.beats.lock().unwrap();
        beats.insert(writer.to_owned(), Instant::now());
        let beats = beats.iter().map(|(writer, at)| Beat {
            writer: writer.clone(),
            age_ms: u64::try_from(at.elapsed().as_millis()).unwrap(),
        });
        Ok(beats.collect())
    }

    async fn close(&self) {}
}

// The database was not reached; nothing was written.
fn unreachable() -> StoreError {
    StoreError::Unavailable(sqlx::Error::PoolTimedOut)
}

// The connection broke after sending.
fn unknown() -> StoreError {
    StoreError::Unknown(sqlx::Error::WorkerCrashed)
}
