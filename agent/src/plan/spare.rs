//! How much may be asked for at once.

use super::step::{Rung, Step};
use super::{Able, MINUTE_MS, Plan};

impl Plan {
    /// Cuts what is to be asked for down to what one message and one minute may hold, and counts it: a policy that is
    /// wrong must not empty the node at once, whoever sent it.
    pub fn spare(&mut self, able: &Able, now_ms: u64, ask: &mut Vec<Step>) {
        for times in self.ended.values_mut() {
            times.retain(|at| now_ms.saturating_sub(*at) < MINUTE_MS);
        }
        self.ended.retain(|_, times| !times.is_empty());
        let ended = &mut self.ended;
        ask.retain(|step| {
            // Who was told to go before is not counted again.
            if step.rung != Rung::Term {
                return true;
            }
            let times = ended.entry(step.whom.tenant.clone()).or_default();
            let room = times.len() < able.ended_per_minute;
            if room {
                times.push_back(now_ms);
            }
            room
        });
        // Whoever is denied first starts nothing anew; nobody's many keep another's few waiting.
        ask.sort_by_key(|step| step.rung != Rung::Restrict);
        ask.truncate(gpuquota_proto::STEPS_PER_INTENT);
    }
}
