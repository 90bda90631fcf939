//! What is remembered of one violator between readings.

use std::collections::{BTreeMap, BTreeSet};

use super::step::{Process, Step};
use crate::policy::Class;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) since_ms: u64,
    pub(super) seen_ms: u64,
    pub(super) class: Class,
    pub(super) warned: bool,
    /// A step above a warning was taken, and it is not verified yet.
    pub(super) last: Option<Step>,
    /// Groups that cannot be restricted, or need not be: whoever is there is ended without it.
    pub(super) unrestricted: BTreeSet<String>,
    pub(super) failures: u8,
    /// Steps in a row whose object had gone.
    pub(super) gone: u8,
    pub(super) told: BTreeSet<String>,
    pub(super) not_before_ms: u64,
    pub(super) sent: BTreeMap<Process, Sent>,
    pub(super) clean: u8,
    pub(super) clean_at_ms: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) term_ms: u64,
    pub(super) kill_ms: Option<u64>,
    pub(super) stuck: bool,
}

impl Entry {
    pub(super) fn new(class: Class, now_ms: u64) -> Self {
        Self {
            since_ms: now_ms,
            seen_ms: now_ms,
            class,
            warned: false,
            last: None,
            unrestricted: BTreeSet::new(),
            failures: 0,
            gone: 0,
            told: BTreeSet::new(),
            not_before_ms: 0,
            sent: BTreeMap::new(),
            clean: 0,
            clean_at_ms: 0,
        }
    }
}
