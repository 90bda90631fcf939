//! The one place that reads clocks. Everything else gets the time as an argument.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// CLOCK_BOOTTIME, milliseconds: runs through suspend, is never set back, starts at 0 with each boot.
#[must_use]
pub fn boottime_ms() -> u64 {
    milliseconds(clock_gettime(ClockId::Boottime))
}

/// CLOCK_MONOTONIC, milliseconds. It stands still while the machine is suspended, so waking up makes no call overdue.
#[must_use]
pub(crate) fn monotonic_ms() -> u64 {
    milliseconds(clock_gettime(ClockId::Monotonic))
}

/// Wall clock, whole seconds since 1970 (UTC). For certificates only: it may jump.
#[must_use]
pub fn unix_s() -> i64 {
    clock_gettime(ClockId::Realtime).tv_sec
}

/// Wall clock, microseconds since 1970 (UTC): the clock that the driver stamps samples with. It may jump.
#[must_use]
pub(crate) fn unix_us() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000)
        .saturating_add(nanoseconds / 1000)
}

fn milliseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1000)
        .saturating_add(nanoseconds / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boottime_moves_forward() {
        let before = boottime_ms();
        std::thread::sleep(std::time::Duration::from_millis(3));
        assert!(boottime_ms() > before);
        assert!(unix_s() > 1_700_000_000);
    }

    #[test]
    fn milliseconds_are_cut_not_rounded() {
        let time = Timespec {
            tv_sec: 2,
            tv_nsec: 999_999_999,
        };
        assert_eq!(milliseconds(time), 2999);
    }
}
