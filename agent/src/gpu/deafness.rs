//! Whether a worker should listen for driver events, after what became of those that did. Pure.

use std::time::Duration;

use super::backoff::Backoff;

/// Readings after which a worker that listens has stood the test.
const PROOF: u32 = 60;
/// Deaths of workers that listened, one soon after its start each, after which listening is suspected.
const DEATHS: u32 = 2;

#[derive(Debug)]
pub(super) struct Deafness {
    wanted: bool,
    pause: Backoff,
    deaths: u32,
}

impl Deafness {
    /// `pauses`: the first and the longest; `None`: never listen.
    pub(super) fn new(pauses: Option<(Duration, Duration)>) -> Self {
        Self {
            wanted: pauses.is_some(),
            pause: Backoff::new(pauses.unwrap_or_default()),
            deaths: 0,
        }
    }

    /// The next worker is to listen.
    pub(super) fn listens(&self, now_ms: u64) -> bool {
        self.wanted && self.pause.due(now_ms)
    }

    /// A worker that listened was stuck in a call for events when it was given up: what it held may have stopped the rest.
    pub(super) fn hung(&mut self, now_ms: u64) {
        self.pause.arm(now_ms);
    }

    /// A worker that listened died after its first reading.
    pub(super) fn died(&mut self, now_ms: u64) {
        self.deaths = self.deaths.saturating_add(1);
        if self.deaths >= DEATHS {
            self.pause.arm(now_ms);
        }
    }

    /// A worker that listens has given so many readings.
    pub(super) fn lived(&mut self, readings: u32) {
        if readings >= PROOF {
            self.deaths = 0;
            self.pause.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_is_given_up_for_a_while_and_tried_again() {
        let second = Duration::from_secs(1);
        let mut deafness = Deafness::new(Some((second, second * 4)));
        assert!(deafness.listens(0));
        deafness.died(0);
        assert!(deafness.listens(0), "anything may have killed one");
        deafness.died(0);
        assert!(!deafness.listens(999) && deafness.listens(1000));
        deafness.died(1000);
        assert!(!deafness.listens(2999) && deafness.listens(3000));
        deafness.lived(PROOF);
        deafness.died(3000);
        assert!(deafness.listens(3000));
        deafness.hung(3000);
        assert!(!deafness.listens(3999));
        assert!(!Deafness::new(None).listens(0));
    }
}
