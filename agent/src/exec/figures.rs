//! What `/metrics` says of commands under leases.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Answer;

/// What came of an asking, by the words of the metric's label.
pub const RESULTS: [&str; 4] = ["granted", "denied", "refused", "away"];

/// Written by who answers and who keeps, read by who scrapes.
#[derive(Debug, Default)]
pub struct Figures {
    answered: [AtomicU64; RESULTS.len()],
    held: AtomicU64,
}

impl Figures {
    /// Askings since the agent began, in the order of [`RESULTS`].
    #[must_use]
    pub fn answered(&self) -> [u64; RESULTS.len()] {
        self.answered
            .each_ref()
            .map(|it| it.load(Ordering::Relaxed))
    }

    /// Leases that are held or on their way back.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, answer: &Answer) {
        let [granted, denied, refused, away] = &self.answered;
        let counter = match answer {
            Answer::Go { .. } => granted,
            Answer::Denied { .. } => denied,
            Answer::Refused { .. } => refused,
            Answer::Busy { .. } | Answer::Away { .. } => away,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn hold(&self, leases: usize) {
        self.held.store(leases as u64, Ordering::Relaxed);
    }
}
