//! Own tokens that were found good lately, so that a caller who asks a thousand times is examined once.
//!
//! The key never changes while the server runs; what changes is time, and revocation, which is the ledger's to say.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use gpuquota_core::id::Timestamp;
use sha2::{Digest as _, Sha256};

use super::token::Verified;

/// Tokens that are remembered; one more, and it begins anew.
const MOST: usize = 4096;

type Digest = [u8; 32];

struct Known {
    /// When it was examined. Before that it need not have begun.
    since: Timestamp,
    verified: Verified,
}

/// What is remembered, by the digest of all of the token, so that a look takes as long for one that is nearly right.
#[derive(Default)]
pub(super) struct KnownTokens(Mutex<HashMap<Digest, Known>>);

impl KnownTokens {
    /// What was found, if that still holds at `now`.
    pub(super) fn get(&self, token: &str, now: Timestamp) -> Option<Verified> {
        let digest: Digest = Sha256::digest(token).into();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(&digest)?;
        let holds = known.since <= now && now < known.verified.until;
        holds.then(|| known.verified.clone())
    }

    /// Remembers what was found at `now`.
    pub(super) fn put(&self, token: &str, now: Timestamp, verified: &Verified) {
        let digest: Digest = Sha256::digest(token).into();
        let known = Known {
            since: now,
            verified: verified.clone(),
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(digest, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Principal, Role};

    fn verified(until: i64) -> Verified {
        Verified {
            principal: Principal {
                subject: "s".into(),
                role: Role::Viewer,
                tenants: [].into(),
                projects: [].into(),
                user: None,
                container: None,
            },
            ids: vec!["i".into()],
            until: Timestamp(until),
        }
    }

    #[test]
    fn it_holds_from_when_it_was_found_until_its_end_and_for_no_other_text() {
        let known = KnownTokens::default();
        known.put("a.b.c", Timestamp(10), &verified(20));
        let holds = |token, now| known.get(token, Timestamp(now)).is_some();
        assert_eq!(
            [9, 10, 19, 20].map(|now| holds("a.b.c", now)),
            [false, true, true, false]
        );
        assert!(!holds("a.b.d", 10) && !holds("a.b.c ", 10) && !holds("", 10));
        assert_eq!(known.get("a.b.c", Timestamp(10)), Some(verified(20)));
    }

    #[test]
    fn however_many_there_are_a_bounded_number_is_remembered() {
        let known = KnownTokens::default();
        for token in 0..=MOST {
            known.put(&token.to_string(), Timestamp(1), &verified(2));
        }
        assert!(known.get(&MOST.to_string(), Timestamp(1)).is_some());
        assert_eq!(known.0.lock().unwrap().len(), 1);
    }
}
