//! Simulated clocks: boot time follows the paused runtime, wall time may be set for each server.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use gpuquota_server::clock::Readings;
use tokio::time::Instant;

/// Wall time at the beginning, not long before midnight: the day changes within the time of kept answers.
pub(crate) const BEGIN: i64 = 1_800_057_000_000;

/// One server machine's clocks.
#[derive(Clone, Debug)]
pub(crate) struct SimReadings {
    begin: Instant,
    set_ms: Arc<AtomicI64>,
}

impl SimReadings {
    /// `begin` is the beginning of the run; the wall clock is off by `set_ms`.
    pub(crate) fn new(begin: Instant, set_ms: i64) -> Self {
        Self {
            begin,
            set_ms: Arc::new(AtomicI64::new(set_ms)),
        }
    }

    /// Somebody sets the wall clock: it is off by so much from now on.
    pub(crate) fn set(&self, off_ms: i64) {
        self.set_ms.store(off_ms, Ordering::Relaxed);
    }
}

impl Readings for SimReadings {
    fn wall_ms(&self) -> i64 {
        BEGIN + self.boot_ms() + self.set_ms.load(Ordering::Relaxed)
    }

    fn boot_ms(&self) -> i64 {
        i64::try_from(self.begin.elapsed().as_millis()).unwrap()
    }
}
