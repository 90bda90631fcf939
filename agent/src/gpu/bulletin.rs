//! What the listening thread leaves for the threads that answer.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::event::{Ear, EventsState, Happening, News, Tally};

#[derive(Debug, Default)]
pub(super) struct Bulletin {
    board: Mutex<Board>,
}

#[derive(Debug, Default)]
struct Board {
    tally: Tally,
    heard: u64,
    mig_changed: bool,
}

impl Bulletin {
    pub(super) fn add(&self, uuid: &str, what: Happening, gi: Option<u32>, ci: Option<u32>) {
        let mut board = self.lock();
        board.heard = board.heard.saturating_add(1);
        board.mig_changed |= what == Happening::MigChange;
        board.tally.add(uuid, what, gi, ci);
    }

    pub(super) fn set_state(&self, state: EventsState) {
        self.lock().tally.set_state(state);
    }

    /// What became of each GPU, and so of all.
    pub(super) fn set_gpus(&self, state: EventsState, gpus: BTreeMap<String, Ear>) {
        let mut board = self.lock();
        board.tally.set_gpus(gpus);
        board.tally.set_state(state);
    }

    /// Events since the start.
    pub(super) fn heard(&self) -> u64 {
        self.lock().heard
    }

    /// Whether the MIG layout has changed since this was last asked.
    pub(super) fn take_mig_change(&self) -> bool {
        std::mem::take(&mut self.lock().mig_changed)
    }

    /// What has not been told.
    pub(super) fn take(&self) -> Option<News> {
        self.lock().tally.take()
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
