//! A journal that was put back from a backup goes on with numbers that it never gave out.
//!
//! What was given out after the backup is gone from the journal but not from the world: portals keep ids, agents keep
//! sessions. So each incarnation numbers from [`Incarnation::first_id`] on.

use crate::id::{Epoch, Incarnation};
use crate::state::State;

impl State {
    pub(super) fn begin(&mut self, incarnation: Incarnation) {
        assert!(incarnation > self.rows.incarnation, "incarnations grow");
        self.rows.incarnation = incarnation;
        let first = incarnation.first_id();
        for next in [
            &mut self.rows.next_quota,
            &mut self.rows.next_licence_quota,
            &mut self.rows.next_seat,
            &mut self.rows.next_lease,
            &mut self.rows.steps.next,
        ] {
            *next = first.max(*next);
        }
        self.rows.last_epoch = self.rows.last_epoch.max(Epoch(first));
    }
}
