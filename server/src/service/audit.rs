//! Denials for the audit. The ledger did not change, so they are no journal rows; they are counted by who asked, which
//! rule spoke and in which minute, and a minute that is over is logged. What was granted is in the journal itself.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gpuquota_core::id::{TenantName, Timestamp};

const MINUTE_MS: i64 = 60_000;
/// Minutes that can be read back.
const KEPT_MINUTES: i64 = 60;
/// Different denials of one minute that are told apart; what is beyond is counted together.
const MOST_A_MINUTE: usize = 1000;

/// Who was denied what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Denial {
    /// As the journal names callers; `anybody` before one is known.
    pub actor: String,
    /// The rule or the kind of failure.
    pub rule: String,
    /// Whom it was about, where that is known.
    pub tenant: Option<TenantName>,
    /// Address that the call came from.
    pub from: Option<String>,
}

/// What the last of several denials was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Last {
    /// Request id.
    pub request_id: String,
    /// What the caller was told.
    pub message: String,
    /// Method and pattern of the path; `None`: there is no such path.
    pub route: Option<String>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
}

/// How often, and what was said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Times in this minute.
    pub count: u64,
    /// The last of them.
    pub last: Last,
}

/// Denials of the last hour.
#[derive(Debug, Default)]
pub struct Denials(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    minutes: BTreeMap<i64, BTreeMap<Denial, Told>>,
    logged: Option<i64>,
}

impl Denials {
    /// Counts a denial at `now`.
    pub fn count(&self, now: Timestamp, denial: Denial, last: Last) {
        let minute = now.0.div_euclid(MINUTE_MS);
        let mut kept = self.lock();
        kept.log_before(minute);
        let of_minute = kept.minutes.entry(minute).or_default();
        let full = of_minute.len() >= MOST_A_MINUTE && !of_minute.contains_key(&denial);
        let denial = if full {
            Denial {
                actor: "others".into(),
                rule: "any".into(),
                tenant: None,
                from: None,
            }
        } else {
            denial
        };
        let told = of_minute.entry(denial).or_insert_with(|| Told {
            count: 0,
            last: Last::default(),
        });
        told.count += 1;
        told.last = last;
    }

    /// Logs the minutes that are over at `now`, and forgets those that are too old.
    pub fn pass(&self, now: Timestamp) {
        self.lock().log_before(now.0.div_euclid(MINUTE_MS));
    }

    /// Logs all that is not logged yet, and forgets it: the server stops.
    pub fn flush(&self) {
        self.lock().log_before(i64::MAX);
    }

    /// The last hour, newest minute first: its begin, who was denied what, how often.
    #[must_use]
    pub fn last_hour(&self) -> Vec<(Timestamp, Denial, Told)> {
        let kept = self.lock();
        let minutes = kept.minutes.iter().rev();
        let rows = minutes.flat_map(|(minute, denials)| {
            let begin = Timestamp(minute.saturating_mul(MINUTE_MS));
            let denials = denials.iter();
            denials.map(move |(denial, told)| (begin, denial.clone(), told.clone()))
        });
        rows.collect()
    }

    // Plain data: a panic elsewhere leaves nothing half done in it.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn log_before(&mut self, minute: i64) {
        let unlogged = self.logged.map_or(i64::MIN, |logged| logged + 1);
        if unlogged < minute {
            for denials in self.minutes.range(unlogged..minute).map(|(_, it)| it) {
                for (denial, told) in denials {
                    let (actor, rule, from) = (&denial.actor, &denial.rule, denial.from.as_deref());
                    let tenant = denial.tenant.as_ref().map(TenantName::as_str);
                    let last = &told.last;
                    tracing::info!(
                        audit.actor = %actor, audit.rule = %rule, audit.tenant = tenant, audit.from = from,
                        audit.count = told.count, audit.route = last.route.as_deref(),
                        audit.reason = last.reason.as_deref(), request.id = %last.request_id,
                        audit.message = %last.message, "denied"
                    );
                }
            }
            self.logged = Some(minute - 1);
        }
        let oldest = minute.saturating_sub(KEPT_MINUTES);
        self.minutes = self.minutes.split_off(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(actor: &str) -> Denial {
        Denial {
            actor: actor.into(),
            rule: "over_quota".into(),
            tenant: None,
            from: Some("192.0.2.1".into()),
        }
    }

    #[test]
    fn denials_are_counted_by_minute_and_forgotten_after_an_hour() {
        let denials = Denials::default();
        let at = |minute: i64| Timestamp(minute * MINUTE_MS + 5);
        for (minute, actor) in [(0, "a"), (0, "a"), (0, "b"), (1, "a")] {
            denials.count(at(minute), denial(actor), Last::default());
        }
        let rows = denials.last_hour();
        let rows = rows.iter();
        let counts: Vec<_> = rows
            .map(|(begin, denial, told)| (begin.0 / MINUTE_MS, denial.actor.as_str(), told.count))
            .collect();
        assert_eq!(counts, [(1, "a", 1), (0, "a", 2), (0, "b", 1)]);
        denials.pass(at(60));
        assert_eq!(denials.last_hour().len(), 3);
        denials.pass(at(61));
        assert_eq!(denials.last_hour().len(), 1);
    }

    #[test]
    fn one_minute_tells_only_so_many_apart_and_loses_none() {
        let denials = Denials::default();
        for number in 0..2 * MOST_A_MINUTE {
            denials.count(Timestamp(1), denial(&number.to_string()), Last::default());
        }
        let rows = denials.last_hour();
        assert_eq!(rows.len(), MOST_A_MINUTE + 1);
        let total: u64 = rows.iter().map(|(.., told)| told.count).sum();
        assert_eq!(total, 2 * MOST_A_MINUTE as u64);
    }
}
