//! Who uses licences, laid upon licence quotas.
//!
//! A licence is used by a licensed vGPU instance of the product that the tenant holds, and by a seat that was checked
//! out. Several quotas of one tenant and product add up: those that grant are filled first, sooner end before later,
//! and what is over all of them stays on the last that grants, so that `used` above the limit is shown as it is. When none
//! grants any more, they are filled in the same order as far as they once granted.

use std::collections::{BTreeMap, BTreeSet};

use crate::device::LicenceState;
use crate::id::{LicenceQuotaId, ProductId, TenantName};
use crate::licence::{LicenceQuota, Product};
use crate::state::State;

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
    order.sort_by_key(|quota| {
        let terms = &quota.terms;
        (
            terms.product,
            terms.expires_at.is_none(),
            terms.expires_at,
            terms.quota,
        )
    });
    let mut charged = BTreeMap::new();
    let mut left = licences_used(state, tenant);
    let mut fill = |quota: &LicenceQuota, up_to: u32, charged: &mut BTreeMap<_, u64>| {
        let left = left.entry(quota.terms.product).or_insert(0);
        let here = (*left).min(u64::from(up_to));
        *left -= here;
        *charged.entry(quota.terms.quota).or_insert(0) += here;
    };
    for quota in &order {
        fill(quota, quota.grants(), &mut charged);
    }
    let granting: BTreeSet<ProductId> = order
        .iter()
        .filter(|quota| quota.counts())
        .map(|quota| quota.terms.product)
        .collect();
    // Where nothing grants any more, each keeps what it once let the tenant have.
    for quota in order
        .iter()
        .filter(|q| !granting.contains(&q.terms.product))
    {
        fill(quota, quota.terms.max, &mut charged);
    }
    for (product, over) in left.into_iter().filter(|(_, over)| *over > 0) {
        let bears = |quota: &&&LicenceQuota| {
            quota.terms.product == product && quota.counts() == granting.contains(&product)
        };
        if let Some(quota) = order.iter().rfind(bears) {
            *charged.entry(quota.terms.quota).or_insert(0) += over;
        }
    }
    charged
}
