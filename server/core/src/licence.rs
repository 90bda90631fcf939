//! Licence quotas: how many licences of a software product a tenant may use, and who uses them.
//!
//! A licence is used by a licensed vGPU instance of the product that the tenant holds, and by a seat that was checked
//! out. Several quotas of one tenant and product add up: those that grant are filled first, sooner end before later,
//! and what is over all of them stays on the last that grants, so that `used` above the limit is shown as it is. When
//! none grants, all of it stays on the one that ended last, of several the oldest.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::device::LicenceState;
use crate::id::{
    Code, DisplayName, HardwareName, LicenceQuotaId, ProductId, SeatId, TenantName, Timestamp,
};
use crate::state::State;

/// vGPU types of one product at most.
pub const MOST_TYPES: usize = 256;

/// A software product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// Its number in portals.
    pub id: ProductId,
    /// Its name for people.
    pub name: DisplayName,
    /// Its code in portals.
    pub code: Code,
    /// vGPU types whose instances use a licence of it; `*` at one end stands for anything.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub vgpu_types: BTreeSet<HardwareName>,
}

impl Product {
    fn licenses(&self, vgpu_type: &str) -> bool {
        self.vgpu_types.iter().any(|pattern| {
            let pattern = pattern.as_str();
            match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
                (Some(end), _) => vgpu_type.ends_with(end),
                (None, Some(start)) => vgpu_type.starts_with(start),
                (None, None) => vgpu_type == pattern,
            }
        })
    }
}

/// What a licence quota entitles to; the body of its event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LicenceTerms {
    /// Our number of the quota.
    pub quota: LicenceQuotaId,
    /// Whose.
    pub tenant: TenantName,
    /// Of what.
    pub product: ProductId,
    /// How many licences, 0..=2147483647.
    pub max: u32,
    /// From then on it grants nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Switched on; a quota that is not grants nothing.
    pub is_active: bool,
}

/// A licence quota.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicenceQuota {
    /// What it entitles to.
    pub terms: LicenceTerms,
    /// Its end has been reached.
    pub expired: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl LicenceQuota {
    /// Licences that it lets the tenant use now.
    #[must_use]
    pub fn grants(&self) -> u32 {
        if self.counts() { self.terms.max } else { 0 }
    }

    /// It is switched on and has not ended.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.terms.is_active && !self.expired
    }
}

/// A licence that somebody checked out, until it is given back or ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seat {
    /// Our number.
    pub seat: SeatId,
    /// Against whose quota.
    pub tenant: TenantName,
    /// Of what.
    pub product: ProductId,
    /// Who has it: a user, a host, a job, as the caller names it.
    pub owner: DisplayName,
    /// When it ends unless it is renewed.
    pub expires_at: Timestamp,
}

/// The product that a vGPU type needs a licence of; where several would fit, the one with the lowest number.
#[must_use]
pub fn product_of<'a>(state: &'a State, vgpu_type: &str) -> Option<&'a Product> {
    state.products().find(|product| product.licenses(vgpu_type))
}

/// Licences of each product that a tenant uses now.
#[must_use]
pub fn licences_used(state: &State, tenant: &TenantName) -> BTreeMap<ProductId, u64> {
    let mut used = BTreeMap::new();
    for seat in state.seats_of(tenant) {
        *used.entry(seat.product).or_insert(0) += 1;
    }
    for (_, device) in state.devices_of(tenant) {
        if device.report.licence == Some(LicenceState::Licensed)
            && let Some(product) = product_of(state, &device.report.model)
        {
            *used.entry(product.id).or_insert(0) += 1;
        }
    }
    used
}

/// Licences charged to each licence quota of a tenant; every one of them has an entry.
#[must_use]
pub fn licence_usage(state: &State, tenant: &TenantName) -> BTreeMap<LicenceQuotaId, u64> {
    let mut order: Vec<&LicenceQuota> = state.licence_quotas_of(tenant).collect();
    let ends = |quota: &LicenceQuota| {
        let terms = &quota.terms;
        (terms.expires_at.is_none(), terms.expires_at)
    };
    order.sort_by_key(|quota| (quota.terms.product, ends(quota), quota.terms.quota));
    let mut charged = BTreeMap::new();
    let mut left = licences_used(state, tenant);
    for quota in &order {
        let left = left.entry(quota.terms.product).or_insert(0);
        let here = (*left).min(u64::from(quota.grants()));
        *left -= here;
        charged.insert(quota.terms.quota, here);
    }
    for (product, over) in left.into_iter().filter(|(_, over)| *over > 0) {
        let of_product = || order.iter().filter(|q| q.terms.product == product);
        let last = of_product().rfind(|quota| quota.counts());
        // Where none grants it stays where it was when the last ended, not on one that was made since.
        let last = last.or(of_product().rev().max_by_key(|quota| ends(quota)));
        if let Some(quota) = last {
            *charged.entry(quota.terms.quota).or_insert(0) += over;
        }
    }
    charged
}
