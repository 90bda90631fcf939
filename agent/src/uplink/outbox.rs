//! Where the sampling loop leaves what is to be told and the uplink takes it: the spool, the digest of the reported
//! view, and what the server asked for.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gpuquota_proto::agent_v1::{Heartbeat, Mark, Report};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::observation::Observation;
use crate::report::Reporter;
use crate::spool::Spool;

/// Reports sent and not acknowledged, at most.
const WINDOW: usize = 64;

/// Shared by loop and uplink; every lock is short and never held over a wait.
#[derive(Debug)]
pub struct Outbox {
    inner: Mutex<Inner>,
    changed: Notify,
    unsynced: Notify,
}

#[derive(Debug)]
struct Inner {
    spool: Spool,
    digest: Vec<u8>,
    good: Option<Good>,
    /// The newest mark of this session.
    heard: Option<Mark>,
    /// The server waits for a reading that was begun after that mark.
    asked: bool,
    /// There is one, and no heartbeat has said so.
    answer: bool,
    full_wanted: bool,
    reports: u64,
}

/// The newest reading that NVML gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Good {
    /// CLOCK_BOOTTIME when it ended, milliseconds.
    pub at_boottime_ms: u64,
    /// The newest mark that had been heard before it began.
    pub read_after: Option<Mark>,
}

/// Figures of the spool for `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolFigures {
    /// Unacknowledged reports.
    pub records: usize,
    /// Bytes on disk.
    pub bytes: u64,
    /// Reports made since the agent started.
    pub reports: u64,
    /// Reports are kept in memory only.
    pub in_memory_only: bool,
}

impl Outbox {
    /// Takes the opened spool.
    #[must_use]
    pub fn new(spool: Spool) -> Self {
        Self {
            inner: Mutex::new(Inner {
                spool,
                digest: Vec::new(),
                good: None,
                heard: None,
                asked: false,
                answer: false,
                full_wanted: false,
                reports: 0,
            }),
            changed: Notify::new(),
            unsynced: Notify::new(),
        }
    }

    /// Makes the report that this observation makes due, keeps it, and says whether there was one.
    /// `unidentified` GPUs are there beside it; `good` is the newest reading, this one or an earlier one.
    pub fn tell(
        &self,
        reporter: &mut Reporter,
        observation: &Observation,
        unidentified: u32,
        good: Option<Good>,
    ) -> bool {
        let at = observation.at_boottime_ms;
        let mut inner = self.lock();
        inner.good = good;
        let fresh = good.filter(|good| good.at_boottime_ms == at);
        let read_after = fresh.and_then(|good| good.read_after);
        if inner.asked && read_after.is_some() && read_after == inner.heard {
            (inner.asked, inner.answer) = (false, true);
            self.changed.notify_one();
        }
        inner.spool.tend(at);
        if std::mem::take(&mut inner.full_wanted) {
            // In a scope of its own: whatever the server thinks of the old one, it takes the first report of a new one.
            inner.spool.restart("the server asks for it");
        }
        let full = inner.spool.needs_full();
        let Some(contents) = reporter.next(observation, unidentified, full) else {
            return false;
        };
        if inner.spool.append(&contents, at, read_after).is_err() {
            // A full report is always taken.
            let _ = inner.spool.append(&reporter.full(), at, read_after);
        }
        reporter.digest().clone_into(&mut inner.digest);
        inner.reports += 1;
        drop(inner);
        self.changed.notify_one();
        self.unsynced.notify_one();
        true
    }

    /// The server may know something wrong: the next observation makes a full report, which stands for all that is
    /// still unacknowledged.
    pub fn want_full(&self) {
        let mut inner = self.lock();
        // One that is on its way answers it: the request speaks of what was sent before.
        if !inner.spool.first_is_unacked() {
            inner.full_wanted = true;
        }
    }

    /// The server will never take what is spooled: begin anew.
    pub fn give_up(&self, reason: &str) {
        self.lock().spool.restart(reason);
    }

    /// Brings what is kept to the disk, a batch at a time and outside the loop, until `stop`. Sending does not wait for
    /// it: a power failure ends the boot and with it the scope of the numbers.
    pub async fn keep_synced(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = self.unsynced.notified() => {}
                () = stop.cancelled() => return,
            }
            let job = self.lock().spool.sync_job();
            let Some(job) = job else {
                continue;
            };
            let outcome = tokio::task::spawn_blocking(move || job.run()).await;
            if let Err(error) = outcome.unwrap_or_else(|gone| Err(io::Error::other(gone))) {
                self.lock().spool.sync_failed(&error);
            }
        }
    }

    /// For `/metrics`.
    #[must_use]
    pub fn figures(&self) -> SpoolFigures {
        let inner = self.lock();
        SpoolFigures {
            records: inner.spool.records(),
            bytes: inner.spool.bytes(),
            reports: inner.reports,
            in_memory_only: inner.spool.in_memory_only(),
        }
    }

    /// Scope of the numbers given now.
    pub(super) fn spool_id(&self) -> String {
        self.lock().spool.spool_id().to_owned()
    }

    /// A new session: everything unacknowledged is sent again, and only its own marks count.
    pub(super) fn rewind(&self, first: Option<Mark>) {
        let mut inner = self.lock();
        inner.spool.rewind();
        (inner.heard, inner.asked, inner.answer) = (first, first.is_some(), false);
    }

    /// The server says how far its journal goes, and waits for a reading begun after that.
    pub(super) fn marked(&self, mark: Mark) {
        let mut inner = self.lock();
        (inner.heard, inner.asked, inner.answer) = (Some(mark), true, false);
    }

    /// The newest mark; ask before a reading begins.
    #[must_use]
    pub fn heard(&self) -> Option<Mark> {
        self.lock().heard
    }

    /// Whether a heartbeat is due because the server waits for it; then it is due no more.
    pub(super) fn take_answer(&self) -> bool {
        std::mem::take(&mut self.lock().answer)
    }

    /// Whether `take_next` would give something.
    pub(super) fn has_next(&self) -> bool {
        let inner = self.lock();
        let in_flight = inner.spool.in_flight();
        in_flight < WINDOW && in_flight < inner.spool.records()
    }

    /// The next report to send.
    pub(super) fn take_next(&self, now_ms: u64) -> Option<Report> {
        self.lock().spool.take_next(WINDOW, now_ms)
    }

    /// The server has everything up to this number.
    pub(super) fn acked(&self, spool_id: &str, number: u64) {
        self.lock().spool.acked(spool_id, number);
    }

    /// Reports that were sent and not acknowledged.
    pub(super) fn in_flight(&self) -> usize {
        self.lock().spool.in_flight()
    }

    /// Nothing is waiting, neither to be sent nor to be acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().spool.records() == 0
    }

    /// What the next heartbeat says.
    pub(super) fn heartbeat(&self, now_ms: u64) -> Heartbeat {
        let inner = self.lock();
        // Before the first observation of this run nothing can be said of the state after the last report.
        let last_number = if inner.digest.is_empty() {
            0
        } else {
            inner.spool.last_number()
        };
        Heartbeat {
            spool_id: inner.spool.spool_id().to_owned(),
            last_number,
            holder_digest: inner.digest.clone(),
            collect_age_ms: inner
                .good
                .map(|good| now_ms.saturating_sub(good.at_boottime_ms)),
            read_after: inner.good.and_then(|good| good.read_after),
        }
    }

    /// Returns when something new may be there to send.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    // Nothing panics while it is held; what a panic left behind would still be a whole state.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
