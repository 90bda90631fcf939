//! What a tenant uses, quota by quota.
//!
//! Each device that a tenant holds counts once, against one quota: a device of a node that is dedicated to the tenant
//! against that dedicated quota, a MIG or vGPU instance against its type, the rest against flexible. Where several
//! quotas fit, those that grant come first, purchase before assign, sooner end before later; what is over all of them
//! stays on the last that grants, so that `used` above the limit is shown as it is.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::device::{Device, DeviceKey, DeviceKind};
use crate::id::{NodeName, QuotaId, TenantName, Timestamp};
use crate::quota::{Quota, QuotaSource, QuotaType};
use crate::state::State;

/// Why the ledger does not justify a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ViolationClass {
    /// No quota fits.
    Squatter,
    /// The node is dedicated to another tenant.
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
    /// What is not justified.
    pub violations: Vec<Violation>,
}

impl Usage {
    /// Devices counted against a quota.
    #[must_use]
    pub fn of(&self, quota: QuotaId) -> u64 {
        self.used.get(&quota).copied().unwrap_or(0)
    }

    /// Devices beyond what quotas grant.
    #[must_use]
    pub fn excess(&self) -> u64 {
        self.violations
            .iter()
            .filter(|violation| violation.class != ViolationClass::Foreign)
            .map(|_| 1)
            .sum()
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
    let mut order: Vec<&Quota> = quotas.to_vec();
    order.sort_by_key(|quota| {
        (
            quota.expired,
            quota.key.source != QuotaSource::Purchase,
            quota.expires_at.is_none(),
            quota.expires_at,
            quota.id,
        )
    });
    let mut usage = Usage {
        used: quotas.iter().map(|quota| (quota.id, 0)).collect(),
        violations: Vec::new(),
    };
    for (key, device) in held(state, tenant) {
        let fitting: Vec<&Quota> = fitting(&order, state, device);
        let free = fitting
            .iter()
            .find(|quota| quota.grants().admits(usage.of(quota.id), 1));
        let charged = free.or_else(|| {
            let granting = fitting.iter().rev().find(|quota| !quota.expired);
            granting.or(fitting.last())
        });
        if let Some(quota) = charged {
            *usage.used.entry(quota.id).or_insert(0) += 1;
        }
        let mut violate = |class| {
            usage.violations.push(Violation {
                class,
                node: device.node.clone(),
                device: key.clone(),
            });
        };
        if state
            .bound_tenant(&device.node)
            .is_some_and(|bound| bound != tenant)
        {
            violate(ViolationClass::Foreign);
        }
        match (charged, free) {
            (None, _) => violate(ViolationClass::Squatter),
            (Some(_), None) => violate(ViolationClass::OverQuota),
            (Some(_), Some(_)) => {}
        }
    }
    usage
}

// Longest held first, so that what came last is what is over.
fn held<'a>(state: &'a State, tenant: &TenantName) -> Vec<(&'a DeviceKey, &'a Device)> {
    let mut held: Vec<(Timestamp, &DeviceKey, &Device)> = state
        .devices_of(tenant)
        .filter(|(_, device)| !device.report.partitioned)
        .map(|(key, device)| {
            let since = device.holders.get(tenant).copied().unwrap_or_default();
            (since, key, device)
        })
        .collect();
    held.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    held.into_iter()
        .map(|(_, key, device)| (key, device))
        .collect()
}

fn fitting<'a>(order: &[&'a Quota], state: &State, device: &Device) -> Vec<&'a Quota> {
    let dedicated: Vec<&Quota> = order
        .iter()
        .copied()
        .filter(|quota| {
            quota.key.quota_type == QuotaType::Dedicated
                && quota.nodes.contains(&device.node)
                && quota.model == device.canonical
        })
        .collect();
    // One that has ended binds the node no more: it is charged only what nothing else could be.
    if dedicated.iter().any(|quota| !quota.expired) {
        return dedicated;
    }
    let quota_type = match device.report.key.kind() {
        DeviceKind::Gpu => QuotaType::Flexible,
        DeviceKind::Mig => QuotaType::Mig,
        DeviceKind::Vgpu => QuotaType::Vgpu,
    };
    let region = state.node(&device.node).map(|node| &node.region);
    let regional: Vec<&Quota> = order
        .iter()
        .copied()
        .filter(|quota| {
            quota.key.quota_type == quota_type
                && quota.model == device.canonical
                && region == Some(&quota.key.region)
        })
        .collect();
    if regional.is_empty() {
        dedicated
    } else {
        regional
    }
}
