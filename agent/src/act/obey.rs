//! Orders to the privileged half, and what the kernel says of them later.

use std::collections::BTreeMap;

use super::{Actor, COMPARE_MS, EnforcementConfig, Hands};
use crate::clock::boottime_ms;
use crate::enforce::protocol::{Identity, Order, Reply, Restriction, Signal};
use crate::plan::Able;
use crate::plan::step::{Outcome, Rung, Step, Told};
use crate::policy::Policy;
use crate::process::group::GroupId;

impl<H: Hands> Actor<H> {
    // The folder that each restricted group has now; `None`: none.
    fn folders(&self) -> BTreeMap<String, Option<GroupId>> {
        let Some(root) = self.of.neighbours.root() else {
            return BTreeMap::new();
        };
        let groups = self.plan.restrictions().groups();
        groups
            .map(|group| (group.clone(), GroupId::of_folder(root, group)))
            .collect()
    }

    pub(super) async fn obey(&self, step: &Step, policy: &Policy) -> (Outcome, String) {
        let version = policy.version.row;
        let signal = |signal| {
            let process = step.process?;
            Some(Order::Signal {
                who: Identity {
                    pid: process.pid,
                    start_time: process.start_time,
                    boot_id: self.of.boot_id.clone(),
                },
                signal,
                group: step.group.clone(),
                nodes: step.nodes.clone(),
                version,
            })
        };
        let denied = || {
            self.plan
                .restrictions()
                .denied_after(step)
                .into_iter()
                .collect::<Vec<_>>()
        };
        let order = match step.rung {
            Rung::Warn => None,
            Rung::Term => signal(Signal::Term),
            Rung::Kill => signal(Signal::Kill),
            Rung::Restrict => Some(Order::Restrict {
                group: step.group.clone(),
                nodes: denied(),
                version,
            }),
            Rung::Lift => Some(match denied() {
                none if none.is_empty() => Order::Lift {
                    group: step.group.clone(),
                },
                nodes => Order::Restrict {
                    group: step.group.clone(),
                    nodes,
                    version,
                },
            }),
        };
        let Some(order) = order else {
            return (Outcome::Refused, "no order follows from it".to_owned());
        };
        match self.of.hands.ask(order).await {
            Ok(Reply::Done) => (Outcome::Done, String::new()),
            Ok(Reply::Gone { detail }) => (Outcome::Gone, detail),
            Ok(Reply::Refused { detail }) => (Outcome::Refused, detail),
            Ok(Reply::Failed { detail }) | Err(detail) => (Outcome::Failed, detail),
            Ok(Reply::Impossible { detail }) => (Outcome::Impossible, detail),
            Ok(Reply::Able { .. } | Reply::Restricted { .. } | Reply::Enclosed { .. }) => (
                Outcome::Failed,
                "the privileged half answered something else".to_owned(),
            ),
        }
    }

    pub(super) async fn lift(&mut self, steps: Vec<Step>, policy: &Policy) {
        if steps.is_empty() {
            return;
        }
        for step in steps {
            let (outcome, detail) = self.obey(&step, policy).await;
            // A group that is no more denies nothing.
            let outcome = match outcome {
                Outcome::Gone => Outcome::Done,
                other => other,
            };
            self.plan.done(&step, outcome, &detail, boottime_ms());
            if outcome == Outcome::Done {
                self.tell(
                    &Told {
                        step,
                        outcome,
                        detail,
                    },
                    policy,
                );
            } else {
                tracing::error!(
                    group = step.group,
                    detail,
                    "a restriction cannot be taken away; it is tried again"
                );
            }
        }
        self.keep();
    }

    // A slice that was made anew denies nothing, and whoever else attaches programs may take ours away.
    pub(super) async fn compare(&mut self, now: u64, strange: Strange) {
        let lacks = |able: &Able| able.no_signal.is_some() || able.no_restriction.is_some();
        // A privileged half that is started later is found soon.
        let unable = self.able.as_ref().is_none_or(lacks);
        let every = if unable || self.busy() || !self.plan.restrictions().is_empty() {
            COMPARE_MS.0
        } else {
            COMPARE_MS.1
        };
        let due = |at: u64| now.saturating_sub(at) >= every;
        let folders = self.folders();
        if !self.compared_ms.is_none_or(due) && folders == self.folders {
            return;
        }
        self.compared_ms = Some(now);
        self.folders = folders;
        let able = self.of.hands.ask(Order::Can).await;
        let able = able_by(&self.of.config, able);
        if self.able.as_ref() != Some(&able) {
            let lacking: Vec<_> = able.no_restriction.iter().chain(&able.no_signal).collect();
            tracing::info!(?lacking, most = ?able.most, "what this node can enforce");
            self.of.figures.able(&able);
            self.able = Some(able);
        }
        let Ok(Reply::Restricted { groups }) = self.of.hands.ask(Order::Restrictions).await else {
            return;
        };
        let wanted = self.plan.restrictions().wanted();
        self.tried
            .retain(|_, (_, at)| now.saturating_sub(*at) < COMPARE_MS.1);
        for want in &wanted {
            let nodes = want.nodes();
            let there = groups.iter().find(|is| is.group == want.group);
            let same = |is: &Restriction| is.nodes.iter().eq(&nodes);
            if there.map_or(nodes.is_empty(), same) {
                continue;
            }
            // A node that is no more cannot be denied, however often.
            let tried = self.tried.get(&want.group);
            if tried.is_some_and(|(tried, _)| *tried == nodes && there.is_some()) {
                continue;
            }
            self.tried.insert(want.group.clone(), (nodes.clone(), now));
            let order = if nodes.is_empty() {
                Order::Lift {
                    group: want.group.clone(),
                }
            } else {
                Order::Restrict {
                    group: want.group.clone(),
                    nodes: nodes.into_iter().collect(),
                    version: 0,
                }
            };
            match self.of.hands.ask(order).await {
                Ok(Reply::Done) => {
                    tracing::warn!(
                        group = want.group,
                        "what is denied was not what is to be denied; now it is"
                    );
                }
                Ok(Reply::Gone { .. }) => {}
                other => tracing::error!(group = want.group, ?other, "a restriction is lost"),
            }
        }
        if strange == Strange::Left {
            return;
        }
        for unknown in groups
            .iter()
            .filter(|is| wanted.iter().all(|want| want.group != is.group))
        {
            tracing::warn!(
                group = unknown.group,
                "it is denied devices that nothing asks for any more; that is lifted"
            );
            let _ = self
                .of
                .hands
                .ask(Order::Lift {
                    group: unknown.group.clone(),
                })
                .await;
        }
    }
}

/// What becomes of restrictions that nobody here asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strange {
    /// The server says all that is to be denied.
    Lifted,
    /// Nobody can be asked whether they are to stay.
    Left,
}

fn able_by(config: &EnforcementConfig, said: Result<Reply, String>) -> Able {
    let (no_restriction, no_signal) = match said {
        Ok(Reply::Able {
            signal,
            restrict,
            lacking,
            ..
        }) => {
            let why = |can: bool| (!can).then(|| lacking.join("; "));
            (why(restrict), why(signal))
        }
        Ok(_) => {
            let odd = "the privileged half answered something else".to_owned();
            (Some(odd.clone()), Some(odd))
        }
        Err(why) => {
            let why = format!("the privileged half does not answer: {why}");
            (Some(why.clone()), Some(why))
        }
    };
    Able {
        most: config.most,
        ended_per_minute: config.ended_per_minute,
        no_restriction,
        no_signal,
    }
}
