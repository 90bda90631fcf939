//! What is denied to which control group, for whom, and whether the server knows. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::finding::Finding;
use super::step::{Outcome, Rung, Step, Told};
use super::{AGAIN_MS, Kernel};
use crate::observation::{DeviceKey, Observation};
use crate::policy::{Class, Mode, Policy, Whom};

/// One group and what it is to be denied, and for whom: what is written down for the next agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The group, as `/proc/PID/cgroup` writes it.
    pub group: String,
    /// For whom, and what.
    pub denied: Vec<(Whom, Denied)>,
}

impl Wanted {
    /// All nodes of the group.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<String> {
        let denied = self.denied.iter();
        denied
            .flat_map(|(_, it)| it.nodes.iter().cloned())
            .collect()
    }
}

/// What one group is denied for one violator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denied {
    /// Device nodes by the names that they have now.
    pub nodes: BTreeSet<String>,
    /// Why it was begun.
    pub class: Class,
    /// The server took its outcome, and said what it makes of it: only then does its silence about it mean that it may end.
    pub settled: bool,
    /// The number by which the outcome was told; `None`: not told by this agent.
    #[serde(skip)]
    pub told: Option<u64>,
    /// Before this it is not tried again to take it away. Milliseconds, CLOCK_BOOTTIME.
    #[serde(skip)]
    pub not_before_ms: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Restrictions(BTreeMap<String, BTreeMap<Whom, Denied>>);

impl Restrictions {
    /// Whether nobody is denied anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Groups that are to be denied something.
    pub fn groups(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// Groups and what each is to be denied.
    #[must_use]
    pub fn wanted(&self) -> Vec<Wanted> {
        let rows = self.0.iter().map(|(group, denied)| Wanted {
            group: group.clone(),
            denied: denied
                .iter()
                .map(|(whom, denied)| (whom.clone(), denied.clone()))
                .collect(),
        });
        rows.collect()
    }

    /// What the kernel still denies from before this agent began, with what was written down of it.
    pub fn adopt(&mut self, wanted: Vec<Wanted>) {
        for Wanted { group, denied } in wanted {
            self.0.entry(group).or_default().extend(denied);
        }
    }

    /// What an agent before this one did, and did not hear to be known: to be told again.
    #[must_use]
    pub fn untold(&self) -> Vec<Told> {
        let untold = self
            .each()
            .filter(|(_, _, it)| !it.settled && it.told.is_none());
        let told = untold.map(|(group, whom, denied)| Told {
            step: step(Rung::Restrict, group, whom, denied),
            outcome: Outcome::Done,
            detail: "it was done before the agent was restarted".to_owned(),
        });
        told.collect()
    }

    /// The outcome of a restriction was told under this number.
    pub fn told(&mut self, step: &Step, number: u64) {
        if let Some(denied) = self.one(step) {
            denied.told = Some(number);
            denied.settled = false;
        }
    }

    /// The newest policy was made after the server took all outcomes up to this number; whether that is news.
    pub fn settle(&mut self, number: u64) -> bool {
        let all = self.0.values_mut().flat_map(BTreeMap::values_mut);
        let news = all.filter(|it| !it.settled && it.told.is_some_and(|told| told <= number));
        news.map(|denied| denied.settled = true).count() > 0
    }

    /// Names that nodes have by this reading; whether that is news. A device that is not to be seen keeps those names that
    /// nobody else has by now.
    pub fn follow(&mut self, seen: &Observation, kernel: &mut dyn Kernel) -> bool {
        let mut others: Option<BTreeMap<String, DeviceKey>> = None;
        let mut news = false;
        for (whom, denied) in self.0.values_mut().flatten() {
            let mut nodes: BTreeSet<String> = kernel.nodes(&whom.device).into_iter().collect();
            if nodes.is_empty() {
                let others = others.get_or_insert_with(|| {
                    let named = |key: &DeviceKey| {
                        let nodes = kernel.nodes(key).into_iter();
                        nodes.map(|node| (node, key.clone())).collect::<Vec<_>>()
                    };
                    seen.devices.keys().flat_map(named).collect()
                });
                nodes.clone_from(&denied.nodes);
                nodes.retain(|node| others.get(node).is_none_or(|key| *key == whom.device));
            }
            news |= nodes != denied.nodes;
            denied.nodes = nodes;
        }
        news
    }

    /// Steps by which everything is allowed again, apart from what was tried just now.
    #[must_use]
    pub fn all(&self, now_ms: u64) -> Vec<Step> {
        let all = self.each();
        let all = all.filter(|(_, _, denied)| denied.not_before_ms <= now_ms);
        all.map(|(group, whom, denied)| step(Rung::Lift, group, whom, denied))
            .collect()
    }

    /// What the group of this step is to be denied once it is done.
    #[must_use]
    pub fn denied_after(&self, step: &Step) -> BTreeSet<String> {
        let denied = self.0.get(&step.group);
        let others = denied
            .into_iter()
            .flatten()
            .filter(|(whom, _)| **whom != step.whom);
        let mut nodes: BTreeSet<String> = others
            .flat_map(|(_, denied)| denied.nodes.iter().cloned())
            .collect();
        if step.rung == Rung::Restrict {
            nodes.extend(step.nodes.iter().cloned());
        }
        nodes
    }

    pub(super) fn has(&self, group: &str, whom: &Whom, nodes: &[String]) -> bool {
        let denied = self.0.get(group).and_then(|group| group.get(whom));
        denied.is_some_and(|denied| nodes.iter().all(|node| denied.nodes.contains(node)))
    }

    pub(super) fn done(&mut self, step: &Step) {
        match step.rung {
            Rung::Restrict => {
                let denied = Denied {
                    nodes: step.nodes.iter().cloned().collect(),
                    class: step.class,
                    settled: false,
                    told: None,
                    not_before_ms: 0,
                };
                let group = self.0.entry(step.group.clone()).or_default();
                group.insert(step.whom.clone(), denied);
            }
            Rung::Lift => {
                if let Some(denied) = self.0.get_mut(&step.group) {
                    denied.remove(&step.whom);
                    if denied.is_empty() {
                        self.0.remove(&step.group);
                    }
                }
            }
            Rung::Warn | Rung::Term | Rung::Kill => {}
        }
    }

    pub(super) fn not_lifted(&mut self, step: &Step, now_ms: u64) {
        if let Some(denied) = self.one(step) {
            denied.not_before_ms = now_ms.saturating_add(AGAIN_MS);
        }
    }

    /// Those that this policy does not ask for any more.
    pub(super) fn to_lift(&self, policy: &Policy, most: Mode, now_ms: u64) -> Vec<Step> {
        let over = self.each().filter(|(_, whom, denied)| {
            denied.settled && denied.not_before_ms <= now_ms && !stays(policy, most, whom)
        });
        over.map(|(group, whom, denied)| step(Rung::Lift, group, whom, denied))
            .collect()
    }

    /// Those of groups in which there is somebody else by now, who may hold the device for all that is known.
    pub(super) fn shared(
        &self,
        found: &BTreeMap<Whom, Finding>,
        kernel: &mut dyn Kernel,
        now_ms: u64,
    ) -> Vec<Step> {
        let mut over = Vec::new();
        for (group, denied) in &self.0 {
            let Some(tenants) = kernel.tenants(group) else {
                continue;
            };
            for (whom, one) in denied {
                let also = |other: &Whom| found.contains_key(other) || denied.contains_key(other);
                let others = others(&tenants, whom).any(|other| !also(&other));
                if others && one.settled && one.not_before_ms <= now_ms {
                    tracing::warn!(group, device = %whom.device, "somebody else is in a group that is denied a device");
                    over.push(step(Rung::Lift, group, whom, one));
                }
            }
        }
        over
    }

    fn each(&self) -> impl Iterator<Item = (&String, &Whom, &Denied)> {
        let groups = self.0.iter();
        groups.flat_map(|(group, denied)| {
            denied
                .iter()
                .map(move |(whom, denied)| (group, whom, denied))
        })
    }

    fn one(&mut self, step: &Step) -> Option<&mut Denied> {
        self.0.get_mut(&step.group)?.get_mut(&step.whom)
    }
}

fn step(rung: Rung, group: &str, whom: &Whom, denied: &Denied) -> Step {
    Step {
        rung,
        whom: whom.clone(),
        class: denied.class,
        process: None,
        group: group.to_owned(),
        nodes: denied.nodes.iter().cloned().collect(),
    }
}

/// Whoever else of these might hold the violator's device.
pub(super) fn others(
    tenants: &BTreeSet<Option<String>>,
    whom: &Whom,
) -> impl Iterator<Item = Whom> {
    let others = tenants.iter().filter(|tenant| **tenant != whom.tenant);
    others.map(|tenant| Whom {
        tenant: tenant.clone(),
        device: whom.device.clone(),
    })
}

fn stays(policy: &Policy, most: Mode, whom: &Whom) -> bool {
    if most < Mode::Restrict {
        return false;
    }
    match &whom.tenant {
        // A session that begins, or a window, lowers the ladder for a while; nothing is given back for that.
        None => policy.unattributed_chosen >= Mode::Restrict,
        Some(_) => {
            let verdict = policy.verdicts.get(whom);
            policy.denials.contains(whom)
                || verdict.is_some_and(|verdict| {
                    // What is only held back for a while is not taken back.
                    verdict.ladder.mode >= Mode::Restrict || !verdict.held.is_empty()
                })
        }
    }
}
