//! How fast one agent's steps come into the journal. Pure; the clock is an argument.

use std::time::Duration;

/// Steps that may come at once: more than an agent keeps.
const BURST: u64 = 1024;
/// Milliseconds in which one more may come.
const EACH_MS: u64 = 50;

/// What one session has used of it.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When all that came would have come, had it come evenly; milliseconds.
    even_ms: u64,
}

impl Pace {
    /// How long so many more have to wait at `now_ms`. They count from then on.
    pub(super) fn take(&mut self, count: u64, now_ms: u64) -> Duration {
        let from = self.even_ms.max(now_ms);
        self.even_ms = from.saturating_add(count.saturating_mul(EACH_MS));
        let ahead = self.even_ms.saturating_sub(now_ms);
        Duration::from_millis(ahead.saturating_sub(BURST * EACH_MS))
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
        // Of a pause nothing is saved up beyond the burst.
        let later = 7 + 100 * BURST * EACH_MS;
        assert_eq!(pace.take(BURST, later), Duration::ZERO);
        assert_eq!(pace.take(1, later), Duration::from_millis(EACH_MS));
    }
}
