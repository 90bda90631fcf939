//! Rows about policies and what was done by them. Pure.

use gpuquota_proto::exposition::{Families, truth};

use super::snapshot::Reporting;
use crate::exec::figures::RESULTS;
use crate::policy::Mode;

pub(super) fn add(families: &mut Families, reporting: &Reporting) {
    let Reporting { dialogue, acts, .. } = reporting;
    families
        .gauge(
            "gpuquota_policy_valid",
            "Whether a policy of the server is there and has not ended.",
        )
        .value(truth(dialogue.valid));
    if let Some(version) = dialogue.acted_by {
        families
            .gauge(
                "gpuquota_policy_row",
                "The row of the server's journal whose policy is acted by.",
            )
            .value(version.row as f64);
    }
    families
        .counter(
            "gpuquota_policies_refused_total",
            "Policies that could not be followed.",
        )
        .value(dialogue.refused as f64);
    families
        .gauge(
            "gpuquota_outcomes_waiting",
            "Outcomes of steps that the server has not taken.",
        )
        .value(dialogue.waiting as f64);
    families
        .counter(
            "gpuquota_outcomes_lost_total",
            "Outcomes of steps that had to be forgotten.",
        )
        .value(dialogue.lost as f64);
    families
        .gauge(
            "gpuquota_restricted_groups",
            "Control groups that are denied devices.",
        )
        .value(acts.restricted as f64);
    let mut violations = families.gauge(
        "gpuquota_node_violations",
        "Devices of this node whose holder is not justified; no tenant: nobody that the rules know.",
    );
    for ((tenant, class), count) in &acts.violations {
        let tenant = tenant.as_deref().unwrap_or("");
        violations.row(
            &[("tenant", tenant), ("class", class.as_str())],
            *count as f64,
        );
    }
    let mut actions = families.counter(
        "gpuquota_actions_total",
        "Steps about holders that are not justified.",
    );
    for ((tenant, rung, outcome), count) in &acts.steps {
        let labels = [
            ("tenant", tenant.as_str()),
            ("action", rung.as_str()),
            ("result", outcome.as_str()),
        ];
        actions.row(&labels, *count as f64);
    }
    if let Some(most) = acts.most {
        let mut able = families.gauge(
            "gpuquota_enforcement_possible",
            "How far this node can go about a holder that is not justified.",
        );
        for mode in [Mode::Warn, Mode::Restrict, Mode::Evict] {
            able.row(&[("mode", mode.as_str())], truth(mode <= most));
        }
    }
    let (answered, held) = &reporting.exec;
    let mut askings = families.counter(
        "gpuquota_exec_askings_total",
        "Commands that were to start under a lease, by what came of it.",
    );
    for (result, count) in RESULTS.iter().zip(answered) {
        askings.row(&[("result", result)], *count as f64);
    }
    families
        .gauge(
            "gpuquota_exec_leases",
            "Leases of commands on this node that are held, or wait to be given back.",
        )
        .value(*held as f64);
}
