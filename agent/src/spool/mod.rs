//! Reports that the server has not acknowledged, kept on disk while it is away.
//!
//! Numbers start at 1 in each scope (`spool_id`) and have no gaps. A scope ends with its boot, with any loss of stored
//! records, and whenever the disk stops or starts to take writes: so a number is never given twice with two meanings.
//! The first report of a scope is a full one. Records of an ended scope are still sent, before those of the new one.
//! A disk that fails makes the agent forgetful, never silent: it goes on in memory and tries the disk again.

mod disk;
mod numbering;
mod open;
mod queue;
pub mod record;
mod recover;
pub mod remembered;

use std::path::PathBuf;
use std::sync::Arc;

use gpuquota_proto::agent_v1::{Mark, Report};
use prost::Message as _;

use crate::report::Contents;

pub use disk::SyncJob;
use disk::{Disk, Place};
use numbering::Numbering;
use queue::{Entry, Queue};
use record::{Acked, Stored};

/// Reports kept in memory as well, so that what is sent at once is not read back; bytes.
const CACHE_BYTES: usize = 256 << 10;
/// Reports kept in memory while the disk does not work, bytes.
const MEMORY_BYTES: usize = 1 << 20;
/// A drained segment is replaced once it is larger than this, bytes.
const DRAINED_BYTES: u64 = 64 << 10;
/// How often a failed disk is tried again, milliseconds.
const RETRY_MS: u64 = 60_000;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes on disk.
    pub bytes: u64,
    /// Reports.
    pub records: usize,
}

/// The next report must be a full one; make one and append that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the next report must be a full one")]
pub struct NeedsFull;

/// The queue of unacknowledged reports.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    limits: Limits,
    disk: Option<Disk>,
    writable: bool,
    numbering: Numbering,
    queue: Queue,
    retry_at_ms: Option<u64>,
}

impl Spool {
    /// Whether only a full report can be appended now.
    #[must_use]
    pub fn needs_full(&self) -> bool {
        self.numbering.needs_full()
    }

    /// Keeps a report and gives its number. `read_after` is the newest mark heard before its reading began.
    ///
    /// # Errors
    /// When the scope had to be changed and the report is not a full one.
    pub fn append(
        &mut self,
        contents: &Contents,
        at_boottime_ms: u64,
        read_after: Option<Mark>,
    ) -> Result<u64, NeedsFull> {
        loop {
            if self.needs_full() && !contents.full {
                return Err(NeedsFull);
            }
            let number = self.last_number() + 1;
            let report = self.numbering.encode(contents, read_after);
            if self.is_full(report.len()) {
                self.restart("it is full");
                continue;
            }
            let stored = Stored {
                number,
                at_boottime_ms,
                report,
            };
            let Ok(place) = self.store(&stored) else {
                continue;
            };
            let report = stored.report;
            let cached = place.is_none() || self.queue.cached_bytes() + report.len() <= CACHE_BYTES;
            self.queue.push(Entry {
                scope: Arc::clone(self.numbering.scope()),
                number,
                at_boottime_ms,
                place,
                cached: cached.then_some(report),
            });
            self.numbering.given();
            return Ok(number);
        }
    }

    /// Tries a failed disk again when it is time.
    pub fn tend(&mut self, now_ms: u64) {
        if self.writable {
            return;
        }
        let due = *self.retry_at_ms.get_or_insert(now_ms + RETRY_MS);
        if now_ms < due {
            return;
        }
        self.retry_at_ms = Some(now_ms + RETRY_MS);
        if self.disk.is_none() {
            // What an earlier run left there is too old to be sent after what was sent since.
            self.disk = Disk::open(&self.dir).ok().map(|(mut disk, _)| {
                disk.wipe();
                disk
            });
        }
        let anew = self.numbering.anew();
        if let Some(disk) = &mut self.disk
            && disk.begin(&anew.header()).is_ok()
        {
            self.numbering = anew;
            self.writable = true;
            tracing::info!(spool.dir = %self.dir.display(), "spool is on disk again");
        }
    }

    /// Everything unacknowledged is to be sent again: a new session begins.
    pub fn rewind(&mut self) {
        self.queue.rewind();
    }

    /// The next report to send while fewer than `window` are in flight, with its age where it is known.
    pub fn take_next(&mut self, window: usize, now_ms: u64) -> Option<Report> {
        if self.queue.in_flight() >= window {
            return None;
        }
        let entry = self.queue.next()?;
        let bytes = match (&entry.cached, entry.place, &self.disk) {
            (Some(bytes), _, _) => Ok(bytes.clone()),
            (None, Some(place), Some(disk)) => disk.read(place).map(|stored| stored.report),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        };
        let decoded =
            bytes.and_then(|bytes| Report::decode(bytes.as_slice()).map_err(std::io::Error::other));
        match decoded {
            Ok(mut report) => {
                if entry.scope.boot_id == self.numbering.scope().boot_id {
                    report.age_ms = Some(now_ms.saturating_sub(entry.at_boottime_ms));
                }
                self.queue.sent();
                Some(report)
            }
            Err(error) => {
                tracing::error!(%error, report.number = entry.number, "stored report cannot be read back");
                self.restart("a stored report cannot be read back");
                None
            }
        }
    }

    /// The server has everything up to this number of this scope.
    pub fn acked(&mut self, spool_id: &str, number: u64) {
        let done = self.queue.acked(spool_id, number);
        if done.is_empty() {
            return;
        }
        for entry in done {
            if let (Some(place), Some(disk)) = (entry.place, &mut self.disk) {
                disk.release(place);
            }
        }
        if !self.writable {
            return;
        }
        if let Some(disk) = &mut self.disk {
            let spool_id = spool_id.to_owned();
            disk.note_acked(&Acked { spool_id, number });
            if self.queue.len() == 0 && disk.active_bytes() > DRAINED_BYTES {
                self.begin_segment();
            }
        }
    }

    /// Gives up everything unacknowledged; the next report is full and has number 1 of a new scope.
    pub fn restart(&mut self, reason: &str) {
        tracing::warn!(
            spool.records = self.queue.len(),
            reason,
            "spool begins anew with a full report"
        );
        self.queue.clear();
        self.numbering = self.numbering.anew();
        if let Some(disk) = &mut self.disk {
            disk.wipe();
        }
        if self.writable {
            self.begin_segment();
        }
    }

    /// What has to reach the disk now; run it outside the loop.
    pub fn sync_job(&mut self) -> Option<SyncJob> {
        self.disk
            .as_mut()
            .filter(|_| self.writable)
            .and_then(Disk::sync_job)
    }

    /// A sync job failed: what the file holds is not known any more, so it is written no further.
    pub fn sync_failed(&mut self, error: &std::io::Error) {
        if self.writable {
            self.degrade(error);
        }
    }

    /// Scope of the numbers that are given now.
    #[must_use]
    pub fn spool_id(&self) -> &str {
        &self.numbering.scope().spool_id
    }

    /// Last number given in this scope; 0 before the first.
    #[must_use]
    pub fn last_number(&self) -> u64 {
        self.numbering.last()
    }

    /// The full report that the scope began with has not been acknowledged.
    #[must_use]
    pub fn first_is_unacked(&self) -> bool {
        self.queue.holds(self.spool_id(), 1)
    }

    /// Unacknowledged reports.
    #[must_use]
    pub fn records(&self) -> usize {
        self.queue.len()
    }

    /// Reports sent in this session and not acknowledged yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.disk.as_ref().map_or(0, Disk::bytes)
    }

    /// Reports are kept in memory only.
    #[must_use]
    pub fn in_memory_only(&self) -> bool {
        !self.writable
    }

    fn is_full(&self, more: usize) -> bool {
        let over = if self.writable {
            self.bytes() + more as u64 > self.limits.bytes
        } else {
            self.queue.cached_bytes() + more > MEMORY_BYTES
        };
        self.queue.len() > 0 && (over || self.queue.len() >= self.limits.records)
    }

    // Err: the disk failed just now and the scope was changed.
    fn store(&mut self, stored: &Stored) -> Result<Option<Place>, ()> {
        if !self.writable {
            return Ok(None);
        }
        let Some(disk) = &mut self.disk else {
            return Ok(None);
        };
        let header = self.numbering.header();
        match disk.append(&header, stored) {
            Ok(place) => Ok(Some(place)),
            Err(error) => {
                self.degrade(&error);
                Err(())
            }
        }
    }

    fn begin_segment(&mut self) {
        let header = self.numbering.header();
        if let Some(disk) = &mut self.disk
            && let Err(error) = disk.begin(&header)
        {
            self.degrade(&error);
        }
    }

    fn degrade(&mut self, error: &std::io::Error) {
        tracing::error!(%error, spool.dir = %self.dir.display(), "spool cannot be written, reports are kept in memory only");
        self.writable = false;
        self.retry_at_ms = None;
        self.numbering = self.numbering.anew();
        if let Some(disk) = &mut self.disk {
            disk.close();
        }
    }
}

#[cfg(test)]
mod tests;
