//! What a tenant uses, quota by quota.
//!
//! Each device that a tenant holds or leases counts once, against one quota: a device of a node that is dedicated to the
//! tenant against that dedicated quota, a MIG or vGPU instance against its type, the rest against flexible. What is
//! leased as a number only adds what no held device without a lease covers. Where several quotas fit, those that grant
//! come first, then the source that the settings name, sooner end before later; what is over all of them stays on the
//! last that grants, so that `used` above the limit is shown as it is.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::device::{Device, DeviceKey};
use crate::id::{NodeName, QuotaId, TenantName, Timestamp};
use crate::quota::{Quota, QuotaType};
use crate::settings::LeaseMode;
use crate::state::{Charge, Group, State, type_of};

/// Why the ledger does not justify a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ViolationClass {
    /// No quota fits, or no lease where one is required.
    Squatter,
    /// The node is dedicated to another tenant, the device leased to one, or the tenant kept on its dedicated nodes.
    Foreign,
    /// More than the quotas that fit.
    OverQuota,
}

impl ViolationClass {
    /// The word of metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Squatter => "squatter",
            Self::Foreign => "foreign",
            Self::OverQuota => "over_quota",
        }
    }
}

/// A holder that the ledger does not justify.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Why.
    pub class: ViolationClass,
    /// Where.
    pub node: NodeName,
    /// What is held.
    pub device: DeviceKey,
}

/// One tenant's devices laid upon its quotas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Devices counted against each quota; every quota of the tenant has a row.
    pub used: BTreeMap<QuotaId, u64>,
    /// Those of them that are leased.
    pub leased: BTreeMap<QuotaId, u64>,
    /// Those of them that are held.
    pub observed: BTreeMap<QuotaId, u64>,
    /// What is held and not justified.
    pub violations: Vec<Violation>,
    over: BTreeMap<Group, u64>,
}

impl Usage {
    /// Devices counted against a quota.
    #[must_use]
    pub fn of(&self, quota: QuotaId) -> u64 {
        self.used.get(&quota).copied().unwrap_or(0)
    }

    /// Devices, held or leased, beyond what quotas grant.
    #[must_use]
    pub fn excess(&self) -> u64 {
        self.over.values().sum()
    }

    /// Those of them in one group.
    #[must_use]
    pub fn over(&self, group: &Group) -> u64 {
        self.over.get(group).copied().unwrap_or(0)
    }

    fn add_over(&mut self, group: &Group, count: u64) {
        if count > 0 {
            *self.over.entry(group.clone()).or_insert(0) += count;
        }
    }

    /// The same by what it is an excess of; groups without one are absent.
    #[must_use]
    pub fn excess_in(&self) -> &BTreeMap<Group, u64> {
        &self.over
    }

    fn charge(&mut self, quota: Option<QuotaId>, count: u64, leased: bool, observed: bool) {
        let Some(quota) = quota else { return };
        *self.used.entry(quota).or_insert(0) += count;
        if leased {
            *self.leased.entry(quota).or_insert(0) += count;
        }
        if observed {
            *self.observed.entry(quota).or_insert(0) += count;
        }
    }
}

/// What `tenant` uses now.
#[must_use]
pub fn usage(state: &State, tenant: &TenantName) -> Usage {
    let quotas: Vec<&Quota> = state.quotas_of(tenant).collect();
    usage_with(state, tenant, &quotas)
}

/// What `tenant` would use if it had these quotas.
#[must_use]
pub fn usage_with(state: &State, tenant: &TenantName, quotas: &[&Quota]) -> Usage {
    let order = in_order(state, quotas);
    let none = || quotas.iter().map(|quota| (quota.id, 0)).collect();
    let mut usage = Usage {
        used: none(),
        leased: none(),
        observed: none(),
        violations: Vec::new(),
        over: BTreeMap::new(),
    };
    let mut unplaced: BTreeMap<Group, u64> = state
        .demands(tenant)
        .filter(|(_, demand)| demand.unplaced > 0)
        .map(|(group, demand)| (group.clone(), demand.unplaced))
        .collect();
    for unit in units(state, tenant) {
        let fitting = unit.fitting(&order);
        let group = unit.group(&fitting);
        let (charged, free) = choose(&fitting, &usage);
        // It runs without a lease of its own, and one that names no devices covers it.
        let covered = !unit.charge.leased && take_one(&mut unplaced, &group);
        let leased = unit.charge.leased || covered;
        usage.charge(
            charged.map(|quota| quota.id),
            1,
            leased,
            unit.charge.observed,
        );
        usage.add_over(&group, u64::from(free.is_none()));
        if !unit.charge.observed {
            continue;
        }
        let mut violate = |class| {
            usage.violations.push(Violation {
                class,
                node: unit.node.clone(),
                device: unit.key.clone(),
            });
        };
        if foreign(state, tenant, &unit) {
            violate(ViolationClass::Foreign);
        }
        let required = || state.lease_mode(tenant, &group.region) == LeaseMode::Required;
        match (charged, free) {
            (None, _) => violate(ViolationClass::Squatter),
            (Some(_), None) => violate(ViolationClass::OverQuota),
            (Some(_), Some(_)) if !leased && required() => violate(ViolationClass::Squatter),
            (Some(_), Some(_)) => {}
        }
    }
    for (group, count) in unplaced {
        charge_unplaced(&mut usage, &order, &group, count);
    }
    usage
}

/// Quotas in the order in which they are filled.
pub(crate) fn in_order<'a>(state: &State, quotas: &[&'a Quota]) -> Vec<&'a Quota> {
    let first = state.settings().consume_first;
    let mut order: Vec<&Quota> = quotas.to_vec();
    order.sort_by_key(|quota| {
        (
            quota.expired,
            quota.key.source != first,
            quota.expires_at.is_none(),
            quota.expires_at,
            quota.id,
        )
    });
    order
}

// One device that is charged to the tenant.
pub(crate) struct Unit<'a> {
    pub(crate) since: Timestamp,
    pub(crate) key: &'a DeviceKey,
    pub(crate) charge: &'a Charge,
    pub(crate) node: &'a NodeName,
    device: Option<&'a Device>,
}

impl Unit<'_> {
    // Quotas that it may be charged to, in order.
    pub(crate) fn fitting<'q>(&self, order: &[&'q Quota]) -> Vec<&'q Quota> {
        let model = &self.charge.group.model;
        let dedicated: Vec<&Quota> = order
            .iter()
            .copied()
            .filter(|quota| {
                quota.key.quota_type == QuotaType::Dedicated
                    && quota.nodes.contains(self.node)
                    && quota.model == *model
            })
            .collect();
        // One that has ended binds the node no more: it is charged only what nothing else could be.
        if dedicated.iter().any(|quota| !quota.expired) {
            return dedicated;
        }
        let own_type = self.own_type();
        let regional: Vec<&Quota> = order
            .iter()
            .copied()
            .filter(|quota| {
                quota.key.quota_type == own_type
                    && quota.model == *model
                    && quota.key.region == self.charge.group.region
            })
            .collect();
        if regional.is_empty() {
            dedicated
        } else {
            regional
        }
    }

    // The group under the quotas that are tried, which need not be those that the ledger has.
    pub(crate) fn group(&self, fitting: &[&Quota]) -> Group {
        let dedicated = fitting
            .iter()
            .any(|quota| quota.key.quota_type == QuotaType::Dedicated && !quota.expired);
        let quota_type = if dedicated {
            QuotaType::Dedicated
        } else {
            self.own_type()
        };
        Group {
            quota_type,
            ..self.charge.group.clone()
        }
    }

    fn own_type(&self) -> QuotaType {
        let kind = self
            .device
            .map_or(self.key.kind(), |device| device.report.key.kind());
        type_of(kind)
    }
}

// Longest held or leased first, so that what came last is what is over.
pub(crate) fn units<'a>(state: &'a State, tenant: &TenantName) -> Vec<Unit<'a>> {
    let mut units: Vec<Unit<'a>> = state
        .charges(tenant)
        .filter_map(|(key, charge)| {
            let device = state.device(key);
            let lease = state.lease_on(key).filter(|_| charge.leased);
            let held = device.and_then(|device| device.holders.get(tenant));
            let leased = lease.map(|lease| lease.granted_at);
            let since = held.copied().into_iter().chain(leased).min();
            let node = device.map(|device| &device.node);
            Some(Unit {
                since: since.unwrap_or_default(),
                key,
                charge,
                node: node.or_else(|| lease.and_then(|lease| lease.devices.get(key)))?,
                device,
            })
        })
        .collect();
    units.sort_by(|a, b| (a.since, a.key).cmp(&(b.since, b.key)));
    units
}

// The quota that a device is charged to, and the one that has room for it.
fn choose<'q>(fitting: &[&'q Quota], usage: &Usage) -> (Option<&'q Quota>, Option<&'q Quota>) {
    let free = fitting
        .iter()
        .find(|quota| quota.grants().admits(usage.of(quota.id), 1))
        .copied();
    let charged = free.or_else(|| {
        let granting = fitting.iter().rev().find(|quota| !quota.expired);
        granting.or(fitting.last()).copied()
    });
    (charged, free)
}

fn take_one(unplaced: &mut BTreeMap<Group, u64>, group: &Group) -> bool {
    match unplaced.get_mut(group) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        Some(_) | None => false,
    }
}

fn foreign(state: &State, tenant: &TenantName, unit: &Unit<'_>) -> bool {
    let bound = state.bound_tenant(unit.node);
    let leased = state.lease_on(unit.key).map(|lease| &lease.terms.tenant);
    let others = |whose: Option<&TenantName>| whose.is_some_and(|whose| whose != tenant);
    others(bound) || others(leased) || state.kept_off(tenant, unit.node)
}

// Numbers fill what devices left, and what is over stays on the last that grants.
fn charge_unplaced(usage: &mut Usage, order: &[&Quota], group: &Group, mut count: u64) {
    let fitting: Vec<&Quota> = order
        .iter()
        .copied()
        .filter(|quota| {
            quota.key.quota_type == group.quota_type
                && quota.model == group.model
                && quota.key.region == group.region
        })
        .collect();
    for quota in &fitting {
        let room = quota.grants().room(usage.of(quota.id)).min(count);
        usage.charge(Some(quota.id), room, true, false);
        count -= room;
    }
    usage.add_over(group, count);
    let granting = fitting.iter().rev().find(|quota| !quota.expired);
    let last = granting.or(fitting.last()).map(|quota| quota.id);
    usage.charge(last, count, true, false);
}
