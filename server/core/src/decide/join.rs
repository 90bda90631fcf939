//! Who may become a node: whoever has its join token, once, and with the key that used it once as often as answers are
//! lost; and whoever is that node.

use crate::ban::{Ban, Banned, Barred, MOST_BANS};
use crate::command::Decision;
use crate::event::Event;
use crate::explain::Denied;
use crate::id::{NodeName, Timestamp};
use crate::join::{
    Certified, Digest, JoinToken, LONGEST_TOKEN_MS, MOST_ANSWERS, MOST_TOKENS, Proof,
};
use crate::state::State;

use super::directory::unknown;
use super::done;

impl State {
    pub(super) fn decide_make_join_token(
        &self,
        hash: &Digest,
        node: &NodeName,
        ttl_ms: u32,
        now: Timestamp,
    ) -> Result<Decision, Denied> {
        let tokens = &self.rows.join_tokens;
        if tokens.contains_key(hash) {
            return Err(Denied::JoinRefused);
        }
        if tokens.len() >= MOST_TOKENS {
            return Err(Denied::TooMany {
                what: "join tokens".into(),
                most: MOST_TOKENS,
            });
        }
        let until = now.after(ttl_ms.min(LONGEST_TOKEN_MS).into());
        Ok(done(vec![Event::JoinTokenMade(JoinToken {
            hash: hash.clone(),
            node: node.clone(),
            until,
        })]))
    }

    pub(super) fn decide_certify(
        &self,
        certified: &Certified,
        now: Timestamp,
    ) -> Result<Decision, Denied> {
        let node = &certified.node;
        match &certified.by {
            Proof::Token(hash) => {
                if self.rows.bans.contains_key(&Banned::Node(node.clone())) {
                    return Err(Denied::Barred(Barred::Node(node.clone())));
                }
                let token = self.rows.join_tokens.get(hash);
                let fits = token.is_some_and(|token| {
                    let key = token.key.as_ref();
                    token.until > now
                        && token.node == certified.node
                        && key.is_none_or(|key| *key == certified.key)
                        && token.given.len() < MOST_ANSWERS
                });
                if !fits {
                    return Err(Denied::JoinRefused);
                }
            }
            Proof::Serial(serial) => {
                if let Some(barred) = self.barred(node, serial) {
                    return Err(Denied::Barred(barred));
                }
            }
        }
        Ok(done(vec![Event::NodeCertified(certified.clone())]))
    }

    pub(super) fn decide_ban(&self, who: &Banned) -> Result<Decision, Denied> {
        let bans = &self.rows.bans;
        if bans.contains_key(who) {
            return Ok(done(Vec::new()));
        }
        if bans.len() >= MOST_BANS {
            return Err(Denied::TooMany {
                what: "bans".into(),
                most: MOST_BANS,
            });
        }
        Ok(done(vec![Event::Banned(Ban { who: who.clone() })]))
    }

    pub(super) fn decide_unban(&self, who: &Banned) -> Result<Decision, Denied> {
        match self.rows.bans.contains_key(who) {
            true => Ok(done(vec![Event::Unbanned(Ban { who: who.clone() })])),
            false => Err(unknown(
                "ban",
                match who {
                    Banned::Node(node) => node.as_str(),
                    Banned::Serial(serial) => serial.as_str(),
                },
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ban::{NoSerial, Serial};
    use crate::command::Command;
    use crate::event::Record;

    const TTL_MS: u32 = 600_000;

    fn digest(digit: char) -> Digest {
        Digest::new(&digit.to_string().repeat(64)).unwrap()
    }

    fn certify(node: &str, key: char, token: char) -> Command {
        Command::Certify(Certified {
            node: NodeName::new(node).unwrap(),
            serial: "01".into(),
            key: digest(key),
            not_after: Timestamp(9_000_000),
            by: Proof::Token(digest(token)),
        })
    }

    fn folded(state: &mut State, now: Timestamp, command: &Command) -> Result<(), Denied> {
        let decision = state.decide(command, now)?;
        let record = Record {
            actor: "x".into(),
            request_id: None,
            from: None,
            reason: None,
            tenants: Default::default(),
            replay: None,
            events: decision.events,
        };
        let seq = state.seq().next();
        state.apply(seq, now, None, &record);
        state.verify().unwrap();
        Ok(())
    }

    #[test]
    fn a_join_token_is_one_keys_one_nodes_and_ends() {
        let (mut state, now) = (State::default(), Timestamp(1000));
        let make = Command::MakeJoinToken {
            hash: digest('a'),
            node: NodeName::new("n1").unwrap(),
            ttl_ms: TTL_MS,
        };
        let refused = Err(Denied::JoinRefused);
        let early = certify("n1", '1', 'a');
        assert_eq!(folded(&mut state, now, &early), refused, "nobody made it");
        folded(&mut state, now, &make).unwrap();
        assert_eq!(folded(&mut state, now, &make), refused, "it is there");
        for other in [certify("n2", '1', 'a'), certify("n1", '1', 'b')] {
            assert_eq!(folded(&mut state, now, &other), refused);
        }
        let first = certify("n1", '1', 'a');
        folded(&mut state, now, &first).unwrap();
        // A lost answer is given again; another key gets none.
        folded(&mut state, now, &first).unwrap();
        assert_eq!(folded(&mut state, now, &certify("n1", '2', 'a')), refused);
        let last = Timestamp(now.0 + i64::from(TTL_MS) - 1);
        folded(&mut state, last, &first).unwrap();
        let end = Timestamp(last.0 + 1);
        assert_eq!(folded(&mut state, end, &first), refused, "it has ended");
        assert!(!state.rows.join_tokens.is_empty(), "what follows drops it");
        folded(
            &mut state,
            end,
            &Command::Certify(Certified {
                node: NodeName::new("n1").unwrap(),
                serial: "02".into(),
                key: digest('1'),
                not_after: Timestamp(9_000_000),
                by: Proof::Serial("01".into()),
            }),
        )
        .unwrap();
        assert!(state.rows.join_tokens.is_empty(), "dropped by time");
        assert!(state.index.join_tokens.is_empty());
    }

    fn opened(state: &State, node: &NodeName) -> Command {
        let session = state.session(node).map_or(0, |session| session.0);
        assert!(session < 100);
        Command::OpenSession {
            node: node.clone(),
            default_region: crate::id::Region::new("r").unwrap(),
            boot_id: "b".into(),
            agent_version: "0".into(),
        }
    }

    fn renewal(node: &NodeName, old: &str, new: &str) -> Command {
        Command::Certify(Certified {
            node: node.clone(),
            serial: new.into(),
            key: digest('1'),
            not_after: Timestamp(9_000_000),
            by: Proof::Serial(old.into()),
        })
    }

    #[test]
    fn case_5_a_banned_node_or_certificate_is_none_until_that_is_lifted() {
        let (mut state, now) = (State::default(), Timestamp(1000));
        let node = NodeName::new("n1").unwrap();
        let serial = Serial::new("0A:0b").unwrap();
        let (by_node, by_serial) = (Banned::Node(node.clone()), Banned::Serial(serial));
        for (who, other) in [(&by_node, "ff"), (&by_serial, "0a0b")] {
            let seq = state.changes().of_bans();
            folded(&mut state, now, &Command::Ban(who.clone(), true)).unwrap();
            assert!(state.changes().of_bans() > seq);
            assert!(state.barred(&node, other).is_some());
            let renewed = folded(&mut state, now, &renewal(&node, other, "02"));
            assert!(matches!(renewed, Err(Denied::Barred(_))), "{renewed:?}");
            // Whoever reads a snapshot refuses it, too.
            let text = serde_json::to_string(&state).unwrap();
            let read: State = serde_json::from_str(&text).unwrap();
            assert_eq!(read, state);
            folded(&mut state, now, &Command::Ban(who.clone(), false)).unwrap();
            assert_eq!(state.barred(&node, other), None);
            assert!(folded(&mut state, now, &Command::Ban(who.clone(), false)).is_err());
        }
        assert_eq!(Serial::new("0g"), Err(NoSerial));
        assert_eq!(Serial::new(""), Err(NoSerial));
        let make = Command::MakeJoinToken {
            hash: digest('a'),
            node: node.clone(),
            ttl_ms: TTL_MS,
        };
        folded(&mut state, now, &make).unwrap();
        folded(&mut state, now, &Command::Ban(by_node, true)).unwrap();
        let joined = folded(&mut state, now, &certify("n1", '1', 'a'));
        assert!(matches!(joined, Err(Denied::Barred(_))), "{joined:?}");
    }

    #[test]
    fn case_9_no_token_from_before_a_ban_or_a_retirement_gives_another_certificate() {
        let (mut state, now) = (State::default(), Timestamp(1000));
        let node = NodeName::new("n1").unwrap();
        let refused = Err(Denied::JoinRefused);
        let make = |token: char| Command::MakeJoinToken {
            hash: digest(token),
            node: node.clone(),
            ttl_ms: TTL_MS,
        };
        let as_serial = |token: char, serial: &str| {
            let Command::Certify(mut certified) = certify("n1", '1', token) else {
                unreachable!();
            };
            certified.serial = serial.into();
            Command::Certify(certified)
        };
        // The first of two answers is banned.
        folded(&mut state, now, &make('a')).unwrap();
        folded(&mut state, now, &as_serial('a', "00aa")).unwrap();
        folded(&mut state, now, &as_serial('a', "bb")).unwrap();
        let banned = Banned::Serial(Serial::new("AA").unwrap());
        folded(&mut state, now, &Command::Ban(banned, true)).unwrap();
        assert_eq!(folded(&mut state, now, &as_serial('a', "cc")), refused);
        // What a token gave is renewed: whoever renews had the answer, and a ban of what came of it leaves no way back.
        folded(&mut state, now, &make('f')).unwrap();
        folded(&mut state, now, &as_serial('f', "0d")).unwrap();
        folded(&mut state, now, &renewal(&node, "000D", "0e")).unwrap();
        assert_eq!(folded(&mut state, now, &as_serial('f', "0f")), refused);
        // The node is, and then it may be again: by a new token.
        folded(&mut state, now, &make('b')).unwrap();
        let banned = Banned::Node(node.clone());
        folded(&mut state, now, &Command::Ban(banned.clone(), true)).unwrap();
        folded(&mut state, now, &Command::Ban(banned, false)).unwrap();
        assert_eq!(folded(&mut state, now, &as_serial('b', "cc")), refused);
        // It is retired; neither a token that was used nor one that was not makes it anew.
        for token in ['c', 'd'] {
            folded(&mut state, now, &make(token)).unwrap();
        }
        folded(&mut state, now, &as_serial('c', "cc")).unwrap();
        let command = opened(&state, &node);
        folded(&mut state, now, &command).unwrap();
        let retire = Command::RetireNode {
            node: node.clone(),
            forced: true,
        };
        folded(&mut state, now, &retire).unwrap();
        for token in ['c', 'd'] {
            assert_eq!(folded(&mut state, now, &as_serial(token, "dd")), refused);
        }
        folded(&mut state, now, &make('e')).unwrap();
        for answer in 0..MOST_ANSWERS {
            folded(&mut state, now, &as_serial('e', &format!("{answer:02x}"))).unwrap();
        }
        assert_eq!(folded(&mut state, now, &as_serial('e', "ff")), refused);
        // What is said of a node that is there readmits nothing of before.
        let command = opened(&state, &node);
        folded(&mut state, now, &command).unwrap();
        assert!(state.barred(&node, "cc").is_some());
        let declare = Command::DeclareNode(crate::command::DeclareNode {
            node: node.clone(),
            region: crate::id::Region::new("r2").unwrap(),
            groups: None,
            inventory: None,
        });
        folded(&mut state, now, &declare).unwrap();
        assert!(state.barred(&node, "cc").is_some());
        assert_eq!(state.barred(&node, "01"), None);
    }

    #[test]
    fn case_63_the_certificate_of_a_retired_node_makes_it_no_node_again() {
        let (mut state, now) = (State::default(), Timestamp(1000));
        let node = NodeName::new("n1").unwrap();
        let retire = Command::RetireNode {
            node: node.clone(),
            forced: true,
        };
        let command = opened(&state, &node);
        folded(&mut state, now, &command).unwrap();
        assert_eq!(state.barred(&node, "01"), None);
        folded(&mut state, now, &retire).unwrap();
        assert_eq!(
            state.barred(&node, "01"),
            Some(Barred::Retired(node.clone()))
        );
        assert!(folded(&mut state, now, &renewal(&node, "01", "02")).is_err());
        // A new token's certificate counts, and what that one is renewed to; the old one never again.
        let make = Command::MakeJoinToken {
            hash: digest('a'),
            node: node.clone(),
            ttl_ms: TTL_MS,
        };
        folded(&mut state, now, &make).unwrap();
        let Command::Certify(mut certified) = certify("n1", '1', 'a') else {
            unreachable!();
        };
        certified.serial = "03".into();
        folded(&mut state, now, &Command::Certify(certified)).unwrap();
        let command = opened(&state, &node);
        folded(&mut state, now, &command).unwrap();
        folded(&mut state, now, &renewal(&node, "03", "04")).unwrap();
        assert_eq!(state.barred(&node, "04"), None);
        assert!(state.barred(&node, "01").is_some());
        // Or the operator says that it is there.
        folded(&mut state, now, &retire).unwrap();
        assert!(state.barred(&node, "04").is_some());
        let declare = Command::DeclareNode(crate::command::DeclareNode {
            node: node.clone(),
            region: crate::id::Region::new("r").unwrap(),
            groups: None,
            inventory: None,
        });
        folded(&mut state, now, &declare).unwrap();
        assert_eq!(state.barred(&node, "01"), None);
    }
}
