//! Steps of agents, who waits for a person, and nodes that do not act by their newest policy yet.

use std::sync::atomic::Ordering;

use gpuquota_core::State;
use gpuquota_core::id::TenantName;
use gpuquota_proto::exposition::Families;

use crate::service::policies::Policies;
use crate::webhook::Notices;

pub(super) fn steps(families: &mut Families, state: &State, policies: &Policies, now_ms: u64) {
    let mut rows = families.counter(
        "gpuquota_steps_total",
        "Steps of agents that ended, by tenant (empty: of nobody that the ledger knows), rung and what came of them.",
    );
    for (tenant, rung, result, count) in state.step_counts() {
        let labels = [
            ("tenant", tenant.map_or("", TenantName::as_str)),
            ("rung", rung.as_str()),
            ("result", result.as_str()),
        ];
        rows.row(&labels, count as f64);
    }
    let mut rows = families.gauge(
        "gpuquota_steps_held",
        "1 for each tenant against whom steps wait for a person (empty: against processes of nobody).",
    );
    for (tenant, _) in state.holds() {
        rows.row(&[("tenant", tenant.map_or("", TenantName::as_str))], 1.0);
    }
    let mut rows = families.gauge(
        "gpuquota_policy_behind_seconds",
        "How long a node that is connected here has not acted by the newest policy it was sent; 0: it does.",
    );
    for (node, _) in state.nodes() {
        if let Some(policy) = policies.of(node) {
            let behind = policy.behind_ms(now_ms) as f64 / 1000.0;
            rows.row(&[("node", node.as_str())], behind);
        }
    }
}

pub(super) fn webhook(families: &mut Families, notices: &Notices) {
    let mut rows = families.counter(
        "gpuquota_webhook_events_total",
        "Events for the webhook by what became of them: told, or lost because it did not take them in time.",
    );
    for (result, count) in [
        ("told", &notices.figures.told),
        ("lost", &notices.figures.lost),
    ] {
        if notices.wanted() {
            let count = count.load(Ordering::Relaxed) as f64;
            rows.row(&[("result", result)], count);
        }
    }
}
