//! The ladder: from what a reading shows and what the ledger says to the steps that are due. Pure; whoever calls it knows
//! the time, does the steps and tells it what came of them.
//!
//! Restriction comes before eviction, or a supervisor would start the next process at once. Nothing is remembered over a
//! restart of the agent: each step begins with a reading and a policy of this run.

mod climb;
mod entry;
pub mod finding;
pub mod group;
mod restrictions;
mod spare;
pub mod step;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::observation::{DeviceKey, Observation, Owner};
use crate::policy::{Class, Mode, Policy, Whom};

use entry::{Entry, Sent};
use finding::{Finding, findings, known};
use group::Grouped;
pub use restrictions::{Restrictions, Wanted};
use step::{Outcome, Process, Rung, Step, Told};

/// Who was seen within this is the same violator still: ending a process for a moment begins no new grace. Milliseconds.
const SAME_MS: u64 = 60_000;
/// After a step that was not allowed or did not work, the next attempt. Milliseconds.
const AGAIN_MS: u64 = 5_000;
/// A killed process that is still there after this is stuck in the kernel, and a person is told. Milliseconds.
const STUCK_MS: u64 = 10_000;
/// Attempts to restrict a group before whoever is there is ended without it.
const ATTEMPTS: u8 = 3;
/// After a step whose object had gone the pause is twice this, then twice that, and so on. Milliseconds.
const READ_MS: u64 = 500;
/// So many times it doubles.
const LONGEST_PAUSE: u8 = 9;
/// So many steps in a row whose object had gone, and a person is told.
const ELUSIVE: u8 = 6;
/// Groups and reasons that are remembered of one violator.
const REMEMBERED: usize = 256;
/// Readings in a row that do not show it any more.
const CLEAN: u8 = 2;
/// Over this time ended processes of a tenant are counted. Milliseconds.
const MINUTE_MS: u64 = 60_000;
/// How often it is looked at who else is in a group that is denied something. Milliseconds.
const CROWD_MS: u64 = 5_000;

/// What this node can do, and how far its operator lets it go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Able {
    /// The highest rung on this node.
    pub most: Mode,
    /// Processes of one tenant that are ended within a minute, at most.
    pub ended_per_minute: usize,
    /// Why nothing can be restricted; `None`: it can.
    pub no_restriction: Option<String>,
    /// Why nobody can be signalled; `None`: it can.
    pub no_signal: Option<String>,
}

/// Facts of the kernel that only a step needs.
pub trait Kernel {
    /// The group of this process; `None`: it has gone.
    fn group(&mut self, process: Process) -> Option<Grouped>;
    /// Its control group as `/proc/PID/cgroup` writes it, for who checks it again.
    fn path(&mut self, process: Process) -> Option<String>;
    /// The device nodes without which nobody can use this device; empty: not known.
    fn nodes(&mut self, device: &DeviceKey) -> Vec<String>;
    /// Those of which whoever uses it has at least one open.
    fn open_nodes(&mut self, device: &DeviceKey) -> Vec<String>;
    /// Whose processes are in this group, whether they use a device or not; among them `None`: nobody's that the rules know.
    /// `None` of all: it cannot be told.
    fn tenants(&mut self, group: &str) -> Option<BTreeSet<Option<String>>>;
}

/// What is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// To be told; nothing is to be done.
    pub tell: Vec<Told>,
    /// To be asked for, and done as far as it is allowed.
    pub ask: Vec<Step>,
    /// To be done without asking: what was denied is allowed again.
    pub lift: Vec<Step>,
    /// Nodes of restricted devices have other names than they had: what the kernel denies is to be compared at once.
    pub renamed: bool,
}

/// Whose processes are in which control group; `None`: nobody's that the rules know.
type Owners = BTreeMap<String, BTreeSet<Option<String>>>;

// Only where something is to be denied.
fn owners(seen: &Observation, found: &BTreeMap<Whom, Finding>, kernel: &mut dyn Kernel) -> Owners {
    let mut owners = Owners::new();
    if found
        .values()
        .all(|finding| finding.verdict.ladder.mode < Mode::Restrict)
    {
        return owners;
    }
    for process in seen.devices.values().flat_map(|device| &device.processes) {
        let tenant = match &process.owner {
            Owner::System => continue,
            owner => owner.tenant().map(ToOwned::to_owned),
        };
        let named = process.pid.zip(process.start_time);
        let named = named.map(|(pid, start_time)| Process { pid, start_time });
        if let Some(Grouped::Theirs(group)) = named.and_then(|it| kernel.group(it)) {
            owners.entry(group).or_default().insert(tenant);
        }
    }
    owners
}

/// Violators that were seen, and what was done about them.
#[derive(Debug, Default)]
pub struct Plan {
    entries: BTreeMap<Whom, Entry>,
    restrictions: Restrictions,
    ended: BTreeMap<Option<String>, VecDeque<u64>>,
    classes: BTreeMap<(Option<String>, Class), u64>,
    /// When it was last looked at who else is in restricted groups. Milliseconds, CLOCK_BOOTTIME.
    looked_round_ms: Option<u64>,
}

impl Plan {
    /// What is due at `now_ms`, CLOCK_BOOTTIME, by this reading and this policy.
    pub fn look(
        &mut self,
        now_ms: u64,
        seen: &Observation,
        policy: &Policy,
        able: &Able,
        kernel: &mut dyn Kernel,
    ) -> Due {
        let found = findings(seen, policy);
        self.count(&found);
        let mut due = Due::default();
        let owners = owners(seen, &found, kernel);
        for (whom, finding) in &found {
            let mut entry = self
                .entries
                .remove(whom)
                .unwrap_or_else(|| Entry::new(finding.verdict.class, now_ms));
            entry.seen_ms = now_ms;
            entry.class = finding.verdict.class;
            (entry.clean, entry.clean_at_ms) = (0, seen.at_boottime_ms);
            entry
                .sent
                .retain(|process, _| finding.processes.contains(process));
            entry
                .spared
                .retain(|process, _| finding.processes.contains(process));
            let remembered = [
                entry.told.len(),
                entry.unrestricted.len(),
                entry.failed.len(),
            ];
            if remembered.iter().any(|many| *many > REMEMBERED) {
                entry.told.clear();
                entry.unrestricted.clear();
                entry.failed.clear();
            }
            let mut one = climb::One {
                whom,
                finding,
                entry: &mut entry,
                able,
                now_ms,
                found: &found,
                owners: &owners,
            };
            one.climb(&self.restrictions, kernel, &mut due);
            self.entries.insert(whom.clone(), entry);
        }
        self.leave(&found, seen, policy, now_ms, &mut due.tell);
        due.renamed = self.restrictions.follow(seen, kernel);
        due.lift = self.restrictions.to_lift(policy, able.most, now_ms);
        let looked = self.looked_round_ms;
        if looked.is_none_or(|at| now_ms.saturating_sub(at) >= CROWD_MS) {
            self.looked_round_ms = Some(now_ms);
            let shared = self.restrictions.shared(&found, kernel, now_ms);
            let new = shared.into_iter().filter(|step| !due.lift.contains(step));
            let new: Vec<Step> = new.collect();
            due.lift.extend(new);
        }
        due
    }

    /// A step was done, or was tried.
    pub fn done(&mut self, step: &Step, outcome: Outcome, detail: &str, now_ms: u64) {
        let landed = matches!(outcome, Outcome::Done);
        match step.rung {
            _ if landed => self.restrictions.done(step),
            Rung::Lift => self.restrictions.not_lifted(step, now_ms),
            Rung::Warn | Rung::Restrict | Rung::Term | Rung::Kill => {}
        }
        let Some(entry) = self.entries.get_mut(&step.whom) else {
            return;
        };
        match (step.rung, outcome) {
            (Rung::Restrict, Outcome::Impossible | Outcome::Refused) => {
                entry.unrestricted.insert(step.group.clone());
                entry.told.insert(detail.to_owned());
            }
            (Rung::Term | Rung::Kill, Outcome::Impossible) => {
                entry.not_before_ms = now_ms.saturating_add(MINUTE_MS);
            }
            (Rung::Term, Outcome::Done) => {
                let sent = Sent {
                    term_ms: now_ms,
                    kill_ms: None,
                    stuck: false,
                };
                entry
                    .sent
                    .extend(step.process.map(|process| (process, sent)));
            }
            (Rung::Kill, Outcome::Done) => {
                if let Some(sent) = step.process.and_then(|it| entry.sent.get_mut(&it)) {
                    sent.kill_ms = Some(now_ms);
                }
            }
            (Rung::Term | Rung::Kill, Outcome::Refused | Outcome::Failed) => {
                if let Some(process) = step.process {
                    entry.spare(process, now_ms);
                }
            }
            (rung, Outcome::Failed | Outcome::Refused | Outcome::Gone) => {
                if (rung, outcome) == (Rung::Restrict, Outcome::Failed) {
                    entry.fail(&step.group, now_ms);
                }
                let pause = if outcome == Outcome::Gone {
                    // The reading was older than that. Where each one is, it is not to be asked for at each look.
                    entry.gone = entry.gone.saturating_add(1);
                    READ_MS << entry.gone.min(LONGEST_PAUSE)
                } else {
                    AGAIN_MS
                };
                entry.not_before_ms = now_ms.saturating_add(pause);
            }
            (_, Outcome::Done | Outcome::Verified | Outcome::Impossible) => {}
        }
        if landed {
            entry.gone = 0;
            if step.rung == Rung::Restrict {
                entry.failed.remove(&step.group);
            }
        }
        if landed && matches!(step.rung, Rung::Restrict | Rung::Term | Rung::Kill) {
            let signalled = entry
                .last
                .as_ref()
                .is_some_and(|last| last.rung != Rung::Restrict);
            if !(signalled && step.rung == Rung::Restrict) {
                entry.last = Some(step.clone());
            }
        }
    }

    /// The server did not allow a step, or did not answer: it is asked for again later, if it is still due then.
    pub fn refused(&mut self, step: &Step, now_ms: u64) {
        if let Some(entry) = self.entries.get_mut(&step.whom) {
            entry.not_before_ms = now_ms.saturating_add(AGAIN_MS);
        }
        if step.rung == Rung::Term
            && let Some(times) = self.ended.get_mut(&step.whom.tenant)
        {
            times.pop_back();
        }
    }

    /// What is denied to whom.
    #[must_use]
    pub fn restrictions(&self) -> &Restrictions {
        &self.restrictions
    }

    /// What is denied to whom, for what the server said of it.
    pub fn restrictions_mut(&mut self) -> &mut Restrictions {
        &mut self.restrictions
    }

    /// Holders that are not justified, by tenant (`None`: nobody's) and class.
    #[must_use]
    pub fn violations(&self) -> &BTreeMap<(Option<String>, Class), u64> {
        &self.classes
    }

    fn count(&mut self, found: &BTreeMap<Whom, Finding>) {
        self.classes.clear();
        for (whom, finding) in found {
            let key = (whom.tenant.clone(), finding.verdict.class);
            *self.classes.entry(key).or_insert(0) += 1;
        }
    }

    // Those who are not found any more: justified by now, gone, or not to be seen.
    fn leave(
        &mut self,
        found: &BTreeMap<Whom, Finding>,
        seen: &Observation,
        policy: &Policy,
        now_ms: u64,
        tell: &mut Vec<Told>,
    ) {
        self.entries.retain(|whom, entry| {
            if found.contains_key(whom) || !known(seen, &whom.device) {
                return true;
            }
            let still_there = seen.devices.get(&whom.device).is_some_and(|device| {
                whom.tenant
                    .as_deref()
                    .is_some_and(|tenant| device.tenants().contains(tenant))
            });
            // The ledger justifies it now.
            if still_there && !policy.verdicts.contains_key(whom) {
                return false;
            }
            if seen.at_boottime_ms > entry.clean_at_ms {
                entry.clean_at_ms = seen.at_boottime_ms;
                entry.clean = entry.clean.saturating_add(1);
            }
            if entry.clean >= CLEAN {
                entry.sent.clear();
                if let Some(step) = entry.last.take() {
                    let detail = format!("{CLEAN} readings in a row do not show it");
                    tell.push(Told {
                        step,
                        outcome: Outcome::Verified,
                        detail,
                    });
                }
            }
            now_ms.saturating_sub(entry.seen_ms) < SAME_MS
        });
    }
}

#[cfg(test)]
mod tests;
