//! What is remembered of one violator between readings.

use std::collections::{BTreeMap, BTreeSet};

use super::step::{Process, Step};
use super::{AGAIN_MS, ATTEMPTS, MINUTE_MS};
use crate::policy::{Class, Mode};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) seen_ms: u64,
    pub(super) class: Class,
    /// The highest mode of which people were warned.
    pub(super) warned: Mode,
    /// When its mode was first one that restricts, and one that ends. Milliseconds, CLOCK_BOOTTIME.
    pub(super) restricts_ms: Option<u64>,
    pub(super) ends_ms: Option<u64>,
    /// A step above a warning was taken, and it is not verified yet.
    pub(super) last: Option<Step>,
    /// Groups that cannot be restricted, or need not be: whoever is there is ended without it.
    pub(super) unrestricted: BTreeSet<String>,
    /// Groups whose restriction did not work, how often in a row, and when last.
    pub(super) failed: BTreeMap<String, (u8, u64)>,
    /// Steps in a row whose object had gone.
    pub(super) gone: u8,
    pub(super) told: BTreeSet<String>,
    pub(super) not_before_ms: u64,
    pub(super) sent: BTreeMap<Process, Sent>,
    /// Whom the privileged half did not end.
    pub(super) spared: BTreeMap<Process, Spared>,
    pub(super) clean: u8,
    pub(super) clean_at_ms: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) term_ms: u64,
    pub(super) kill_ms: Option<u64>,
    pub(super) stuck: bool,
}

/// So many times the pause before another attempt doubles, to 320 s.
const LONGEST_PAUSE: u8 = 6;

/// Attempts to end one process that were refused or did not work.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spared {
    pub(super) times: u8,
    /// Before this there is no other. Milliseconds, CLOCK_BOOTTIME.
    pub(super) until_ms: u64,
}

impl Entry {
    /// A restriction of this group did not work.
    pub(super) fn fail(&mut self, group: &str, now_ms: u64) {
        let (times, at_ms) = self.failed.entry(group.to_owned()).or_default();
        (*times, *at_ms) = (times.saturating_add(1), now_ms);
    }

    /// It did not work so often that whoever is in this group is ended without it for a while; then it is tried again.
    pub(super) fn gave_up(&self, group: &str, now_ms: u64) -> bool {
        let failed = self.failed.get(group);
        failed
            .is_some_and(|(times, at)| *times >= ATTEMPTS && now_ms < at.saturating_add(MINUTE_MS))
    }

    /// An attempt to end it was refused or did not work: it alone waits for the next, each time for longer.
    pub(super) fn spare(&mut self, process: Process, now_ms: u64) {
        let spared = self.spared.entry(process).or_default();
        let pause = AGAIN_MS << spared.times.min(LONGEST_PAUSE);
        spared.until_ms = now_ms.saturating_add(pause);
        spared.times = spared.times.saturating_add(1);
    }

    pub(super) fn new(class: Class, now_ms: u64) -> Self {
        Self {
            seen_ms: now_ms,
            class,
            warned: Mode::Observe,
            restricts_ms: None,
            ends_ms: None,
            last: None,
            unrestricted: BTreeSet::new(),
            failed: BTreeMap::new(),
            gone: 0,
            told: BTreeSet::new(),
            not_before_ms: 0,
            sent: BTreeMap::new(),
            spared: BTreeMap::new(),
            clean: 0,
            clean_at_ms: 0,
        }
    }
}
