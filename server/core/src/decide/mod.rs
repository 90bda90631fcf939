//! From a command to events or a denial. Never changes the state, never reads a clock.

mod node;
mod quota;

use crate::command::{Command, Decision, Outcome};
use crate::event::Event;
use crate::explain::Denied;
use crate::id::Timestamp;
use crate::state::State;

impl State {
    /// What `command` would do at `now`, given that everything due by `now` was swept before.
    ///
    /// # Errors
    /// When the ledger does not grant it.
    pub fn decide(&self, command: &Command, now: Timestamp) -> Result<Decision, Denied> {
        match command {
            Command::SetQuota(set) => self.decide_set_quota(set, now),
            Command::ReleaseQuota(release) => self.decide_release_quota(release),
            Command::DeclareNode { node, region } => Ok(self.decide_declare_node(node, region)),
            Command::OpenSession {
                node,
                default_region,
                boot_id,
                agent_version,
            } => Ok(self.decide_open_session(node, default_region, boot_id, agent_version)),
            Command::Report(report) => self.decide_report(report, now),
            Command::MarkSilent {
                node,
                session,
                reason,
            } => self.decide_silence(node, *session, *reason),
            Command::MarkHeard { node, session } => self.decide_heard(node, *session),
            Command::RevokeToken { token, until } => Ok(self.decide_revoke(token, *until, now)),
            Command::Sweep => Ok(self.decide_sweep(now)),
            Command::NoteSnapshot { seq, digest } => Ok(done(vec![Event::SnapshotTaken {
                seq: *seq,
                digest: digest.clone(),
            }])),
        }
    }

    fn decide_sweep(&self, now: Timestamp) -> Decision {
        let due = self.index.expiring.iter();
        done(
            due.take_while(|(at, _)| *at <= now)
                .map(|(_, quota)| Event::QuotaExpired { quota: *quota })
                .collect(),
        )
    }

    fn decide_revoke(&self, token: &str, until: Timestamp, now: Timestamp) -> Decision {
        let known = self.rows.revoked.get(token);
        if until <= now || known.is_some_and(|known| *known >= until) {
            return done(Vec::new());
        }
        done(vec![Event::TokenRevoked {
            token: token.to_owned(),
            until,
        }])
    }
}

fn done(events: Vec<Event>) -> Decision {
    Decision {
        events,
        outcome: Outcome::Done,
    }
}
