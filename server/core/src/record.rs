//! The body of a journal row: events with who asked for them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize, Serializer};

use crate::command::{Answer, Outcome};
use crate::event::Event;
use crate::id::{LeaseId, TenantName};

/// The body of one journal row: everything that one command did, with who asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Who asked: `admin:SUBJECT`, `node:NAME`, `server`.
    pub actor: String,
    /// Request id of the call, for the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Address that the call came from, for the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Why, in the caller's words, for the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For a call with an operation id: what was asked and answered, so that it can be replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
    /// Tenants that it is about and that `events` do not name, for the audit. Earlier versions did not write it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tenants: BTreeSet<TenantName>,
    /// What happened, in order. Empty for a denial that is kept for its replay.
    pub events: Vec<Event>,
}

/// An answer kept for repetitions of its operation id.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Replay {
    /// Digest of method, path and body: another request under the same id is refused.
    pub fingerprint: String,
    /// What was answered.
    pub answer: KeptAnswer,
}

/// How a row says what was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptAnswer {
    /// In full.
    Whole(Answer),
    /// The lease that this row grants, as the row leaves it: most rows are of that kind, and say it once.
    Granted(LeaseId),
}

impl Replay {
    /// The answer to what made these events. It is in few words where they say the same.
    #[must_use]
    pub fn of(fingerprint: String, answer: &Answer, events: &[Event]) -> Self {
        let granted = match (answer, events) {
            (Answer::Granted(Outcome::Lease(answered)), [Event::LeaseGranted { lease, .. }])
                if *lease == answered.id =>
            {
                Some(*lease)
            }
            _ => None,
        };
        let answer = match granted {
            Some(lease) => KeptAnswer::Granted(lease),
            None => KeptAnswer::Whole(answer.clone()),
        };
        Self {
            fingerprint,
            answer,
        }
    }
}

// Exactly one of the last two. Earlier versions wrote `answer` only.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    fingerprint: String,
    #[serde(default)]
    answer: Option<Answer>,
    #[serde(default)]
    granted: Option<LeaseId>,
}

impl TryFrom<Written> for Replay {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let answer = match (written.answer, written.granted) {
            (Some(answer), None) => KeptAnswer::Whole(answer),
            (None, Some(lease)) => KeptAnswer::Granted(lease),
            _ => return Err("a replay has either an answer or the lease that was granted"),
        };
        Ok(Self {
            fingerprint: written.fingerprint,
            answer,
        })
    }
}

impl Serialize for Replay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Text<'r> {
            fingerprint: &'r str,
            #[serde(skip_serializing_if = "Option::is_none")]
            answer: Option<&'r Answer>,
            #[serde(skip_serializing_if = "Option::is_none")]
            granted: Option<LeaseId>,
        }
        let (answer, granted) = match &self.answer {
            KeptAnswer::Whole(answer) => (Some(answer), None),
            KeptAnswer::Granted(lease) => (None, Some(*lease)),
        };
        let fingerprint = &self.fingerprint;
        Text {
            fingerprint,
            answer,
            granted,
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Replay, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_replay_says_its_answer_in_one_way() {
        for text in [
            r#"{"fingerprint":"f","answer":{"granted":"done"}}"#,
            r#"{"fingerprint":"f","granted":7}"#,
        ] {
            assert_eq!(serde_json::to_string(&read(text).unwrap()).unwrap(), text);
        }
        for text in [
            r#"{"fingerprint":"f"}"#,
            r#"{"fingerprint":"f","granted":7,"answer":{"granted":"done"}}"#,
            r#"{"fingerprint":"f","granted":7,"denied":1}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
