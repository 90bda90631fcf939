//! What a tenant is charged for in one group, as something from which holdings can be taken and given back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::{Activity, Target, Victim, granted};
use crate::device::DeviceKey;
use crate::id::{LeaseId, TenantName, Timestamp};
use crate::lease::Lease;
use crate::node::Node;
use crate::quota::{Quota, QuotaType};
use crate::state::{Demand, Group, State};
use crate::usage::{Kind, Laid, bearing, in_order, units};

/// Something of the tenant that is charged in the group, and may be ended.
pub(super) struct Candidate {
    what: Target,
    /// It ends already, or by itself in time.
    leaving: bool,
    devices: u64,
    unplaced: u64,
    activity: Activity,
    since: Timestamp,
}

type Rank<'a> = (
    u8,
    Timestamp,
    Reverse<Timestamp>,
    Reverse<LeaseId>,
    Option<&'a DeviceKey>,
);

impl Candidate {
    /// Its place in the order in which holdings go.
    fn rank(&self) -> Rank<'_> {
        let none = Timestamp::default();
        match (&self.what, self.activity) {
            (Target::Lease { lease, .. }, Activity::Idle { since }) => {
                (0, since, Reverse(self.since), Reverse(*lease), None)
            }
            (Target::Lease { lease, .. }, Activity::InUse | Activity::Unknown) => {
                (1, none, Reverse(self.since), Reverse(*lease), None)
            }
            (Target::Device { device, .. }, _) => {
                let lease = Reverse(LeaseId(0));
                (2, none, Reverse(self.since), lease, Some(device))
            }
        }
    }

    fn victim(&self) -> Victim {
        Victim {
            what: self.what.clone(),
            count: self.devices + self.unplaced,
            activity: self.activity,
            since: self.since,
        }
    }
}

// One charged device: of which kind and group it is, and whose.
struct Row {
    kind: Kind,
    group: Group,
    candidate: usize,
}

// What is leased as a number in a group whose quotas may be those of the devices.
struct Number {
    kind: Kind,
    unplaced: u64,
}

/// What a group is charged for, without what is gone.
pub(super) struct Scene<'a> {
    quotas: Vec<&'a Quota>,
    group: &'a Group,
    rows: Vec<Row>,
    numbers: BTreeMap<Group, Number>,
    empty: Laid,
    candidates: Vec<Candidate>,
    gone: Vec<bool>,
    demand: Demand,
}

impl<'a> Scene<'a> {
    /// Leases whose end comes by then leave by themselves; with `None` only those that are ending already.
    pub(super) fn of(
        state: &State,
        tenant: &TenantName,
        quotas: &[&'a Quota],
        group: &'a Group,
        by: Option<Timestamp>,
    ) -> Self {
        let order = in_order(state, quotas);
        let mut scene = Self {
            empty: Laid::upon(&order),
            quotas: order,
            group,
            rows: Vec::new(),
            numbers: BTreeMap::new(),
            candidates: Vec::new(),
            gone: Vec::new(),
            demand: Demand::default(),
        };
        let mut leases: BTreeMap<LeaseId, usize> = BTreeMap::new();
        for unit in units(state, tenant) {
            let fitting = unit.fitting(&scene.quotas);
            let own = unit.group(&scene.quotas, &fitting);
            let here = own == *group;
            if !related(&own, group) {
                continue;
            }
            let lease = state.lease_on(unit.key).filter(|_| unit.charge.leased);
            let at = match lease {
                Some(lease) => *leases
                    .entry(lease.id)
                    .or_insert_with(|| scene.add(of_lease(state, lease, by))),
                None => scene.add(Candidate {
                    what: Target::Device {
                        device: unit.key.clone(),
                        node: unit.node.clone(),
                    },
                    leaving: false,
                    devices: 0,
                    unplaced: 0,
                    activity: Activity::InUse,
                    since: unit.since,
                }),
            };
            scene.candidates[at].devices += u64::from(here);
            let kind = scene.empty.kind(&fitting);
            scene.rows.push(Row {
                kind,
                group: own,
                candidate: at,
            });
        }
        for (of, demand) in state.demands(tenant) {
            if related(of, group) && demand.unplaced > 0 {
                let kind = scene.empty.kind(&bearing(&scene.quotas, of));
                let unplaced = demand.unplaced;
                scene.numbers.insert(of.clone(), Number { kind, unplaced });
            }
        }
        for lease in state.leases_of(tenant).filter(|lease| lease.unplaced() > 0) {
            if lease.group() == *group {
                scene.add(Candidate {
                    unplaced: lease.unplaced(),
                    ..of_lease(state, lease, by)
                });
            }
        }
        for at in 0..scene.candidates.len() {
            scene.count(at, true);
        }
        scene
    }

    fn add(&mut self, candidate: Candidate) -> usize {
        self.candidates.push(candidate);
        self.gone.push(false);
        self.candidates.len() - 1
    }

    fn count(&mut self, at: usize, there: bool) {
        let candidate = &self.candidates[at];
        let leased = match candidate.what {
            Target::Lease { .. } => candidate.devices,
            Target::Device { .. } => 0,
        };
        let change = |figure: &mut u64, by: u64| match there {
            true => *figure += by,
            false => *figure -= by,
        };
        change(&mut self.demand.devices, candidate.devices);
        change(&mut self.demand.placed, leased);
        change(&mut self.demand.unplaced, candidate.unplaced);
    }

    /// Takes a candidate out.
    fn take(&mut self, at: usize) {
        self.gone[at] = true;
        self.count(at, false);
    }

    /// Puts a candidate back.
    fn give(&mut self, at: usize) {
        self.gone[at] = false;
        self.count(at, true);
    }

    /// Takes out what leaves by itself, and these leases.
    pub(super) fn take_leaving(&mut self, ending: &BTreeSet<LeaseId>) {
        for at in 0..self.candidates.len() {
            let candidate = &self.candidates[at];
            let going = match &candidate.what {
                Target::Lease { lease, .. } => candidate.leaving || ending.contains(lease),
                Target::Device { .. } => candidate.leaving,
            };
            if going {
                self.take(at);
            }
        }
    }

    /// Devices charged.
    pub(super) fn used(&self) -> u64 {
        self.demand.used()
    }

    /// Devices beyond what quotas grant.
    pub(super) fn over(&self) -> u64 {
        match self.group.quota_type {
            QuotaType::Dedicated => self.over_nodes(),
            // All quotas of the group fit all of it.
            QuotaType::Flexible | QuotaType::Mig | QuotaType::Vgpu => {
                let limit = granted(&self.quotas, self.group);
                limit.map_or(0, |limit| self.used().saturating_sub(limit))
            }
        }
    }

    /// What has to go of what is there so that nothing is over, in the order in which it goes.
    pub(super) fn victims(&mut self) -> Vec<Victim> {
        let mut order: Vec<usize> = (0..self.candidates.len())
            .filter(|at| !self.gone[*at])
            .collect();
        order.sort_by(|a, b| self.candidates[*a].rank().cmp(&self.candidates[*b].rank()));
        let mut chosen = Vec::new();
        for at in order {
            if self.over() == 0 {
                break;
            }
            self.take(at);
            chosen.push(at);
        }
        // The one that was taken last may make some of those before it unnecessary; they are spared, the last of them
        // first.
        if self.over() == 0 {
            let mut spared = BTreeSet::new();
            for at in chosen.iter().rev().copied() {
                self.give(at);
                if self.over() == 0 {
                    spared.insert(at);
                } else {
                    self.take(at);
                }
            }
            chosen.retain(|at| !spared.contains(at));
        }
        let chosen = chosen.into_iter();
        chosen.map(|at| self.candidates[at].victim()).collect()
    }

    // Dedicated quotas need not be about the same nodes, so the devices are laid upon them.
    fn over_nodes(&self) -> u64 {
        let mut laid = self.empty.clone();
        let mut over = 0;
        let mut bare: BTreeMap<&Group, u64> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| !self.gone[row.candidate]) {
            let borne = laid.lay_one(row.kind).is_some();
            over += u64::from(!borne && row.group == *self.group);
            match self.candidates[row.candidate].what {
                Target::Lease { .. } => {}
                Target::Device { .. } => *bare.entry(&row.group).or_default() += 1,
            }
        }
        for (group, number) in &self.numbers {
            let here = group == self.group;
            let unplaced = match here {
                true => self.demand.unplaced,
                false => number.unplaced,
            };
            let rest = unplaced.saturating_sub(bare.get(group).copied().unwrap_or(0));
            let (borne, _) = laid.lay(number.kind, rest);
            over += if here { rest - borne } else { 0 };
        }
        over
    }
}

// Dedicated quotas are about nodes, so those of other regions may charge the same quota.
fn related(of: &Group, group: &Group) -> bool {
    let dedicated = |it: &Group| it.quota_type == QuotaType::Dedicated;
    of == group || dedicated(of) && dedicated(group) && of.model == group.model
}

fn of_lease(state: &State, lease: &Lease, by: Option<Timestamp>) -> Candidate {
    let in_time = || by.is_some_and(|by| lease.ends_at().is_some_and(|end| end <= by));
    Candidate {
        what: Target::Lease {
            lease: lease.id,
            devices: lease.devices.clone(),
        },
        leaving: !lease.active() || in_time(),
        devices: 0,
        unplaced: 0,
        activity: activity(state, lease),
        since: lease.granted_at,
    }
}

/// Whether a lease is used.
pub(crate) fn activity(state: &State, lease: &Lease) -> Activity {
    let mut since = lease.granted_at;
    let mut unknown = lease.devices.is_empty();
    for key in lease.devices.keys() {
        let Some(device) = state.device(key) else {
            unknown = true;
            continue;
        };
        let told = state.node(&device.node).is_some_and(Node::told);
        let readable = told && device.report.readable();
        match device.idle_since {
            None => return Activity::InUse,
            Some(idle) if readable && !device.report.unattributed => since = since.max(idle),
            Some(_) => unknown = true,
        }
    }
    match unknown {
        true => Activity::Unknown,
        false => Activity::Idle { since },
    }
}
