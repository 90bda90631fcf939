//! Steps of agents: what is kept of them, what waits for a person, and whom a person let through.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use super::{State, pairs};
use crate::device::DeviceKey;
use crate::id::{NodeName, TenantName, Timestamp};
use crate::step::{Hold, Rung, Step, StepId, StepResult, StepRow};

/// Over how long steps are counted together, milliseconds.
pub(crate) const TOGETHER_MS: u64 = 60 * 1000;

/// What is kept of steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Steps {
    pub(crate) next: u64,
    /// The newest, [`crate::step::MOST_STEPS`] at most.
    #[serde(with = "pairs")]
    pub(crate) rows: OrdMap<StepId, Arc<StepRow>>,
    /// By tenant; `None`: processes of nobody.
    #[serde(with = "named")]
    pub(crate) holds: OrdMap<Option<TenantName>, Hold>,
    #[serde(with = "named")]
    pub(crate) confirmed: OrdMap<Option<TenantName>, Timestamp>,
    /// Last outcomes that were taken, by boot, the newest boot last.
    pub(crate) taken: OrdMap<NodeName, Vec<(String, u64)>>,
    #[serde(with = "pairs")]
    pub(crate) counts: OrdMap<Counted, u64>,
    /// Restrictions that agents told of and did not lift.
    pub(crate) restricted: OrdMap<NodeName, OrdSet<Restricted>>,
}

/// A tenant that is denied a device.
pub(crate) type Restricted = (TenantName, DeviceKey);

/// Steps that ended, by tenant, rung and what came of them; `None`: of nobody that the ledger knows.
pub(crate) type Counted = (Option<TenantName>, Rung, StepResult);

/// A map by tenant in JSON; nobody's entry has the empty name, which no tenant has.
mod named {
    use std::collections::BTreeMap;

    use imbl::OrdMap;
    use serde::de::{DeserializeOwned, Error as _};
    use serde::{Deserialize as _, Deserializer, Serialize, Serializer};

    use crate::id::TenantName;

    pub(super) fn serialize<V: Serialize, S: Serializer>(
        map: &OrdMap<Option<TenantName>, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let name =
            |tenant: &Option<TenantName>| tenant.as_ref().map_or("", TenantName::as_str).to_owned();
        serializer.collect_map(map.iter().map(|(tenant, value)| (name(tenant), value)))
    }

    pub(super) fn deserialize<'de, V: DeserializeOwned + Clone, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<OrdMap<Option<TenantName>, V>, D::Error> {
        let named = BTreeMap::<String, V>::deserialize(deserializer)?;
        let of = |(name, value): (String, V)| {
            let tenant = (!name.is_empty()).then(|| TenantName::new(&name));
            Ok((tenant.transpose().map_err(D::Error::custom)?, value))
        };
        named.into_iter().map(of).collect()
    }
}

impl Steps {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What one minute did to a tenant.
#[derive(Debug, Default)]
pub(crate) struct Together<'a> {
    pub(crate) processes: BTreeSet<(&'a NodeName, Option<u32>, Option<u64>, &'a str)>,
    pub(crate) devices: BTreeSet<&'a DeviceKey>,
}

impl<'a> Together<'a> {
    pub(crate) fn add(&mut self, node: &'a NodeName, step: &'a Step) {
        if step.rung.needs().is_none() {
            return;
        }
        self.devices.insert(&step.device);
        if step.rung.ends() {
            // A process is one wherever it is; a scope is known by its group.
            let group = step.pid.map_or(step.group.as_str(), |_| "");
            let process = (node, step.pid, step.start_time, group);
            self.processes.insert(process);
        }
    }
}

impl State {
    /// Steps after this one in order, the newest [`crate::step::MOST_STEPS`] at most.
    pub fn steps_after(&self, step: Option<StepId>) -> impl DoubleEndedIterator<Item = &StepRow> {
        let after = (
            step.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        );
        self.rows
            .steps
            .rows
            .range(after)
            .map(|(_, row)| row.as_ref())
    }

    /// Steps that ended, by tenant, rung and what came of them; `None`: of nobody that the ledger knows.
    pub fn step_counts(
        &self,
    ) -> impl Iterator<Item = (Option<&TenantName>, Rung, StepResult, u64)> {
        let counts = self.rows.steps.counts.iter();
        counts.map(|((tenant, rung, result), count)| (tenant.as_ref(), *rung, *result, *count))
    }

    /// Tenants against whom steps wait for a person; `None`: they wait against processes of nobody.
    pub fn holds(&self) -> impl Iterator<Item = (Option<&TenantName>, &Hold)> {
        let holds = self.rows.steps.holds.iter();
        holds.map(|(tenant, hold)| (tenant.as_ref(), hold))
    }

    /// Why steps against a tenant, or against processes of nobody, wait for a person; `None`: they do not.
    #[must_use]
    pub fn hold(&self, tenant: Option<&TenantName>) -> Option<&Hold> {
        let holds = &self.rows.steps.holds;
        (!holds.is_empty())
            .then(|| holds.get(&tenant.cloned()))
            .flatten()
    }

    /// Until when a person lets steps against a tenant, or against processes of nobody, through.
    #[must_use]
    pub fn let_through(&self, tenant: Option<&TenantName>, now: Timestamp) -> Option<Timestamp> {
        let until = self.rows.steps.confirmed.get(&tenant.cloned()).copied();
        until.filter(|until| now < *until)
    }

    /// The last outcome of a boot that was taken.
    #[must_use]
    pub fn outcome_taken(&self, node: &NodeName, boot: &str) -> Option<u64> {
        let boots = self.rows.steps.taken.get(node)?;
        let taken = boots.iter().find(|(known, _)| known == boot);
        taken.map(|(_, number)| *number)
    }

    /// Who is denied what on a node, by the agent's word.
    pub fn restricted(&self, node: &NodeName) -> impl Iterator<Item = (&TenantName, &DeviceKey)> {
        let here = self.rows.steps.restricted.get(node);
        here.into_iter()
            .flatten()
            .map(|(tenant, device)| (tenant, device))
    }

    /// Nodes on which a tenant is denied something.
    pub(crate) fn denying(&self, tenant: &TenantName) -> impl Iterator<Item = &NodeName> {
        let nodes = self.rows.steps.restricted.iter();
        let denying =
            nodes.filter(move |(_, here)| here.iter().any(|(denied, _)| denied == tenant));
        denying.map(|(node, _)| node)
    }

    /// What the last minute did to a tenant.
    pub(crate) fn together(&self, tenant: Option<&TenantName>, now: Timestamp) -> Together<'_> {
        let since = now.before(TOGETHER_MS);
        let recent = self.rows.steps.rows.values().rev();
        let recent = recent.take_while(|row| row.at > since);
        let own = recent.filter(|row| row.said_by.is_some() && row.step.tenant.as_ref() == tenant);
        let mut together = Together::default();
        own.for_each(|row| together.add(&row.node, &row.step));
        together
    }
}
