//! The only place of the server that reads a clock.
//!
//! Wall time dates what is journalled; boot time (it runs on while the machine sleeps) tells how long something lasted.
//! When the two part by more than five minutes somebody set the clock: no time is given out until a restart confirms it,
//! because a wrong clock could expire everything for ever.

use std::sync::atomic::{AtomicBool, Ordering};

use gpuquota_core::id::Timestamp;
use rustix::time::{ClockId, clock_gettime};

const JUMP_MS: i64 = 5 * 60 * 1000;

/// The wall clock jumped against the boot clock by so many milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the wall clock jumped by {0} ms; nothing is written until the server is restarted with a right clock"
)]
pub struct ClockJump(pub i64);

/// Time as the server reads it.
pub trait Clock: Send + Sync + 'static {
    /// Wall time, checked against the boot clock.
    ///
    /// # Errors
    /// After a jump.
    fn now(&self) -> Result<Timestamp, ClockJump>;

    /// Wall time for display and token checks, unchecked.
    fn wall(&self) -> Timestamp;

    /// Milliseconds that only ever grow.
    fn boot_ms(&self) -> u64;
}

/// What the clocks show, as nobody has checked it.
pub trait Readings: Send + Sync + 'static {
    /// Milliseconds since 1970; somebody may set it.
    fn wall_ms(&self) -> i64;

    /// Milliseconds since the machine started, sleep included.
    fn boot_ms(&self) -> i64;
}

/// The kernel's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

impl Readings for Kernel {
    fn wall_ms(&self) -> i64 {
        read(ClockId::Realtime)
    }

    fn boot_ms(&self) -> i64 {
        read(ClockId::Boottime)
    }
}

/// The machine's clocks.
pub type SystemClock = CheckedClock<Kernel>;

/// Clocks that give out no wall time after a jump.
#[derive(Debug)]
pub struct CheckedClock<R> {
    readings: R,
    offset_ms: i64,
    jumped: AtomicBool,
}

impl<R: Readings> CheckedClock<R> {
    /// Takes what `readings` show now as right.
    #[must_use]
    pub fn new(readings: R) -> Self {
        Self {
            offset_ms: readings.wall_ms() - readings.boot_ms(),
            readings,
            jumped: AtomicBool::new(false),
        }
    }
}

impl<R: Readings + Default> Default for CheckedClock<R> {
    fn default() -> Self {
        Self::new(R::default())
    }
}

impl<R: Readings> Clock for CheckedClock<R> {
    fn now(&self) -> Result<Timestamp, ClockJump> {
        let wall = self.readings.wall_ms();
        let jump = wall - self.readings.boot_ms() - self.offset_ms;
        if jump.abs() > JUMP_MS {
            if !self.jumped.swap(true, Ordering::Relaxed) {
                tracing::error!(clock.jump_ms = jump, "the wall clock jumped; writing stops");
            }
            return Err(ClockJump(jump));
        }
        Ok(Timestamp(wall))
    }

    fn wall(&self) -> Timestamp {
        Timestamp(self.readings.wall_ms())
    }

    fn boot_ms(&self) -> u64 {
        u64::try_from(self.readings.boot_ms()).unwrap_or(0)
    }
}

fn read(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}
