//! How long to wait before the next attempt: full jitter, so that agents cut off together do not come back together.

use std::time::Duration;

use rand::Rng as _;

/// The waits after a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// Upper bound of the first wait; it doubles with each failure.
    pub first: Duration,
    /// Upper bound of all waits.
    pub longest: Duration,
    /// A session that lived this long makes the next failure the first one again.
    pub stable_after: Duration,
    /// Between half of this and this after the server refused this node or its message.
    pub refused: Duration,
    /// Between half of this and this after a newer session of the same node took over.
    pub contended: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(15),
            stable_after: Duration::from_secs(10),
            refused: Duration::from_secs(30),
            contended: Duration::from_secs(10),
        }
    }
}

/// Counts failures in a row.
#[derive(Debug)]
pub struct Backoff {
    waits: Waits,
    failures: u32,
}

impl Backoff {
    /// No failure yet.
    #[must_use]
    pub fn new(waits: Waits) -> Self {
        Self { waits, failures: 0 }
    }

    /// A session lived long enough to count as one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure: anything up to the bound.
    pub fn lost(&mut self) -> Duration {
        let bound = self
            .waits
            .first
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .min(self.waits.longest);
        self.failures = self.failures.saturating_add(1).min(31);
        rand::rng().random_range(Duration::ZERO..=bound)
    }

    /// The wait after a refusal.
    #[must_use]
    pub fn refused(&self) -> Duration {
        upper_half(self.waits.refused)
    }

    /// The wait after another session of this node took over.
    #[must_use]
    pub fn contended(&self) -> Duration {
        upper_half(self.waits.contended)
    }
}

fn upper_half(longest: Duration) -> Duration {
    rand::rng().random_range(longest / 2..=longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_are_spread() {
        let mut backoff = Backoff::new(Waits::default());
        for failure in 0..200_u32 {
            let bound = Duration::from_millis(100 << failure.min(10)).min(Waits::default().longest);
            assert!(backoff.lost() <= bound, "{failure}");
        }
        let many: Vec<Duration> = (0..500).map(|_| backoff.lost()).collect();
        let early = many
            .iter()
            .filter(|wait| **wait < Duration::from_secs(5))
            .count();
        assert!((100..250).contains(&early), "{early}");
        backoff.reset();
        assert!(backoff.lost() <= Duration::from_millis(100));
        assert!((15..=30).contains(&backoff.refused().as_secs()));
        assert!((5..=10).contains(&backoff.contended().as_secs()));
    }
}
