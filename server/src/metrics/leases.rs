//! Gauges of leases: how many, and which of them stand idle.

use std::collections::BTreeMap;

use gpuquota_core::State;
use gpuquota_core::ghost::ghosts;
use gpuquota_core::id::{NodeName, TenantName, Timestamp};
use gpuquota_proto::exposition::Families;

/// Leases that are charged, and ghosts at `now`.
pub(super) fn leases(families: &mut Families, state: &State, now: Timestamp) {
    let mut counts = BTreeMap::from([("active", 0_u64), ("releasing", 0)]);
    for lease in state.live_leases() {
        *counts.entry(lease.state()).or_insert(0) += 1;
    }
    let mut rows = families.gauge(
        "gpuquota_leases",
        "Leases that are charged: active, or releasing until their devices are seen free.",
    );
    for (word, count) in counts {
        rows.row(&[("state", word)], count as f64);
    }
    let mut idle: BTreeMap<(&TenantName, &NodeName), u64> = BTreeMap::new();
    for ghost in ghosts(state, now) {
        let key = (&ghost.lease.terms.tenant, ghost.node);
        *idle.entry(key).or_insert(0) += 1;
    }
    let mut rows = families.gauge(
        "gpuquota_ghosts",
        "Devices that are leased and on which nothing has run for longer than the settings allow, by tenant and node.",
    );
    for ((tenant, node), count) in idle {
        let labels = [("tenant", tenant.as_str()), ("node", node.as_str())];
        rows.row(&labels, count as f64);
    }
}
