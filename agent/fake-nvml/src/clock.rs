//! The one place that reads clocks; everything else gets time from here.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Up to this long a call burns the processor, as an ioctl into the driver does; a sleep could not be that short.
const LONGEST_SPIN: Duration = Duration::from_millis(1);

#[expect(
    clippy::disallowed_methods,
    reason = "this is the crate's clock module"
)]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the crate's clock module"
)]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds since 1970, the unit of a fault's window.
pub fn wall_millis() -> u64 {
    wall_micros() / 1000
}

/// Microseconds since 1970, the unit of NVML's sample and field timestamps.
pub(crate) fn wall_micros() -> u64 {
    let since = wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Makes the calling thread pay `cost`.
pub(crate) fn spend(cost: Duration) {
    if cost.is_zero() {
        return;
    }
    if cost > LONGEST_SPIN {
        thread::sleep(cost);
        return;
    }
    let end = monotonic() + cost;
    while monotonic() < end {
        std::hint::spin_loop();
    }
}
