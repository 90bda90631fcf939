//! The newest policy, and how long it may be followed. Times are CLOCK_BOOTTIME in milliseconds: a wall clock that is
//! wrong makes no policy older or younger.

use std::sync::Arc;

use super::{Policy, Version};

/// Longest time that a policy may be followed without the server, milliseconds: a week.
const LONGEST_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// What the agent goes by.
#[derive(Clone, Debug, Default)]
pub struct Held {
    newest: Option<(Arc<Policy>, u64)>,
    /// A session began, and its first policy has not come.
    first: bool,
}

/// How the newest policy stands at some moment.
#[derive(Clone, Debug)]
pub enum Standing {
    /// None has come since the agent began.
    Never,
    /// It holds.
    Valid(Arc<Policy>),
    /// The server was not heard for longer than it allowed.
    Ended(Arc<Policy>),
}

impl Held {
    /// A session began. Its server may have noticed a change some rows earlier or later than the one before: of its first
    /// policy only the incarnation is compared.
    pub fn session_began(&mut self) {
        self.first = true;
    }

    /// A policy came. One that is older than what is known, by incarnation and row, is not taken; `false`.
    pub fn came(&mut self, policy: Policy, now_ms: u64) -> bool {
        let first = self.first;
        let older = |(known, _): &(Arc<Policy>, u64)| match first {
            true => policy.version.incarnation < known.version.incarnation,
            false => policy.version < known.version,
        };
        if self.newest.as_ref().is_some_and(older) {
            return false;
        }
        self.first = false;
        let until = until(now_ms, policy.valid_for_ms);
        self.newest = Some((Arc::new(policy), until));
        true
    }

    /// The server says that this one is still the newest. One that is not known here changes nothing; `false`.
    pub fn stands(&mut self, version: Version, valid_for_ms: u64, now_ms: u64) -> bool {
        match &mut self.newest {
            Some((known, end)) if known.version == version => {
                *end = until(now_ms, valid_for_ms);
                true
            }
            Some(_) | None => false,
        }
    }

    /// How it stands now.
    #[must_use]
    pub fn at(&self, now_ms: u64) -> Standing {
        match &self.newest {
            None => Standing::Never,
            Some((policy, end)) if now_ms < *end => Standing::Valid(Arc::clone(policy)),
            Some((policy, _)) => Standing::Ended(Arc::clone(policy)),
        }
    }
}

fn until(now_ms: u64, valid_for_ms: u64) -> u64 {
    now_ms.saturating_add(valid_for_ms.min(LONGEST_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(incarnation: u64, row: u64) -> Policy {
        let version = Version { incarnation, row };
        Policy {
            version,
            valid_for_ms: 100,
            ..Policy::default()
        }
    }

    fn row(standing: &Standing) -> Option<(bool, u64)> {
        match standing {
            Standing::Never => None,
            Standing::Valid(policy) => Some((true, policy.version.row)),
            Standing::Ended(policy) => Some((false, policy.version.row)),
        }
    }

    #[test]
    fn case_65_an_older_policy_of_a_session_is_not_taken_and_a_restored_ledger_is_newer() {
        let mut held = Held::default();
        assert_eq!(row(&held.at(0)), None);
        held.session_began();
        assert!(held.came(policy(0, 9), 0));
        assert!(!held.came(policy(0, 8), 0));
        assert!(held.came(policy(1, 3), 0));
        assert!(!held.came(policy(0, 99), 0));
        assert_eq!(row(&held.at(0)), Some((true, 3)));
        // Another server noticed the same change two rows earlier.
        held.session_began();
        assert!(!held.came(policy(0, 99), 0));
        assert!(held.came(policy(1, 1), 0));
        assert!(!held.came(policy(1, 0), 0));
    }

    #[test]
    fn case_48_a_policy_is_followed_until_its_time_and_the_server_moves_it_on() {
        let mut held = Held::default();
        assert!(held.came(policy(0, 9), 1000));
        assert_eq!(row(&held.at(1099)), Some((true, 9)));
        assert_eq!(row(&held.at(1100)), Some((false, 9)));
        assert!(!held.stands(
            Version {
                incarnation: 0,
                row: 8
            },
            100,
            1100
        ));
        assert_eq!(row(&held.at(1100)), Some((false, 9)));
        assert!(held.stands(
            Version {
                incarnation: 0,
                row: 9
            },
            u64::MAX,
            1100
        ));
        assert_eq!(row(&held.at(1100 + LONGEST_MS - 1)), Some((true, 9)));
        assert_eq!(row(&held.at(1100 + LONGEST_MS)), Some((false, 9)));
    }
}
