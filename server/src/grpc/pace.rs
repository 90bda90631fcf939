//! How fast one node's steps come into the journal, whatever sessions it has. Pure; the clock is an argument.

use std::time::Duration;

/// Steps that may come at once: more than an agent keeps.
const BURST: u64 = 1024;
/// Milliseconds in which one more may come.
const EACH_MS: u64 = 50;

/// What one node has used of it.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When all that came would have come, had it come evenly; milliseconds.
    even_ms: u64,
}

impl Pace {
    /// Counts so many more at `now_ms`, and says how long nothing more should be listened to.
    pub(super) fn take(&mut self, count: u64, now_ms: u64) -> Duration {
        self.even_ms = self.after(count, now_ms);
        let ahead = self.even_ms.saturating_sub(now_ms);
        Duration::from_millis(ahead.saturating_sub(BURST * EACH_MS))
    }

    /// Counts so many more if they may come at `now_ms`.
    ///
    /// # Errors
    /// After how long they might; then they do not count.
    pub(super) fn may(&mut self, count: u64, now_ms: u64) -> Result<(), Duration> {
        let even_ms = self.after(count, now_ms);
        let early = even_ms
            .saturating_sub(now_ms)
            .saturating_sub(BURST * EACH_MS);
        if early > 0 {
            return Err(Duration::from_millis(early));
        }
        self.even_ms = even_ms;
        Ok(())
    }

    /// Whether all that it used is made up for.
    pub(super) fn over(&self, now_ms: u64) -> bool {
        self.even_ms <= now_ms
    }

    fn after(&self, count: u64, now_ms: u64) -> u64 {
        let from = self.even_ms.max(now_ms);
        from.saturating_add(count.saturating_mul(EACH_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_kept_comes_at_once_and_then_one_by_one() {
        let mut pace = Pace::default();
        for _ in 0..BURST {
            assert_eq!(pace.take(1, 7), Duration::ZERO);
        }
        assert_eq!(pace.take(1, 7), Duration::from_millis(EACH_MS));
        assert_eq!(pace.take(1, 7 + EACH_MS), Duration::from_millis(EACH_MS));
        assert_eq!(pace.take(2, 7 + 4 * EACH_MS), Duration::ZERO);
        assert_eq!(
            pace.take(1, 7 + 4 * EACH_MS),
            Duration::from_millis(EACH_MS)
        );
        let refused = pace.may(3, 7 + 5 * EACH_MS);
        assert_eq!(refused, Err(Duration::from_millis(3 * EACH_MS)));
        assert_eq!(pace.may(1, 7 + 6 * EACH_MS), Ok(()), "it did not count");
        assert!(!pace.over(7 + 6 * EACH_MS));
        // Of a pause nothing is saved up beyond the burst.
        let later = 7 + 100 * BURST * EACH_MS;
        assert!(pace.over(later));
        assert_eq!(pace.take(BURST, later), Duration::ZERO);
        assert_eq!(pace.take(1, later), Duration::from_millis(EACH_MS));
    }
}
