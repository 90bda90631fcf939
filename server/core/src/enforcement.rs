//! How far the agents go about what the ledger does not justify: said for everything, a region, a tenant or a quota, and
//! lowered by maintenance windows. Pure; times are UTC.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::id::{QuotaId, Region, TenantName, Timestamp};
use crate::state::State;

/// Windows of one rule at most.
pub const MOST_WINDOWS: usize = 32;

const MINUTE_MS: i64 = 60 * 1000;
const DAY_MINUTES: i64 = 24 * 60;
const WEEK_MS: i64 = 7 * DAY_MINUTES * MINUTE_MS;
/// 1970-01-01 was a Thursday.
const FIRST_DAY: i64 = 3;

/// How far a step may go.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Rows and metrics.
    #[default]
    Observe,
    /// And people are told.
    Warn,
    /// And new opens of the device are denied.
    Restrict,
    /// And its processes there are ended.
    Evict,
}

impl Mode {
    /// The word of the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Warn => "warn",
            Self::Restrict => "restrict",
            Self::Evict => "evict",
        }
    }
}

/// A day of the week, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weekday {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Weekday {
    // Days since Monday.
    fn number(self) -> i64 {
        match self {
            Self::Mon => 0,
            Self::Tue => 1,
            Self::Wed => 2,
            Self::Thu => 3,
            Self::Fri => 4,
            Self::Sat => 5,
            Self::Sun => 6,
        }
    }
}

/// A time in which nothing above warn happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Window {
    /// On these days of each week.
    Weekly {
        /// Days on which it begins.
        days: BTreeSet<Weekday>,
        /// When it begins, minutes after midnight UTC, below 1440.
        start_minute: u16,
        /// How long it is, minutes, 1 to 10080.
        minutes: u16,
    },
    /// Once.
    Once {
        /// Its first moment.
        from: Timestamp,
        /// The first moment after it.
        until: Timestamp,
    },
}

impl Window {
    /// Whether it is open.
    #[must_use]
    pub fn open(&self, now: Timestamp) -> bool {
        match self {
            Self::Weekly { days, minutes, .. } => {
                let length = i64::from(*minutes) * MINUTE_MS;
                days.iter().any(|day| self.since(*day, now) < length)
            }
            Self::Once { from, until } => *from <= now && now < *until,
        }
    }

    /// The next moment at which it opens or closes.
    #[must_use]
    pub fn edge(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Weekly { days, minutes, .. } => {
                let length = i64::from(*minutes) * MINUTE_MS;
                let edge = |day: &Weekday| {
                    let since = self.since(*day, now);
                    let end = if since < length { length } else { WEEK_MS };
                    Timestamp(now.0.saturating_add(end - since))
                };
                days.iter().map(edge).min()
            }
            Self::Once { from, until } => {
                [*from, *until].into_iter().filter(|edge| *edge > now).min()
            }
        }
    }

    // Milliseconds since it last began on that day, less than a week.
    fn since(&self, day: Weekday, now: Timestamp) -> i64 {
        let Self::Weekly { start_minute, .. } = self else {
            return WEEK_MS;
        };
        let begins = (day.number() * DAY_MINUTES + i64::from(*start_minute)) * MINUTE_MS;
        let monday = now.0.rem_euclid(WEEK_MS) + FIRST_DAY * DAY_MINUTES * MINUTE_MS;
        (monday - begins).rem_euclid(WEEK_MS)
    }
}

/// What one place says: how far, how slowly, and when not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enforcement {
    /// How far.
    pub mode: Mode,
    /// From when the agent first saw it to the first step above warn, milliseconds.
    pub grace_ms: u64,
    /// From SIGTERM to SIGKILL, milliseconds.
    pub term_grace_ms: u64,
    /// When nothing above warn happens; [`MOST_WINDOWS`] at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
}

impl Default for Enforcement {
    fn default() -> Self {
        Self {
            mode: Mode::Observe,
            grace_ms: 60 * 1000,
            term_grace_ms: 30 * 1000,
            windows: Vec::new(),
        }
    }
}

/// Beyond it steps wait for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// Processes of one tenant that are ended in one minute, over all nodes, at most.
    pub processes: u32,
    /// So much of the devices that a tenant holds is acted upon in one minute at most, per cent; one device always may.
    pub percent: u32,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            processes: 8,
            percent: 50,
        }
    }
}

/// What the operator chose about enforcement for the whole ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enforcing {
    /// Where nothing below says.
    pub usual: Enforcement,
    /// How far to go about processes of nobody that the rules know.
    pub unattributed: Mode,
    /// How long an agent that is cut off acts by the last policy, milliseconds, 1 or more.
    pub policy_valid_ms: u64,
    /// Beyond it steps wait for a person.
    pub guard: Guard,
}

impl Default for Enforcing {
    fn default() -> Self {
        Self {
            usual: Enforcement::default(),
            unattributed: Mode::Observe,
            policy_valid_ms: 10 * 60 * 1000,
            guard: Guard::default(),
        }
    }
}

impl Enforcing {
    /// Whether nobody chose anything.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Who said how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SaidBy {
    /// The quota that the device counts against.
    Quota,
    /// The tenant.
    Tenant,
    /// The region.
    Region,
    /// The settings.
    Settings,
}

impl SaidBy {
    /// The word of the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quota => "quota",
            Self::Tenant => "tenant",
            Self::Region => "region",
            Self::Settings => "settings",
        }
    }
}

impl State {
    /// What holds for a tenant there: as its quota says, else the tenant, else the region, else the settings.
    #[must_use]
    pub fn enforcement(
        &self,
        tenant: &TenantName,
        region: &Region,
        quota: Option<QuotaId>,
    ) -> (&Enforcement, SaidBy) {
        let of_quota = quota.and_then(|quota| self.quota(quota)?.enforcement.as_ref());
        let of_tenant = || self.tenant(tenant)?.profile.enforcement.as_ref();
        match (of_quota, of_tenant()) {
            (Some(own), _) => (own, SaidBy::Quota),
            (None, Some(own)) => (own, SaidBy::Tenant),
            (None, None) => self.regional_enforcement(region),
        }
    }

    /// What holds in a region for whoever has no word of his own.
    #[must_use]
    pub fn regional_enforcement(&self, region: &Region) -> (&Enforcement, SaidBy) {
        let own = self
            .region(region)
            .and_then(|region| region.enforcement.as_ref());
        match own {
            Some(own) => (own, SaidBy::Region),
            None => (&self.settings().enforcing.usual, SaidBy::Settings),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 60 * MINUTE_MS;
    /// 2026-11-23 00:00 UTC, a Monday.
    const MONDAY: i64 = 1_795_392_000_000;

    fn weekly(days: &[Weekday], start_minute: u16, minutes: u16) -> Window {
        Window::Weekly {
            days: days.iter().copied().collect(),
            start_minute,
            minutes,
        }
    }

    #[test]
    fn a_weekly_window_goes_past_midnight_and_past_the_week() {
        let window = weekly(&[Weekday::Sun], 23 * 60, 120);
        for (hours, open) in [(0, true), (1, false), (-1, true), (-2, false), (24, false)] {
            assert_eq!(
                window.open(Timestamp(MONDAY + hours * HOUR)),
                open,
                "{hours}"
            );
        }
        assert_eq!(
            window.edge(Timestamp(MONDAY)),
            Some(Timestamp(MONDAY + HOUR))
        );
        let next = MONDAY + (7 * 24 - 1) * HOUR;
        assert_eq!(window.edge(Timestamp(MONDAY + HOUR)), Some(Timestamp(next)));
        let monday = weekly(&[Weekday::Mon], 0, 60);
        assert!(monday.open(Timestamp(MONDAY)) && !monday.open(Timestamp(MONDAY - 1)));
    }

    proptest! {
        #[test]
        fn a_window_changes_at_its_next_edge_and_not_before(
            start in 0_u16..1440, minutes in 1_u16..=10_080, at in 0_i64..WEEK_MS, part in 0.0..1.0_f64,
            days in proptest::sample::subsequence(vec![Weekday::Mon, Weekday::Thu, Weekday::Sun], 1..=3),
        ) {
            let window = weekly(&days, start, minutes);
            let now = Timestamp(MONDAY + at);
            let edge = window.edge(now).unwrap();
            prop_assert!(edge > now);
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "somewhere between")]
            let between = now.0 + ((edge.0 - 1 - now.0) as f64 * part) as i64;
            prop_assert_eq!(window.open(Timestamp(between)), window.open(now));
        }
    }
}
