//! Join tokens: made, used by one key, dropped when they end; and what a retired node is given.

use crate::ban::{Banned, Serial};
use crate::id::Timestamp;
use crate::join::{Certified, JoinToken, Joining, Proof};
use crate::state::State;

impl State {
    pub(super) fn make_join_token(&mut self, token: &JoinToken) {
        let joining = Joining {
            node: token.node.clone(),
            until: token.until,
            key: None,
            given: Vec::new(),
        };
        let known = self.rows.join_tokens.insert(token.hash.clone(), joining);
        assert!(known.is_none(), "a join token made twice");
        self.index
            .join_tokens
            .insert((token.until, token.hash.clone()));
    }

    pub(super) fn certified(&mut self, at: Timestamp, certified: &Certified) {
        if let Some(given) = self.rows.gone.get_mut(&certified.node) {
            let over: Vec<String> = given
                .iter()
                .filter(|(_, end)| **end <= at)
                .map(|(serial, _)| serial.clone())
                .collect();
            for serial in &over {
                given.remove(serial);
            }
            given.insert(certified.serial.clone(), certified.not_after);
        }
        match &certified.by {
            Proof::Token(hash) => {
                if let Some(token) = self.rows.join_tokens.get_mut(hash) {
                    token.key = Some(certified.key.clone());
                    token.given.push(certified.serial.clone());
                }
            }
            // What a token gave has arrived: it is asked for no lost answer, and a ban of the new one needs not find it.
            Proof::Serial(serial) => self.drop_join_tokens(|token| gave(token, serial)),
        }
    }

    /// Whoever may not be this node, or have this certificate, gets no other one by a token from before.
    pub(super) fn void_join_tokens(&mut self, who: &Banned) {
        self.drop_join_tokens(|token| match who {
            Banned::Node(node) => token.node == *node,
            Banned::Serial(serial) => gave(token, serial.as_str()),
        });
    }

    fn drop_join_tokens(&mut self, over: impl Fn(&Joining) -> bool) {
        let tokens = self.rows.join_tokens.iter();
        let over: Vec<_> = tokens
            .filter(|(_, token)| over(token))
            .map(|(hash, token)| (token.until, hash.clone()))
            .collect();
        for token in over {
            self.rows.join_tokens.remove(&token.1);
            self.index.join_tokens.remove(&token);
        }
    }

    pub(super) fn forget_join_tokens(&mut self, at: Timestamp) {
        while let Some(oldest) = self.index.join_tokens.get_min().cloned()
            && oldest.0 <= at
        {
            self.index.join_tokens.remove(&oldest);
            self.rows.join_tokens.remove(&oldest.1);
        }
    }
}

/// Whether this token gave the certificate of this serial number, however either is written.
fn gave(token: &Joining, serial: &str) -> bool {
    let Ok(serial) = Serial::new(serial) else {
        return false;
    };
    let is = |given: &String| Serial::new(given).is_ok_and(|given| given == serial);
    token.given.iter().any(is)
}
