//! The phases in which one authority follows another, and what each step asks of the nodes. Pure.

use gpuquota_proto::pinned::Pin;
use serde::{Deserialize, Serialize};

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// One authority, and none that is to follow it.
    Standby,
    /// A new one was made, and is used for nothing.
    Prepared,
    /// Both are trusted; the old one signs.
    Trusted,
    /// Both are trusted; the new one signs.
    Issuing,
    /// The new one is the only one.
    Finished,
}

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the new one.
    Prepare,
    /// Trust it.
    Trust,
    /// Sign with it.
    Issue,
    /// Trust it alone.
    Finish,
    /// One phase back.
    Rollback,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that was there.
    Old,
    /// The one that follows it.
    New,
}

/// A step that does not lead on from a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The new authority is in use alone.
    #[error(
        "the rotation is finished and the old authority's key is gone: there is no way back but another rotation, by `ca prepare`"
    )]
    NoWayBack,
    /// Nothing to take back.
    #[error("no rotation is under way; `ca prepare` begins one")]
    NotBegun,
    /// Another one comes first.
    #[error("the rotation is in phase {0}: the next step is `ca {1}`, the way back `ca rollback`")]
    NotNow(Phase, &'static str),
}

/// What nodes must have before a phase begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// A certificate that this one signed.
    pub certificate: Option<Which>,
    /// Trust in this one.
    pub trust: Option<Which>,
}

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub node: String,
    /// Whose certificate it showed last; `None`: it was not here since the server started.
    pub certificate_by: Option<Pin>,
    /// Who signed what it was given since and has not shown yet.
    pub given_by: Option<Pin>,
    /// Whom it trusts, as it said last; `None`: it did not say.
    pub trusts: Option<Vec<Pin>>,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Standby,
        Self::Prepared,
        Self::Trusted,
        Self::Issuing,
        Self::Finished,
    ];

    /// Its word in answers and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Prepared => "prepared",
            Self::Trusted => "trusted",
            Self::Issuing => "issuing",
            Self::Finished => "finished",
        }
    }

    /// Where a step leads. The step that led here leads here again, so one that was interrupted is completed.
    ///
    /// # Errors
    /// When another one comes first.
    pub fn after(self, step: Step) -> Result<Self, Refused> {
        let next = match self {
            Self::Standby | Self::Finished => "prepare",
            Self::Prepared => "trust",
            Self::Trusted => "issue",
            Self::Issuing => "finish",
        };
        match (self, step) {
            (Self::Standby | Self::Prepared | Self::Finished, Step::Prepare) => Ok(Self::Prepared),
            (Self::Prepared | Self::Trusted, Step::Trust) => Ok(Self::Trusted),
            (Self::Trusted | Self::Issuing, Step::Issue) => Ok(Self::Issuing),
            (Self::Issuing | Self::Finished, Step::Finish) => Ok(Self::Finished),
            (Self::Prepared, Step::Rollback) => Ok(Self::Standby),
            (Self::Trusted, Step::Rollback) => Ok(Self::Prepared),
            (Self::Issuing, Step::Rollback) => Ok(Self::Trusted),
            (Self::Finished, Step::Rollback) => Err(Refused::NoWayBack),
            (Self::Standby, _) => Err(Refused::NotBegun),
            (Self::Prepared | Self::Trusted | Self::Issuing | Self::Finished, _) => {
                Err(Refused::NotNow(self, next))
            }
        }
    }

    /// Whose certificates count, the signing one's first.
    #[must_use]
    pub fn trusted(self) -> &'static [Which] {
        match self {
            Self::Standby | Self::Prepared => &[Which::Old],
            Self::Trusted => &[Which::Old, Which::New],
            Self::Issuing => &[Which::New, Which::Old],
            Self::Finished => &[Which::New],
        }
    }

    /// Who signs, and whose certificate the server shows.
    #[must_use]
    pub fn signing(self) -> Which {
        match self {
            Self::Standby | Self::Prepared | Self::Trusted => Which::Old,
            Self::Issuing | Self::Finished => Which::New,
        }
    }

    /// What every node must have before this goes on, or back, to another phase.
    #[must_use]
    pub fn need(self, to: Self) -> Need {
        let certificate = |which| Need {
            certificate: Some(which),
            trust: None,
        };
        match (self, to) {
            (Self::Trusted, Self::Issuing) => Need {
                certificate: None,
                trust: Some(Which::New),
            },
            (Self::Issuing, Self::Finished) => certificate(Which::New),
            (Self::Trusted, Self::Prepared) => certificate(Which::Old),
            _ => Need::default(),
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

impl Need {
    /// The nodes that lack it, each with what it lacks. A node of which nothing is known lacks it.
    #[must_use]
    pub fn lacking(self, nodes: &[Known], (old, new): (Pin, Pin)) -> Vec<(String, &'static str)> {
        let pin = |which| match which {
            Which::Old => old,
            Which::New => new,
        };
        let lacks = |node: &Known| {
            let unknown = "was not heard since the server started";
            if let Some(wanted) = self.certificate.map(pin) {
                // What it was given may not have reached it, and may be all that it has.
                let has = [node.certificate_by, node.given_by].into_iter().flatten();
                let has: Vec<Pin> = has.collect();
                return match has.iter().all(|by| *by == wanted) {
                    true if has.is_empty() => Some(unknown),
                    true => None,
                    false if wanted == new => Some("has a certificate of the old authority"),
                    false => Some("has a certificate of the new authority"),
                };
            }
            let wanted = self.trust.map(pin)?;
            match (&node.trusts, node.certificate_by) {
                (Some(trusts), _) if trusts.contains(&wanted) => None,
                (Some(_), _) => Some("does not trust the new authority yet"),
                (None, Some(_)) => Some("did not say that it trusts the new authority"),
                (None, None) => Some(unknown),
            }
        };
        let nodes = nodes.iter();
        nodes
            .filter_map(|node| Some((node.node.clone(), lacks(node)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Step; 5] = [
        Step::Prepare,
        Step::Trust,
        Step::Issue,
        Step::Finish,
        Step::Rollback,
    ];

    #[test]
    fn case_12_whoever_was_trusted_when_a_certificate_was_signed_is_trusted_one_step_later() {
        let mut seen = 0;
        for phase in Phase::ALL {
            for step in STEPS {
                let Ok(next) = phase.after(step) else {
                    continue;
                };
                seen += 1;
                // A new rotation begins with a new pair of names.
                if phase == Phase::Finished && step == Step::Prepare {
                    continue;
                }
                assert!(next.trusted().contains(&next.signing()));
                let need = phase.need(next);
                // Who is to show a certificate of the new signer is believed by all nodes...
                let known = phase.trusted().contains(&next.signing());
                assert!(known, "{phase} {step:?}");
                if phase.signing() == Which::Old && next.signing() == Which::New {
                    assert_eq!(need.trust, Some(Which::New));
                }
                // ...and nobody is refused who has not been asked for first.
                for gone in phase
                    .trusted()
                    .iter()
                    .filter(|it| !next.trusted().contains(it))
                {
                    assert!(need.certificate.is_some_and(|wanted| wanted != *gone));
                }
                // Again, as after an interruption.
                if step != Step::Rollback {
                    assert_eq!(next.after(step), Ok(next));
                }
            }
        }
        assert_eq!(seen, 12);
        assert_eq!(
            Phase::Finished.after(Step::Rollback),
            Err(Refused::NoWayBack)
        );
        assert_eq!(Phase::Standby.after(Step::Finish), Err(Refused::NotBegun));
        for (phase, step) in [
            (Phase::Prepared, Step::Issue),
            (Phase::Trusted, Step::Finish),
        ] {
            assert!(matches!(phase.after(step), Err(Refused::NotNow(..))));
        }
    }

    #[test]
    fn nodes_that_would_be_left_behind_are_named() {
        let pin = |byte: u8| Pin::of_key(&[byte]);
        let pins = (pin(1), pin(2));
        let node = |name: &str, by: Option<u8>, trusts: Option<&[u8]>| Known {
            node: name.to_owned(),
            certificate_by: by.map(pin),
            given_by: None,
            trusts: trusts.map(|pins| pins.iter().map(|it| pin(*it)).collect()),
        };
        let nodes = [
            node("done", Some(2), Some(&[1, 2])),
            node("late", Some(1), Some(&[1])),
            node("mute", Some(1), None),
            node("away", None, None),
        ];
        let names = |from: Phase, to: Phase| -> Vec<String> {
            let lacking = from.need(to).lacking(&nodes, pins);
            lacking.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(Phase::Prepared, Phase::Trusted), Vec::<String>::new());
        assert_eq!(
            names(Phase::Trusted, Phase::Issuing),
            ["late", "mute", "away"]
        );
        assert_eq!(
            names(Phase::Issuing, Phase::Finished),
            ["late", "mute", "away"]
        );
        assert_eq!(names(Phase::Issuing, Phase::Trusted), Vec::<String>::new());
        assert_eq!(names(Phase::Trusted, Phase::Prepared), ["done", "away"]);
        // What it was given and has not shown counts beside what it shows.
        let given = |name: &str, by: Option<u8>, given: u8| Known {
            given_by: Some(pin(given)),
            ..node(name, by, Some(&[1, 2]))
        };
        let nodes = [
            given("joined", None, 2),
            given("renewed", Some(1), 2),
            given("again", Some(2), 2),
        ];
        let names = |from: Phase, to: Phase| -> Vec<String> {
            let lacking = from.need(to).lacking(&nodes, pins);
            lacking.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(Phase::Issuing, Phase::Finished), ["renewed"]);
        assert_eq!(
            names(Phase::Trusted, Phase::Prepared),
            ["joined", "renewed", "again"]
        );
    }
}
