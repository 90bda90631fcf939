//! How busy processes keep a GPU, from the driver's samples. Pure.

/// One row of `nvmlDeviceGetProcessUtilization`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// Or the number of a vGPU.
    pub(super) pid: u32,
    /// Microseconds since 1970, by the host's clock.
    pub(super) at_us: u64,
    /// Percent of the SMs.
    pub(super) sm: u32,
    /// Percent of the memory's bandwidth.
    pub(super) memory: u32,
}

/// A sample that old says nothing of now, microseconds.
const STALE_US: u64 = 2_000_000;
/// The driver's clock is the host's; a sample from further ahead than this is none.
const AHEAD_US: u64 = 1_000_000;

/// From when on samples count for the next question: after the newest one that was seen, and not from long ago.
#[must_use]
pub(super) fn since(newest_us: u64, now_us: u64) -> u64 {
    newest_us.max(now_us.saturating_sub(STALE_US))
}

/// The newest good sample of each process, ascending by pid, and the time of the newest of all. A row is dropped when it is not newer than
/// `since_us`, lies ahead of the clock, says more than 100 %, or is nobody's.
#[must_use]
pub(super) fn newest(rows: &[Sample], since_us: u64, now_us: u64) -> (Vec<Sample>, u64) {
    let good = |row: &&Sample| {
        let told = row.at_us > since_us && row.at_us <= now_us.saturating_add(AHEAD_US);
        told && row.pid != 0 && row.sm <= 100 && row.memory <= 100
    };
    let mut kept: Vec<Sample> = rows.iter().filter(good).copied().collect();
    let latest = kept.iter().map(|row| row.at_us).max().unwrap_or(0);
    kept.sort_unstable_by_key(|row| (row.pid, std::cmp::Reverse(row.at_us)));
    kept.dedup_by_key(|row| row.pid);
    (kept, latest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_000_000_000;

    fn row(pid: u32, before_us: i64, sm: u32) -> Sample {
        Sample {
            pid,
            at_us: NOW.saturating_add_signed(-before_us),
            sm,
            memory: 1,
        }
    }

    #[test]
    fn fault_j_stale_rows_and_impossible_percents_are_dropped_and_the_newest_wins() {
        let since = since(0, NOW);
        let rows = [
            row(7, 300_000, 10),
            row(7, 100_000, 30),
            row(7, 200_000, 20),
            row(8, 50_000, 1234),
            row(8, 900_000, 40),
            row(9, 2_000_000, 50),
            row(10, -5_000_000, 60),
            row(0, 10, 70),
            Sample {
                memory: 101,
                ..row(11, 10, 5)
            },
        ];
        let (kept, latest) = newest(&rows, since, NOW);
        let told: Vec<_> = kept.iter().map(|row| (row.pid, row.sm)).collect();
        assert_eq!(told, [(7, 30), (8, 40)]);
        assert_eq!(latest, NOW - 100_000);
        // The same buffer once more tells nothing new.
        assert_eq!(newest(&rows, super::since(latest, NOW), NOW).0, []);
        assert_eq!(newest(&[], since, NOW), (Vec::new(), 0));
        assert_eq!(super::since(latest, NOW + 60_000_000), NOW + 58_000_000);
    }

    proptest! {
        #[test]
        fn no_process_stands_twice_and_none_above_100(
            rows in prop::collection::vec((0_u32..4, 0_i64..3_000_000, 0_u32..200), 0..40),
        ) {
            let rows: Vec<Sample> = rows.into_iter().map(|(pid, before, sm)| row(pid, before, sm)).collect();
            let from = since(0, NOW);
            let (kept, _) = newest(&rows, from, NOW);
            for (at, one) in kept.iter().enumerate() {
                prop_assert!(one.sm <= 100 && one.pid != 0 && one.at_us > from);
                prop_assert!(kept.iter().skip(at + 1).all(|other| other.pid != one.pid));
                let newer = |row: &&Sample| row.pid == one.pid && row.sm <= 100 && row.at_us > one.at_us;
                prop_assert!(!rows.iter().any(|row| newer(&row)));
            }
        }
    }
}
