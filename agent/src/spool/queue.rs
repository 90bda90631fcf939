//! Unacknowledged reports in their order, with what is in flight and what is kept in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use super::disk::Place;
use super::record::Header;

/// One report.
#[derive(Debug)]
pub(super) struct Entry {
    /// The scope of its number.
    pub(super) scope: Arc<Header>,
    /// Its number there.
    pub(super) number: u64,
    /// CLOCK_BOOTTIME of the observation, milliseconds.
    pub(super) at_boottime_ms: u64,
    /// Where it lies on disk, if it does.
    pub(super) place: Option<Place>,
    /// Its bytes, if they are kept in memory.
    pub(super) cached: Option<Vec<u8>>,
}

/// The queue. The first `in_flight` entries were sent in this session.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    in_flight: usize,
    cached_bytes: usize,
}

impl Queue {
    pub(super) fn push(&mut self, entry: Entry) {
        self.cached_bytes += entry.cached.as_ref().map_or(0, Vec::len);
        self.entries.push_back(entry);
    }

    /// The first one that was not sent.
    pub(super) fn next(&self) -> Option<&Entry> {
        self.entries.get(self.in_flight)
    }

    /// The first one that was not sent now was.
    pub(super) fn sent(&mut self) {
        self.in_flight = (self.in_flight + 1).min(self.entries.len());
    }

    /// A new session: nothing was sent in it.
    pub(super) fn rewind(&mut self) {
        self.in_flight = 0;
    }

    /// Takes out everything up to this number of this scope. Scopes are in order, so those before it are done as well.
    pub(super) fn acked(&mut self, spool_id: &str, number: u64) -> Vec<Entry> {
        let last = self
            .entries
            .iter()
            .rposition(|entry| entry.scope.spool_id == spool_id && entry.number <= number);
        let count = last.map_or(0, |last| last + 1);
        let done: Vec<Entry> = self.entries.drain(..count).collect();
        self.in_flight = self.in_flight.saturating_sub(count);
        self.cached_bytes -= done
            .iter()
            .filter_map(|entry| entry.cached.as_ref())
            .map(Vec::len)
            .sum::<usize>();
        done
    }

    /// Whether this report is among them.
    pub(super) fn holds(&self, spool_id: &str, number: u64) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.number == number && entry.scope.spool_id == spool_id)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Bytes kept in memory.
    pub(super) fn cached_bytes(&self) -> usize {
        self.cached_bytes
    }
}
