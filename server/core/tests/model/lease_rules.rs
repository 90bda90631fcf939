//! Who is granted a lease, and what one justifies.

use std::collections::BTreeSet;

use gpuquota_core::command::{RequestLease, SetTenant};
use gpuquota_core::device::DeviceReport;
use gpuquota_core::explanation::Rule;
use gpuquota_core::quota::QuotaType;
use gpuquota_core::settings::{LeaseMode, Settings};
use gpuquota_core::usage::ViolationClass;
use gpuquota_core::{Answer, Command, Denied};

use crate::START;
use crate::examples::{GPU, bought, on, put, until};
use crate::leases::{ask_for, at, four, free, number_for};
use crate::properties::{held_gpu, with_nodes};
use crate::world::{model, node, tenant};

#[test]
fn only_an_active_lease_within_its_quotas_is_renewed() {
    let mut ledger = four();
    ledger.put(until(put(bought("a", GPU), 4), 120)).unwrap();
    let short = RequestLease {
        ttl_ms: Some(100),
        ..number_for("a", 4)
    };
    let lease = ledger.lease(&short, START).unwrap();
    let renew = |ttl| Command::RenewLease {
        lease: lease.id,
        ttl_ms: Some(ttl),
        expected: None,
    };
    assert!(matches!(
        ledger.ask(&renew(200), at(50), None),
        Answer::Granted(_)
    ));
    assert_eq!(
        ledger.state.lease(lease.id).unwrap().expires_at,
        Some(at(250))
    );
    ledger.sweep(at(120));
    let denied = ledger.ask(&renew(200), at(130), None);
    assert!(
        matches!(denied, Answer::Denied(Denied::Lease { .. })),
        "{denied:?}"
    );
    let late = ledger.ask(&renew(200), at(300), None);
    assert!(
        matches!(late, Answer::Denied(Denied::LeaseOver { .. })),
        "{late:?}"
    );
    assert_eq!(ledger.used("a"), [0]);
}

#[test]
fn an_expired_quota_a_frozen_and_an_unknown_tenant_are_granted_nothing() {
    let mut ledger = four();
    assert_eq!(
        ledger
            .lease(&number_for("nobody", 1), START)
            .unwrap_err()
            .rule,
        Rule::UnknownTenant
    );
    assert_eq!(
        ledger
            .lease(
                &RequestLease {
                    gpu_model: model("nvidia.com/mig-1c10g"),
                    ..number_for("a", 1)
                },
                START
            )
            .unwrap_err()
            .rule,
        Rule::NoQuota
    );
    let set = SetTenant {
        tenant: tenant("a"),
        number: None,
        display_name: None,
        code: None,
        projects: None,
        frozen: Some(true),
        confined: None,
        lease_mode: None,
        enforcement: None,
    };
    ledger.ask(&Command::SetTenant(set.clone()), START, None);
    assert_eq!(
        ledger.lease(&number_for("a", 1), START).unwrap_err().rule,
        Rule::Frozen
    );
    ledger.ask(
        &Command::SetTenant(SetTenant {
            frozen: Some(false),
            ..set
        }),
        START,
        None,
    );
    ledger.put(until(put(bought("a", GPU), 4), 10)).unwrap();
    let denied = ledger.lease(&number_for("a", 1), at(10)).unwrap_err();
    assert_eq!(
        (denied.rule, denied.because[0].rule),
        (Rule::NoQuota, Rule::QuotaEnded)
    );
}

#[test]
fn dedicated_nodes_keep_others_off_and_a_confined_tenant_on() {
    let mut ledger = with_nodes(&["n0", "n1"]);
    ledger.say("n0", 1, free(0, 2), START);
    ledger.say("n1", 1, free(2, 4), START);
    ledger.put(put(bought("a", GPU), 4)).unwrap();
    ledger.put(put(bought("b", GPU), 4)).unwrap();
    ledger.put(on(put(bought("a", GPU), 2), &["n0"])).unwrap();
    let denied = ledger.lease(&ask_for("b", 3), START).unwrap_err();
    let rules: Vec<Rule> = denied.because.iter().map(|it| it.rule).collect();
    assert_eq!(rules, [Rule::NodeDedicated]);
    assert_eq!(denied.because[0].tenants, [tenant("a")]);
    // Its own dedicated node is charged to the dedicated quota, so flexible leases stay off it too.
    assert_eq!(
        ledger.lease(&ask_for("a", 2), START).unwrap().nodes(),
        BTreeSet::from([&node("n1")])
    );
    let dedicated = RequestLease {
        quota_type: Some(QuotaType::Dedicated),
        ..ask_for("a", 2)
    };
    assert_eq!(
        ledger.lease(&dedicated, START).unwrap().nodes(),
        BTreeSet::from([&node("n0")])
    );
    assert_eq!(ledger.used("a"), [2, 2]);
    let set = SetTenant {
        tenant: tenant("a"),
        number: None,
        display_name: None,
        code: None,
        projects: None,
        frozen: None,
        confined: Some(true),
        lease_mode: None,
        enforcement: None,
    };
    ledger.ask(&Command::SetTenant(set), START, None);
    assert_eq!(
        ledger.lease(&number_for("a", 1), START).unwrap_err().rule,
        Rule::Confined
    );
    ledger.say(
        "n1",
        2,
        vec![held_gpu("GPU-2", &["a"]), held_gpu("GPU-3", &[])],
        at(1),
    );
    let classes: Vec<_> = ledger
        .usage("a")
        .violations
        .iter()
        .map(|it| it.class)
        .collect();
    assert_eq!(classes, [ViolationClass::Foreign]);
}

#[test]
fn what_runs_without_a_lease_is_a_squatter_where_leases_are_required() {
    let mut ledger = four();
    ledger.put(put(bought("b", GPU), 4)).unwrap();
    let settings = Settings {
        lease_mode: LeaseMode::Required,
        ..Settings::default()
    };
    let lease = ledger.lease(&ask_for("a", 1), START).unwrap();
    let key = lease.devices.keys().next().unwrap().clone();
    let devices = |devices: Vec<DeviceReport>| -> Vec<DeviceReport> {
        devices
            .into_iter()
            .map(|device| DeviceReport {
                tenants: vec![tenant("a")],
                ..device
            })
            .collect()
    };
    ledger.say("n0", 2, devices(free(0, 2)), at(1));
    assert!(ledger.usage("a").violations.is_empty());
    ledger.ask(&Command::SetSettings(settings), at(2), None);
    let usage = ledger.usage("a");
    assert_eq!(
        (usage.violations.len(), usage.violations[0].class),
        (1, ViolationClass::Squatter)
    );
    assert!(usage.violations[0].device != key);
    assert_eq!(usage.excess(), 0, "the quota bears it");
    ledger.lease(&number_for("a", 1), at(3)).unwrap();
    assert!(
        ledger.usage("a").violations.is_empty(),
        "a number covers it"
    );
    // Somebody else's lease makes a holder foreign.
    ledger.say("n0", 3, vec![held_gpu(&key.to_string(), &["b"])], at(4));
    let classes: Vec<_> = ledger
        .usage("b")
        .violations
        .iter()
        .map(|it| it.class)
        .collect();
    assert_eq!(classes, [ViolationClass::Foreign, ViolationClass::Squatter]);
}
