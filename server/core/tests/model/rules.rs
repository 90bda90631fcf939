//! Rules that the documents leave to us, one by one.

use gpuquota_core::command::{DeclareNode, NodeReport, QuotaName};
use gpuquota_core::device::{DeviceKey, DeviceReport};
use gpuquota_core::event::SilenceReason;
use gpuquota_core::id::{QuotaId, SessionId, Timestamp};
use gpuquota_core::quota::{QuotaSource, QuotaType};
use gpuquota_core::{Command, Outcome};

use crate::examples::{GPU, bought, gpus, name, on, put, quota, release, until};
use crate::properties::{full_report, held_gpu, with_nodes};
use crate::world::{model, node, region};
use crate::{Ledger, START, said};

#[test]
fn a_node_serves_one_tenant_until_its_quota_ends() {
    let mut ledger = with_nodes(&["n0"]);
    ledger
        .put(until(on(put(bought("a", GPU), 8), &["n0"]), 10))
        .unwrap();
    let theirs = on(put(bought("b", GPU), 8), &["n0"]);
    assert_eq!(ledger.put(theirs.clone()), Err("node_bound".into()));
    ledger.put(put(bought("b", GPU), 8)).unwrap();
    ledger.report("n0", 1, gpus(1, "b")).unwrap();
    let usage = ledger.usage("b");
    assert_eq!(
        (usage.violations[0].class.as_str(), usage.excess()),
        ("foreign", 0)
    );
    let end = Timestamp(START.0 + 10);
    let answer = ledger.ask(&Command::SetQuota(theirs), end, None);
    assert_eq!(said(&answer), quota(2));
    assert!(ledger.state.quota(QuotaId(0)).unwrap().expired);
    assert_eq!(ledger.usage("b").of(QuotaId(2)), 1);
}

#[test]
fn purchase_fills_first_sooner_end_first_and_over_stays_on_the_last_that_grants() {
    let mut ledger = with_nodes(&["n0"]);
    ledger
        .put(put(name("a", QuotaSource::Assign, GPU), 1))
        .unwrap();
    let ends = [None, Some(90), Some(50), Some(-1)];
    let spellings = ["1c.1g.10gb", "1g.10gb", "mig-1g.10gb", "mig-1c10g"];
    for (spelling, end) in spellings.into_iter().zip(ends) {
        let mig = QuotaName {
            quota_type: Some(QuotaType::Mig),
            ..bought("a", spelling)
        };
        let one = put(mig, 1);
        ledger
            .put(end.map_or(one.clone(), |ms| until(one, ms)))
            .unwrap();
    }
    ledger.put(put(bought("a", GPU), 1)).unwrap();
    let used = |ledger: &Ledger| ledger.usage("a").used.into_values().collect::<Vec<_>>();
    let mig = |ci| DeviceReport {
        key: DeviceKey::mig("GPU-9", 1, ci).unwrap(),
        gpu_model: model("1g.10gb"),
        ..held_gpu("GPU-9", &["a"])
    };
    ledger
        .report("n0", 1, vec![mig(0), held_gpu("GPU-0", &["a"])])
        .unwrap();
    assert_eq!(used(&ledger), [0, 0, 0, 1, 0, 1]);
    ledger
        .report(
            "n0",
            2,
            gpus(4, "a").into_iter().chain((0..4).map(mig)).collect(),
        )
        .unwrap();
    assert_eq!(used(&ledger), [3, 2, 1, 1, 0, 1]);
    assert_eq!(ledger.usage("a").excess(), 3);
}

#[test]
fn what_an_ended_dedicated_quota_leaves_counts_as_any_other_device() {
    let mut ledger = with_nodes(&["n0"]);
    ledger.put(put(bought("a", GPU), 4)).unwrap();
    ledger
        .put(until(
            on(put(name("a", QuotaSource::Assign, GPU), 4), &["n0"]),
            -1,
        ))
        .unwrap();
    ledger.report("n0", 1, gpus(3, "a")).unwrap();
    assert_eq!(
        (ledger.usage("a").of(QuotaId(0)), ledger.usage("a").excess()),
        (3, 0)
    );
    let small = on(put(name("a", QuotaSource::Assign, GPU), 2), &["n0"]);
    assert_eq!(
        ledger.put(small.clone()),
        Err("below_use by 1".into()),
        "it would take them over"
    );
    assert_eq!(
        ledger.take(release(small.name.clone(), true, true)),
        Err("no_such_quota".into())
    );
    let typed = QuotaName {
        quota_type: Some(QuotaType::Dedicated),
        ..small.name.clone()
    };
    assert_eq!(ledger.take(release(typed, false, true)), Ok(Outcome::Done));
    assert_eq!(
        ledger.put(small),
        Err("below_use by 1".into()),
        "also as a new one"
    );
}

#[test]
fn a_node_that_never_opened_a_session_is_not_heard() {
    let mut ledger = Ledger::default();
    ledger.ask(
        &Command::DeclareNode(DeclareNode::at(node("n0"), region("bj"))),
        START,
        None,
    );
    let (node, session) = (node("n0"), SessionId(0));
    let mut report = full_report("n0", 1, gpus(1, "a"));
    report.session = session;
    let reason = SilenceReason::Timeout;
    for command in [
        Command::Report(report),
        Command::MarkSilent {
            node: node.clone(),
            session,
            reason,
        },
        Command::MarkHeard { node, session },
    ] {
        assert_eq!(
            said(&ledger.ask(&command, START, None)),
            Err("stale_session".into())
        );
    }
}

#[test]
fn no_series_of_reports_gives_a_node_more_devices_than_a_node_has() {
    const MOST: u16 = 2048;
    let mut ledger = with_nodes(&["n0"]);
    let held = |range: std::ops::Range<u16>| -> Vec<DeviceReport> {
        range
            .map(|n| held_gpu(&format!("GPU-{n}"), &["a"]))
            .collect()
    };
    ledger.report("n0", 1, held(0..MOST)).unwrap();
    let mut more = full_report("n0", 2, held(MOST - 1..MOST + 1));
    more.full = false;
    let ask = |ledger: &mut Ledger, report: &NodeReport| {
        said(&ledger.ask(&Command::Report(report.clone()), START, None))
    };
    let refused = Err("too_many_devices".to_owned());
    assert_eq!(ask(&mut ledger, &more), refused);
    assert_eq!(ledger.state.devices().count(), usize::from(MOST));
    let full = full_report("n0", 2, held(0..MOST + 1));
    assert_eq!(ask(&mut ledger, &full), refused);
    more.gone = vec![DeviceKey::gpu("GPU-0").unwrap()];
    assert_eq!(ask(&mut ledger, &more), Ok(Outcome::Reported(2)));
    assert_eq!(ledger.state.devices().count(), usize::from(MOST));
}

#[test]
fn a_token_stays_revoked_until_the_latest_end_it_was_given() {
    let mut ledger = Ledger::default();
    for end in [100, 300, 200] {
        let until = Timestamp(START.0 + end);
        ledger.ask(
            &Command::RevokeToken {
                token: "t".into(),
                until,
            },
            START,
            None,
        );
    }
    ledger.ask(
        &Command::DeclareNode(DeclareNode::at(node("n0"), region("bj"))),
        Timestamp(START.0 + 299),
        None,
    );
    assert!(ledger.state.revoked("t"));
    ledger.ask(
        &Command::DeclareNode(DeclareNode::at(node("n0"), region("tw"))),
        Timestamp(START.0 + 300),
        None,
    );
    assert!(!ledger.state.revoked("t"));
}
