//! One violator at one moment: which rung is due.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::Entry;
use super::finding::Finding;
use super::group::Grouped;
use super::restrictions::{Restrictions, others};
use super::step::{Outcome, Process, Rung, Step, Told};
use super::{Able, Due, ELUSIVE, Kernel, Owners, STUCK_MS};
use crate::policy::{Mode, Whom};

const SHARED: &str = "others are, or may be, in its control group too";

/// A violator, what was found of it, and what was done about it.
pub(super) struct One<'a> {
    pub(super) whom: &'a Whom,
    pub(super) finding: &'a Finding,
    pub(super) entry: &'a mut Entry,
    pub(super) able: &'a Able,
    pub(super) now_ms: u64,
    /// All violators of the reading.
    pub(super) found: &'a BTreeMap<Whom, Finding>,
    /// Whose processes are in which group; `None`: nobody's.
    pub(super) owners: &'a Owners,
}

impl One<'_> {
    pub(super) fn climb(
        &mut self,
        restrictions: &Restrictions,
        kernel: &mut dyn Kernel,
        due: &mut Due,
    ) {
        let ladder = self.finding.verdict.ladder;
        let mode = ladder.mode.min(self.able.most);
        if mode > self.entry.warned {
            self.entry.warned = mode;
            let step = self.step(Rung::Warn, None, String::new(), Vec::new());
            let detail = self.finding.verdict.held.clone();
            due.tell.push(Told {
                step,
                outcome: Outcome::Done,
                detail,
            });
        }
        if mode < Mode::Restrict {
            return;
        }
        // People are given the time that they were told of, from when they were told.
        let restricts = *self.entry.restricts_ms.get_or_insert(self.now_ms);
        let begins = restricts.saturating_add(ladder.grace_ms);
        let ends = (mode >= Mode::Evict)
            .then(|| *self.entry.ends_ms.get_or_insert(self.now_ms))
            .map(|at| at.saturating_add(ladder.grace_ms));
        if self.now_ms < begins.max(self.entry.not_before_ms) {
            return;
        }
        if self.entry.gone >= ELUSIVE {
            let why = "it leaves its control groups before it can be acted upon there: end what moves it about";
            self.impossible(Rung::Term, why, due);
        }
        if self.finding.machine {
            let why = "a virtual machine holds it: end or move it by its hypervisor";
            self.impossible(Rung::Restrict, why, due);
            return;
        }
        let restrict = self.unrestricted(restrictions, kernel, due);
        let ready = restrict.is_empty();
        due.ask.extend(restrict);
        // Whoever is signalled while opens are still allowed is started again by its supervisor.
        if !ready || ends.is_none_or(|at| self.now_ms < at) {
            return;
        }
        if let Some(why) = &self.able.no_signal {
            let why = why.clone();
            self.impossible(Rung::Term, &why, due);
            return;
        }
        for process in &self.finding.processes {
            if let Some(spared) = self.entry.spared.get(process).copied() {
                if spared.times >= ELUSIVE {
                    let why = "one of its processes is not ended, as its outcomes say: a person must look at it";
                    self.impossible(Rung::Term, why, due);
                }
                if self.now_ms < spared.until_ms {
                    continue;
                }
            }
            let rung = match self.entry.sent.get_mut(process) {
                None => Rung::Term,
                Some(sent) => match sent.kill_ms {
                    None if self.now_ms < sent.term_ms.saturating_add(ladder.term_grace_ms) => {
                        continue;
                    }
                    None => Rung::Kill,
                    Some(at) if sent.stuck || self.now_ms < at.saturating_add(STUCK_MS) => continue,
                    Some(_) => {
                        sent.stuck = true;
                        let step = self.step(Rung::Kill, Some(*process), String::new(), Vec::new());
                        let detail =
                            "it was killed and is still there: the kernel does not let go of it";
                        due.tell.push(Told {
                            step,
                            outcome: Outcome::Failed,
                            detail: detail.to_owned(),
                        });
                        continue;
                    }
                },
            };
            // One that has gone meanwhile is not there in the next reading.
            let theirs = match kernel.group(*process) {
                Some(Grouped::Theirs(group)) => Some(group),
                Some(Grouped::Nobodys(_)) => kernel.path(*process),
                None => None,
            };
            let nodes = kernel.open_nodes(&self.whom.device);
            if let Some(path) = theirs
                && !nodes.is_empty()
            {
                due.ask.push(self.step(rung, Some(*process), path, nodes));
            }
        }
    }

    // Restrictions that are still to be asked for.
    fn unrestricted(
        &mut self,
        restrictions: &Restrictions,
        kernel: &mut dyn Kernel,
        due: &mut Due,
    ) -> Vec<Step> {
        if let Some(why) = &self.able.no_restriction {
            let why = why.clone();
            self.impossible(Rung::Restrict, &why, due);
            return Vec::new();
        }
        let nodes = kernel.nodes(&self.whom.device);
        if nodes.is_empty() {
            self.impossible(Rung::Restrict, "its device nodes are not known", due);
            return Vec::new();
        }
        let mut groups = BTreeSet::new();
        for process in &self.finding.processes {
            match kernel.group(*process) {
                Some(Grouped::Theirs(group)) if self.is_shared(&group) => {
                    self.impossible(Rung::Restrict, SHARED, due);
                }
                Some(Grouped::Theirs(group)) => {
                    groups.insert(group);
                }
                Some(Grouped::Nobodys(why)) => self.impossible(Rung::Restrict, why, due),
                None => {}
            }
        }
        groups.retain(|group| {
            !restrictions.has(group, self.whom, &nodes) && !self.entry.unrestricted.contains(group)
        });
        let all = groups.len();
        groups.retain(|group| !self.entry.gave_up(group, self.now_ms));
        if groups.len() < all {
            let why = "a control group of its cannot be restricted, as outcomes say; it is tried again each minute";
            self.impossible(Rung::Restrict, why, due);
        }
        let all = groups.len();
        groups.retain(|group| {
            let tenants = kernel.tenants(group);
            tenants.is_some_and(|tenants| !self.among_others(&tenants))
        });
        if groups.len() < all {
            self.impossible(Rung::Restrict, SHARED, due);
        }
        let steps = groups.into_iter();
        steps
            .map(|group| self.step(Rung::Restrict, None, group, nodes.clone()))
            .collect()
    }

    // Somebody else is in it who may hold the device, for all that is known.
    fn is_shared(&self, group: &str) -> bool {
        let owners = self.owners.get(group);
        owners.is_some_and(|owners| self.among_others(owners))
    }

    fn among_others(&self, tenants: &BTreeSet<Option<String>>) -> bool {
        others(tenants, self.whom).any(|other| !self.found.contains_key(&other))
    }

    // Told once of each violator.
    fn impossible(&mut self, rung: Rung, why: &str, due: &mut Due) {
        if self.entry.told.insert(why.to_owned()) {
            let step = self.step(rung, None, String::new(), Vec::new());
            due.tell.push(Told {
                step,
                outcome: Outcome::Impossible,
                detail: why.to_owned(),
            });
        }
    }

    fn step(
        &self,
        rung: Rung,
        process: Option<Process>,
        group: String,
        nodes: Vec<String>,
    ) -> Step {
        Step {
            rung,
            whom: self.whom.clone(),
            class: self.finding.verdict.class,
            process,
            group,
            nodes,
        }
    }
}
