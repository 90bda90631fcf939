//! A token bucket as one number: when the bucket will be full again.

/// How often a device may drop a holder: `burst` times at once, then once a `period_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Changes that are free after a quiet time.
    pub burst: u32,
    /// Milliseconds for one more.
    pub period_ms: u64,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            burst: 30,
            period_ms: 2000,
        }
    }
}

/// Tokens left on one device. New ones are full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at_ms: u64,
}

impl Bucket {
    /// Takes one token at `now_ms`, or says that there is none.
    pub fn take(&mut self, allowance: Allowance, now_ms: u64) -> bool {
        let after = self
            .full_at_ms
            .max(now_ms)
            .saturating_add(allowance.period_ms);
        let room = allowance
            .period_ms
            .saturating_mul(u64::from(allowance.burst));
        if after.saturating_sub(now_ms) > room {
            return false;
        }
        self.full_at_ms = after;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_steady_rate() {
        let allowance = Allowance {
            burst: 3,
            period_ms: 2000,
        };
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            assert!(bucket.take(allowance, 10_000));
        }
        assert!(!bucket.take(allowance, 10_000));
        assert!(!bucket.take(allowance, 11_999));
        assert!(bucket.take(allowance, 12_000));
        assert!(!bucket.take(allowance, 12_001));
        // A long quiet time refills to the burst, not beyond.
        for _ in 0..3 {
            assert!(bucket.take(allowance, 1_000_000));
        }
        assert!(!bucket.take(allowance, 1_000_000));
    }
}
