//! Plans: who would have to go, and until when, if a tenant's quotas were smaller.
//!
//! A plan takes what is held and leased now, and that those who leave take their processes along. Leases that end by
//! themselves before it is their turn are no victims.
//!
//! The policy: leases go whole, the longest idle first; then those in use, or of which that is not known, the newest
//! first; then devices that are held without a lease, the newest first. Nothing goes that the rest makes unnecessary, and
//! what is ending already is not counted twice. A plan is about one tenant, so it names no other.

mod displaced;
mod scene;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::device::DeviceKey;
use crate::id::{LeaseId, NodeName, TenantName, Timestamp};
use crate::limit::Limit;
use crate::quota::Quota;
use crate::state::{Group, State};
use crate::usage::usage_with;

pub use displaced::Displaced;
pub(crate) use scene::activity;

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

/// Why something has to go, and until when it may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// From then on leases are ended.
    pub deadline: Timestamp,
    /// Why.
    pub cause: Cause,
}

impl Drain {
    /// Why, and until when.
    #[must_use]
    pub fn due(&self) -> Due {
        Due {
            deadline: self.deadline,
            cause: self.cause,
        }
    }
}

/// What would have to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whose.
    pub tenant: TenantName,
    /// The drain that begins; `None`: none does.
    pub due: Option<Due>,
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
    /// Those of them that leave by themselves: their leases are ending already, or end by the deadline.
    pub leaving: u64,
    /// The drain that ends the victims, a running one too; `None`: none does, and nothing is ended.
    pub due: Option<Due>,
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

/// Quotas of a tenant before and after a change.
pub(crate) struct Change<'a> {
    /// With what is leased and held.
    pub(crate) state: &'a State,
    /// Whose.
    pub(crate) tenant: &'a TenantName,
    /// What it has.
    pub(crate) before: Vec<&'a Quota>,
    /// What it will have.
    pub(crate) after: Vec<&'a Quota>,
    /// Leases that are gone by then.
    pub(crate) gone: BTreeSet<LeaseId>,
}

impl Change<'_> {
    /// Groups in which quotas grant something else, or more is over than before.
    pub(crate) fn groups(&self) -> BTreeSet<Group> {
        let usage = |quotas: &[&Quota]| usage_with(self.state, self.tenant, quotas);
        let (before, after) = (usage(&self.before), usage(&self.after));
        let of_quotas = self.before.iter().chain(&self.after);
        let of_quotas = of_quotas.map(|quota| quota.group());
        let groups: BTreeSet<Group> = of_quotas.chain(after.excess_in().keys().cloned()).collect();
        let changes = |group: &Group| {
            after.over(group) > before.over(group)
                || granted(&self.before, group) != granted(&self.after, group)
        };
        groups.into_iter().filter(changes).collect()
    }

    /// Whether more is over in a group than before, once leases have left that end by themselves by then.
    pub(crate) fn worse_by(&self, group: &Group, by: Timestamp) -> bool {
        let over = |quotas: &[&Quota]| {
            let mut scene = Scene::of(self.state, self.tenant, quotas, group, Some(by));
            scene.take_leaving(&self.gone);
            scene.over()
        };
        over(&self.after) > over(&self.before)
    }

    /// Who would have to go of these groups by these drains, which act in the order of their deadlines.
    pub(crate) fn plans(
        &self,
        groups: &BTreeSet<Group>,
        drains: &BTreeMap<Group, Due>,
    ) -> Vec<GroupPlan> {
        let mut turns: Vec<(bool, Option<Due>, &Group)> = groups
            .iter()
            .chain(drains.keys())
            .map(|group| (drains.get(group).copied(), group))
            .map(|(due, group)| (due.is_none(), due, group))
            .collect();
        turns.sort_unstable();
        turns.dedup();
        let mut ending = self.gone.clone();
        let mut plans = BTreeMap::new();
        for (_, due, group) in turns {
            plans.insert(group, self.group_plan(group, due, &mut ending));
        }
        plans.retain(|group, _| groups.contains(*group));
        plans.into_values().collect()
    }

    // `ending` are leases that another group of the same plan ends.
    fn group_plan(
        &self,
        group: &Group,
        due: Option<Due>,
        ending: &mut BTreeSet<LeaseId>,
    ) -> GroupPlan {
        let by = due.map(|due| due.deadline);
        let mut scene = Scene::of(self.state, self.tenant, &self.after, group, by);
        let (used, excess) = (scene.used(), scene.over());
        let due = due.filter(|_| excess > 0);
        scene.take_leaving(ending);
        let left = scene.over();
        let victims = match due {
            Some(_) => scene.victims(),
            None => Vec::new(),
        };
        for victim in &victims {
            if let Target::Lease { lease, .. } = victim.what {
                ending.insert(lease);
            }
        }
        GroupPlan {
            group: group.clone(),
            limit_before: granted(&self.before, group),
            limit_after: granted(&self.after, group),
            used,
            excess,
            leaving: excess - left,
            due,
            victims,
        }
    }
}

/// Who would have to go for a drain that runs; nobody where none does.
#[must_use]
pub fn drain_plan(state: &State, tenant: &TenantName, group: &Group) -> GroupPlan {
    let quotas: Vec<&Quota> = state.quotas_of(tenant).collect();
    let change = Change {
        state,
        tenant,
        before: quotas.clone(),
        after: quotas,
        gone: BTreeSet::new(),
    };
    let due = state.drain(tenant, group).map(Drain::due);
    change.group_plan(group, due, &mut BTreeSet::new())
}

/// Until when what is over may stay.
pub(crate) fn deadline(state: &State, cause: Cause, now: Timestamp) -> Timestamp {
    match cause {
        Cause::Shrink | Cause::Expiry => now.after(state.settings().drain_notice_ms),
        Cause::Release => now,
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
