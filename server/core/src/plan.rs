//! Plans: who would have to go, and until when, if a tenant's quotas were smaller.
//!
//! The policy: leases go whole, the longest idle first; then those in use, or of which that is not known, the newest
//! first; then devices that are held without a lease, the newest first. Nothing goes that the rest makes unnecessary, and
//! what is ending already is not counted twice. A plan is about one tenant, so it names no other.

mod scene;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::device::DeviceKey;
use crate::id::{LeaseId, NodeName, TenantName, Timestamp};
use crate::limit::Limit;
use crate::quota::Quota;
use crate::state::{Group, State};
use crate::usage::{Usage, usage_with};

use scene::Scene;

/// Why quotas became smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A limit was lowered, or nodes were taken from it.
    Shrink,
    /// An end was reached.
    Expiry,
    /// A quota was released by force; its leases end at once.
    Release,
}

impl Cause {
    /// The word of the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shrink => "shrink",
            Self::Expiry => "expiry",
            Self::Release => "release",
        }
    }
}

/// What ended a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainEnd {
    /// The tenant uses no more than it may.
    Met,
    /// A quota was set so that it may.
    Withdrawn,
    /// Nothing was given back: models, regions or dedicated nodes changed, and it is charged elsewhere. Where it is over
    /// there, a drain goes on there.
    Moved,
}

/// What is over in one group has until a deadline to leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// When it began.
    pub since: Timestamp,
    /// From then on leases are ended.
    pub deadline: Timestamp,
    /// Why.
    pub cause: Cause,
    /// When the deadline was acted upon.
    pub enforced_at: Option<Timestamp>,
}

/// What would have to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whose.
    pub tenant: TenantName,
    /// Why.
    pub cause: Cause,
    /// Until when it may stay.
    pub deadline: Timestamp,
    /// Where limits change or more is over than before.
    pub groups: Vec<GroupPlan>,
}

/// What would have to go of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPlan {
    /// Of what.
    pub group: Group,
    /// What the quotas of the group grant now, devices; `None` is unlimited.
    pub limit_before: Option<u64>,
    /// What they would grant.
    pub limit_after: Option<u64>,
    /// Devices charged.
    pub used: u64,
    /// Devices that would be over.
    pub excess: u64,
    /// Those of them that leave by themselves: their leases are ending already.
    pub leaving: u64,
    /// What would be ended, in this order.
    pub victims: Vec<Victim>,
}

/// Something that would have to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// What.
    pub what: Target,
    /// Devices of the group that it is charged for.
    pub count: u64,
    /// Whether it is used.
    pub activity: Activity,
    /// Granted, or held, since.
    pub since: Timestamp,
}

/// What can be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A lease, whole.
    Lease {
        /// Which.
        lease: LeaseId,
        /// Its devices and their nodes; none for a count.
        devices: BTreeMap<DeviceKey, NodeName>,
    },
    /// A device that is held without a lease.
    Device {
        /// Which.
        device: DeviceKey,
        /// Where.
        node: NodeName,
    },
}

/// Whether something is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// No process is on any of its devices.
    Idle {
        /// Since when, as far as it is the lease's.
        since: Timestamp,
    },
    /// At least one process is.
    InUse,
    /// Not known: a count, or a device or node that cannot be read now.
    Unknown,
}

/// Who would have to go if `tenant` had these quotas.
#[must_use]
pub fn plan(
    state: &State,
    tenant: &TenantName,
    quotas: &[&Quota],
    cause: Cause,
    now: Timestamp,
) -> Plan {
    let have: Vec<&Quota> = state.quotas_of(tenant).collect();
    let (before, after) = (
        usage_with(state, tenant, &have),
        usage_with(state, tenant, quotas),
    );
    let of_quotas = have.iter().chain(quotas).map(|quota| quota.group());
    let groups: BTreeSet<Group> = of_quotas.chain(after.excess_in().keys().cloned()).collect();
    let mut ending = BTreeSet::new();
    let mut plans = Vec::new();
    for group in groups {
        let over = |usage: &Usage| usage.excess_in().get(&group).copied();
        let worse = over(&after).unwrap_or(0) > over(&before).unwrap_or(0);
        if !worse && granted(&have, &group) == granted(quotas, &group) {
            continue;
        }
        plans.push(group_plan(state, tenant, quotas, &group, &mut ending));
    }
    Plan {
        tenant: tenant.clone(),
        cause,
        deadline: deadline(state, cause, now),
        groups: plans,
    }
}

/// Who would have to go now for a drain that runs.
#[must_use]
pub fn drain_plan(state: &State, tenant: &TenantName, group: &Group) -> GroupPlan {
    let quotas: Vec<&Quota> = state.quotas_of(tenant).collect();
    group_plan(state, tenant, &quotas, group, &mut BTreeSet::new())
}

/// Until when what is over may stay.
pub(crate) fn deadline(state: &State, cause: Cause, now: Timestamp) -> Timestamp {
    match cause {
        Cause::Shrink | Cause::Expiry => now.after(state.settings().drain_notice_ms),
        Cause::Release => now,
    }
}

// `ending` are leases that another group of the same plan ends.
fn group_plan(
    state: &State,
    tenant: &TenantName,
    quotas: &[&Quota],
    group: &Group,
    ending: &mut BTreeSet<LeaseId>,
) -> GroupPlan {
    let have: Vec<&Quota> = state.quotas_of(tenant).collect();
    let mut scene = Scene::of(state, tenant, quotas, group);
    let (used, excess) = (scene.used(), scene.over());
    for at in 0..scene.candidates.len() {
        let going = match (&scene.candidates[at].what, scene.candidates[at].leaving) {
            (_, true) => true,
            (Target::Lease { lease, .. }, false) => ending.contains(lease),
            (Target::Device { .. }, false) => false,
        };
        if going {
            scene.take(at);
        }
    }
    let mut order: Vec<usize> = (0..scene.candidates.len())
        .filter(|at| !scene.gone[*at])
        .collect();
    order.sort_by(|a, b| {
        scene.candidates[*a]
            .rank()
            .cmp(&scene.candidates[*b].rank())
    });
    let left = scene.over();
    let mut chosen = Vec::new();
    for at in order {
        if scene.over() == 0 {
            break;
        }
        scene.take(at);
        chosen.push(at);
    }
    // The one that was taken last may make some of those before it unnecessary; they are spared, the last of them first.
    if scene.over() == 0 {
        let mut spared = BTreeSet::new();
        for at in chosen.iter().rev().copied() {
            scene.give(at);
            if scene.over() == 0 {
                spared.insert(at);
            } else {
                scene.take(at);
            }
        }
        chosen.retain(|at| !spared.contains(at));
    }
    let victims: Vec<Victim> = chosen
        .into_iter()
        .map(|at| scene.candidates[at].victim())
        .collect();
    for victim in &victims {
        if let Target::Lease { lease, .. } = victim.what {
            ending.insert(lease);
        }
    }
    GroupPlan {
        group: group.clone(),
        limit_before: granted(&have, group),
        limit_after: granted(quotas, group),
        used,
        excess,
        leaving: excess - left,
        victims,
    }
}

// What the quotas of a group grant together; `None` is unlimited.
fn granted(quotas: &[&Quota], group: &Group) -> Option<u64> {
    let mut total: u64 = 0;
    for quota in quotas.iter().filter(|quota| quota.group() == *group) {
        match quota.grants() {
            Limit::Unlimited => return None,
            Limit::Finite(limit) => total += u64::from(limit),
        }
    }
    Some(total)
}
