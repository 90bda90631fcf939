//! When to try again: later each time, up to a limit. Pure.

use std::time::Duration;

/// A doubling pause.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    first_ms: u64,
    most_ms: u64,
    next_ms: u64,
    due_ms: Option<u64>,
}

impl Backoff {
    pub(super) fn new((first, most): (Duration, Duration)) -> Self {
        let ms = |pause: Duration| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        Self {
            first_ms: ms(first),
            most_ms: ms(most),
            next_ms: ms(first),
            due_ms: None,
        }
    }

    /// Starts the next pause.
    pub(super) fn arm(&mut self, now_ms: u64) {
        self.due_ms = Some(now_ms.saturating_add(self.next_ms));
        self.next_ms = self.next_ms.saturating_mul(2).min(self.most_ms);
    }

    pub(super) fn armed(&self) -> bool {
        self.due_ms.is_some()
    }

    /// No pause is on, or it is over.
    pub(super) fn due(&self, now_ms: u64) -> bool {
        self.due_ms.is_none_or(|due_ms| now_ms >= due_ms)
    }

    pub(super) fn reset(&mut self) {
        self.next_ms = self.first_ms;
        self.due_ms = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit() {
        let mut backoff = Backoff::new((Duration::from_secs(1), Duration::from_secs(3)));
        assert!(backoff.due(0));
        let mut now = 0;
        for pause in [1000, 2000, 3000, 3000] {
            backoff.arm(now);
            assert!(!backoff.due(now + pause - 1));
            now += pause;
            assert!(backoff.due(now));
        }
        backoff.reset();
        backoff.arm(now);
        assert!(backoff.due(now + 1000));
    }
}
