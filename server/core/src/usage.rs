//! What a tenant uses, quota by quota.
//!
//! Each device that a tenant holds or leases counts once, against one quota: a device of a node that is dedicated to the
//! tenant against that dedicated quota, a MIG or vGPU instance against its type, the rest against flexible. What is
//! leased as a number only adds what no held device without a lease covers. Where several quotas fit, those that grant
//! come first, then the source that the settings name, sooner end before later; what is over all of them stays on the
//! last that grants, so that `used` above the limit is shown as it is. Dedicated quotas may overlap in some of their
//! nodes: then a device goes to the first of its quotas that leaves room for all others that can be borne.

mod charged;
mod laid;
mod unit;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::device::DeviceKey;
use crate::id::{NodeName, QuotaId, TenantName};
use crate::quota::Quota;
use crate::settings::LeaseMode;
use crate::state::{Charge, Group, State};

pub(crate) use charged::{Charged, Row};
pub(crate) use laid::{Kind, Laid, Place};
pub(crate) use unit::{Unit, bearing, dedicated_to, units};

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
    /// On more cards of one node than a resource group of it allows.
    OverNodeLimit,
}

impl ViolationClass {
    /// The word of metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Squatter => "squatter",
            Self::Foreign => "foreign",
            Self::OverQuota => "over_quota",
            Self::OverNodeLimit => "over_node_limit",
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
    /// The quota that it counts against; `None`: none fits.
    pub quota: Option<QuotaId>,
    /// What it counts as.
    pub group: Group,
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
    let charged = Charged::of(state, tenant, quotas);
    let order = &charged.order;
    let none = || quotas.iter().map(|quota| (quota.id, 0)).collect();
    let mut usage = Usage {
        used: none(),
        leased: none(),
        observed: none(),
        violations: Vec::new(),
        over: BTreeMap::new(),
    };
    for row in &charged.rows {
        let unit = &row.unit;
        let stays = || last_of(order, &row.fitting);
        let quota = row.place.or_else(stays).map(|place| order[place].id);
        usage.charge(quota, 1, row.leased, unit.charge.observed);
        usage.add_over(&row.group, u64::from(row.place.is_none()));
        if !unit.charge.observed {
            continue;
        }
        let mut violate = |class| {
            usage.violations.push(Violation {
                class,
                node: unit.node.clone(),
                device: unit.key.clone(),
                quota,
                group: row.group.clone(),
            });
        };
        if foreign(state, tenant, unit) {
            violate(ViolationClass::Foreign);
        }
        let required = || state.lease_mode(tenant, &row.group.region) == LeaseMode::Required;
        match (quota, row.place) {
            (None, _) => violate(ViolationClass::Squatter),
            (Some(_), None) => violate(ViolationClass::OverQuota),
            (Some(_), Some(_)) if !row.leased && required() => violate(ViolationClass::Squatter),
            (Some(_), Some(_)) => {}
        }
    }
    for row in crowded(state, tenant, &charged) {
        let place = row.place.or_else(|| last_of(order, &row.fitting));
        usage.violations.push(Violation {
            class: ViolationClass::OverNodeLimit,
            node: row.unit.node.clone(),
            device: row.unit.key.clone(),
            quota: place.map(|place| order[place].id),
            group: row.group.clone(),
        });
    }
    // Numbers fill what devices left, and what is over stays on the last that grants.
    for number in &charged.numbers {
        for (place, share) in &number.shares {
            usage.charge(Some(order[*place].id), *share, true, false);
        }
        let over = number.count - number.borne;
        usage.add_over(&number.group, over);
        let last = last_of(order, &number.fitting).map(|place| order[place].id);
        usage.charge(last, over, true, false);
    }
    usage
}

/// Whether a tenant might begin to hold this device: its quotas bear it, no limit of cards and no other's lease or node
/// forbids it, and it has a lease where one is required. What it holds already it might hold anew.
#[must_use]
pub fn might_hold(state: &State, tenant: &TenantName, key: &DeviceKey) -> bool {
    let Some(device) = state.device(key) else {
        return false;
    };
    let group = state.group_of(tenant, device);
    let lease = state.lease_on(key).map(|lease| &lease.terms.tenant);
    let own = lease == Some(tenant);
    let required = state.lease_mode(tenant, &group.region) == LeaseMode::Required;
    let charge = Charge {
        group,
        leased: false,
        observed: true,
    };
    let unit = Unit::asked(key, device, &charge);
    if foreign(state, tenant, &unit) || (required && !own) {
        return false;
    }
    let quotas: Vec<&Quota> = state.quotas_of(tenant).collect();
    let charged = Charged::of(state, tenant, &quotas);
    if charged.rows.iter().any(|row| row.unit.key == key) {
        let usage = usage(state, tenant);
        return usage
            .violations
            .iter()
            .all(|violation| violation.device != *key);
    }
    let gpu_of = |key: &DeviceKey| {
        state
            .device(key)
            .and_then(|device| device.report.gpu().map(ToOwned::to_owned))
    };
    let mut cards: BTreeSet<String> = charged
        .rows
        .iter()
        .filter(|row| row.unit.node == unit.node)
        .filter_map(|row| gpu_of(row.unit.key))
        .collect();
    cards.extend(gpu_of(key));
    let limit = state.card_limit_on(tenant, unit.node);
    let crowded =
        limit.is_some_and(|limit| cards.len() > usize::try_from(limit).unwrap_or(usize::MAX));
    !crowded && charged.bears_one_more(&unit)
}

// What is held on cards beyond the limit of their node. Leased cards come first, for granting them kept to it.
fn crowded<'c, 'a>(
    state: &State,
    tenant: &TenantName,
    charged: &'c Charged<'a, '_>,
) -> Vec<&'c Row<'a>> {
    let mut by_node: BTreeMap<&NodeName, Vec<(&str, &Row<'_>)>> = BTreeMap::new();
    for row in &charged.rows {
        let device = state.device(row.unit.key);
        if let Some(gpu) = device.and_then(|device| device.report.gpu()) {
            let here = by_node.entry(row.unit.node).or_default();
            here.push((gpu, row));
        }
    }
    let mut over = Vec::new();
    for (node, mut rows) in by_node {
        let Some(limit) = state.card_limit_on(tenant, node) else {
            continue;
        };
        rows.sort_by_key(|(_, row)| !row.unit.charge.leased);
        let mut cards: BTreeSet<&str> = BTreeSet::new();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        for (gpu, row) in rows {
            if cards.len() < limit {
                cards.insert(gpu);
            }
            if !cards.contains(gpu) && row.unit.charge.observed {
                over.push(row);
            }
        }
    }
    over
}

// On which quota what is over stays.
fn last_of(order: &[&Quota], fitting: &[Place]) -> Option<Place> {
    let mut granting = fitting
        .iter()
        .rev()
        .filter(|place| order[**place].in_force());
    granting.next().or(fitting.last()).copied()
}

/// Quotas in the order in which they are filled.
pub(crate) fn in_order<'a>(state: &State, quotas: &[&'a Quota]) -> Vec<&'a Quota> {
    let first = state.settings().consume_first;
    let mut order: Vec<&Quota> = quotas.to_vec();
    order.sort_by_key(|quota| {
        (
            !quota.in_force(),
            quota.key.source != first,
            quota.expires_at.is_none(),
            quota.expires_at,
            quota.id,
        )
    });
    order
}

fn foreign(state: &State, tenant: &TenantName, unit: &Unit<'_>) -> bool {
    let bound = state.bound_tenant(unit.node);
    let leased = state.lease_on(unit.key).map(|lease| &lease.terms.tenant);
    let others = |whose: Option<&TenantName>| whose.is_some_and(|whose| whose != tenant);
    others(bound) || others(leased) || state.kept_off(tenant, unit.node)
}
