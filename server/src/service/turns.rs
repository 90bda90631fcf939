//! When to take turns with other writers: never while alone, always while contended.
//!
//! Writers that race lose half of their appends; writers that queue for a lock lose none, but pay for it in round trips.

use std::time::Duration;

use tokio::time::Instant;

/// Others count as writing for so long after a row of theirs was seen.
const CONTENDED: Duration = Duration::from_millis(500);
/// A turn at most, before the others come.
const LENGTH: Duration = Duration::from_millis(4);
/// After a turn was not to be had, for its holder may hang.
const WITHOUT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Turns {
    others_at: Option<Instant>,
    refused_at: Option<Instant>,
    held_since: Option<Instant>,
}

impl Turns {
    /// A row of another writer was seen.
    pub(super) fn saw_others(&mut self, now: Instant) {
        self.others_at = Some(now);
    }

    /// Whether one should be taken before the next append.
    pub(super) fn wanted(&self, now: Instant) -> bool {
        self.held_since.is_none()
            && within(self.others_at, now, CONTENDED)
            && !within(self.refused_at, now, WITHOUT)
    }

    pub(super) fn taken(&mut self, now: Instant) {
        self.held_since = Some(now);
    }

    pub(super) fn refused(&mut self, now: Instant) {
        self.refused_at = Some(now);
    }

    pub(super) fn held(&self) -> bool {
        self.held_since.is_some()
    }

    /// Whether others should have it now.
    pub(super) fn over(&self, now: Instant) -> bool {
        self.held() && !within(self.held_since, now, LENGTH)
    }

    /// It was given back, or lost with the connection.
    pub(super) fn ended(&mut self) {
        self.held_since = None;
    }
}

fn within(moment: Option<Instant>, now: Instant, time: Duration) -> bool {
    moment.is_some_and(|moment| now.saturating_duration_since(moment) < time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_taken_only_while_others_write_and_end_soon() {
        let (mut turns, mut now) = (Turns::default(), Instant::now());
        assert!(!turns.wanted(now), "alone");
        turns.saw_others(now);
        assert!(turns.wanted(now));
        turns.taken(now);
        assert!(!turns.wanted(now) && !turns.over(now));
        now += LENGTH;
        assert!(turns.over(now));
        turns.ended();
        assert!(turns.wanted(now));
        turns.refused(now);
        assert!(!turns.wanted(now), "its holder may hang");
        now += WITHOUT;
        turns.saw_others(now);
        assert!(turns.wanted(now));
        now += CONTENDED;
        assert!(!turns.wanted(now), "alone again");
    }
}
