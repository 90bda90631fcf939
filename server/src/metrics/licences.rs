//! Licence quotas and seats as gauges.

use std::collections::BTreeMap;

use gpuquota_core::State;
use gpuquota_core::id::{ProductId, TenantName};
use gpuquota_core::licence::LicenceQuota;
use gpuquota_core::licence_usage::licence_usage;
use gpuquota_proto::exposition::{Families, Labels, truth};

/// Adds a row for each licence quota, and one for each tenant and product with seats.
pub(super) fn licences(families: &mut Families, state: &State) {
    let product = |id: ProductId| state.product(id).map_or("", |it| it.code.as_str());
    let mut used = BTreeMap::new();
    for (tenant, _) in state.tenants() {
        used.extend(licence_usage(state, tenant));
    }
    let labelled: Vec<(Labels, f64, &LicenceQuota)> = state
        .licence_quotas()
        .map(|quota| {
            let terms = &quota.terms;
            let id = terms.quota.0.to_string();
            let labels = Labels::new(&[
                ("tenant", terms.tenant.as_str()),
                ("product", product(terms.product)),
                ("quota", &id),
            ]);
            let used = used.get(&terms.quota).copied().unwrap_or(0);
            (labels, used as f64, quota)
        })
        .collect();
    let mut family = |name, help, value: &dyn Fn(&LicenceQuota, f64) -> f64| {
        let mut rows = families.gauge(name, help);
        for (labels, used, quota) in &labelled {
            rows.labelled(labels, value(quota, *used));
        }
    };
    family(
        "gpuquota_licence_limit",
        "Licences that the quota entitles to.",
        &|quota, _| f64::from(quota.terms.max),
    );
    family(
        "gpuquota_licence_active",
        "1 while the quota grants, 0 once it has expired or is switched off.",
        &|quota, _| truth(quota.counts()),
    );
    family(
        "gpuquota_licence_used",
        "Licences charged to the quota: licensed vGPU instances and seats.",
        &|_, used| used,
    );
    let mut seats: BTreeMap<(&TenantName, ProductId), u64> = BTreeMap::new();
    for seat in state.seats() {
        *seats.entry((&seat.tenant, seat.product)).or_insert(0) += 1;
    }
    let mut rows = families.gauge("gpuquota_seats", "Licences that are checked out.");
    for ((tenant, id), count) in seats {
        let labels = [("tenant", tenant.as_str()), ("product", product(id))];
        rows.row(&labels, count as f64);
    }
}
