//! Ends of quotas to come, and drains, as gauges.

use gpuquota_core::State;
use gpuquota_core::id::Timestamp;
use gpuquota_core::quota::Quota;
use gpuquota_proto::exposition::{Families, Labels};

use super::of_quota;

/// Adds rows for each quota that ends, and for each drain.
pub(super) fn drains(families: &mut Families, state: &State) {
    let ending: Vec<(Labels, Timestamp, &Quota)> = state
        .quotas()
        .filter_map(|quota| Some((of_quota(quota), quota.expires_at?, quota)))
        .collect();
    let mut rows = families.gauge(
        "gpuquota_quota_expires_timestamp_seconds",
        "End of the quota, seconds since 1970; absent for one that has none.",
    );
    for (labels, end, _) in &ending {
        rows.labelled(labels, seconds(*end));
    }
    let mut rows = families.gauge(
        "gpuquota_quota_expiry_notice_days",
        "28, 7 or 1: the last notice that was given of the quota's end; absent before the first and after the end.",
    );
    for (labels, _, quota) in ending.iter().filter(|(.., quota)| quota.in_force()) {
        if let Some(days) = quota.noticed {
            rows.labelled(labels, f64::from(days));
        }
    }
    let running: Vec<(Labels, f64, u64)> = state
        .drains()
        .map(|(tenant, group, drain)| {
            let labels = Labels::new(&[
                ("tenant", tenant.as_str()),
                ("region", group.region.as_str()),
                ("type", group.quota_type.as_str()),
                ("gpu_model", group.model.as_str()),
            ]);
            let excess = state.excess_in(tenant, group);
            (labels, seconds(drain.deadline), excess)
        })
        .collect();
    let mut rows = families.gauge(
        "gpuquota_drain_deadline_timestamp_seconds",
        "When leases of a tenant that is over a smaller quota are ended, seconds since 1970.",
    );
    for (labels, deadline, _) in &running {
        rows.labelled(labels, *deadline);
    }
    let mut rows = families.gauge(
        "gpuquota_drain_excess",
        "Devices beyond what the quotas grant while a drain runs.",
    );
    for (labels, _, excess) in &running {
        rows.labelled(labels, *excess as f64);
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.0 as f64 / 1000.0
}
