//! Quotas that are put out of force and back into it.

use super::done;
use crate::command::{Decision, OnExcess, Outcome, SwitchQuota};
use crate::event::Event;
use crate::explain::Denied;
use crate::id::Timestamp;
use crate::quota::Quota;
use crate::state::State;

impl State {
    /// Whether nothing but what is leased stands against binding the nodes of a quota now.
    pub(super) fn may_bind(&self, quota: &Quota) -> bool {
        let (key, nodes) = (&quota.key, &quota.nodes);
        self.check_bindings(key, nodes).is_ok()
            && self.check_host_limits(Some(quota), key, nodes).is_ok()
    }

    // Out of force it is asked what a quota of 0 is; back in force, what one is asked that is made anew.
    pub(super) fn decide_switch_quota(
        &self,
        switch: SwitchQuota,
        now: Timestamp,
    ) -> Result<Decision, Denied> {
        let old = self.quota(switch.quota).ok_or(Denied::NoSuchQuota)?;
        let outcome = Outcome::Quota(old.id);
        if old.switched_off != switch.active {
            return Ok(Decision {
                outcome,
                ..done(Vec::new())
            });
        }
        let new = Quota {
            switched_off: !switch.active,
            ..old.clone()
        };
        let mut events = vec![Event::QuotaSwitched {
            quota: old.id,
            active: switch.active,
        }];
        if new.in_force() {
            self.check_bindings(&new.key, &new.nodes)?;
            self.check_host_limits(Some(old), &new.key, &new.nodes)?;
            events.extend(self.displaced(&new.key.tenant, &new.nodes, switch.on_excess, now)?);
        }
        match switch.on_excess {
            OnExcess::Deny => self.check_excess(Some(old), &new)?,
            OnExcess::Drain => {}
        }
        Ok(Decision { events, outcome })
    }
}
