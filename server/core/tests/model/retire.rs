//! Nodes that are retired, and GPUs that move to another node.

use gpuquota_core::command::{NodeReport, RequestLease};
use gpuquota_core::device::GpuUuid;
use gpuquota_core::event::SilenceReason;
use gpuquota_core::id::{SessionId, Timestamp};
use gpuquota_core::lease::{EndReason, LeasePhase, LeasePlacement, Unconfirmed};
use gpuquota_core::{Answer, Command, Denied, Outcome};

use crate::examples::{GPU, bought, put};
use crate::properties::{full_report, held_gpu, with_nodes};
use crate::world::{model, node, region, tenant};
use crate::{Ledger, START, said};

fn at(ms: i64) -> Timestamp {
    Timestamp(START.0 + ms)
}

// Tenant a holds GPU-0 on n0 and leases all four GPUs of both nodes.
fn leased() -> Ledger {
    let mut ledger = with_nodes(&["n0", "n1"]);
    ledger.put(put(bought("a", GPU), 8)).unwrap();
    for (name, from) in [("n0", 0), ("n1", 2)] {
        let devices = (from..from + 2).map(|at| held_gpu(&format!("GPU-{at}"), &[]));
        ledger.report(name, 1, devices.collect()).unwrap();
    }
    let request = RequestLease::of(
        tenant("a"),
        region("bj"),
        model(GPU),
        4,
        LeasePlacement::Devices,
    );
    let answer = ledger.ask(&Command::RequestLease(request), START, None);
    assert!(
        matches!(answer, Answer::Granted(Outcome::Lease(_))),
        "{answer:?}"
    );
    let devices = ["GPU-0", "GPU-1"].map(|key| held_gpu(key, &["a"])).to_vec();
    ledger.report("n0", 2, devices).unwrap();
    ledger
}

fn silence(ledger: &mut Ledger, name: &str) {
    let silent = Command::MarkSilent {
        node: node(name),
        session: SessionId(1),
        reason: SilenceReason::Timeout,
    };
    ledger.ask(&silent, START, None);
}

fn retire(forced: bool) -> Command {
    Command::RetireNode {
        node: node("n0"),
        forced,
    }
}

#[test]
fn a_node_is_retired_when_it_is_silent_and_nothing_there_is_leased_or_by_force() {
    let mut ledger = leased();
    let denied = ledger.ask(&retire(false), at(1), None);
    assert!(
        matches!(denied, Answer::Denied(Denied::NodeHeard { .. })),
        "{denied:?}"
    );
    silence(&mut ledger, "n0");
    let denied = ledger.ask(&retire(false), at(1), None);
    assert!(
        matches!(denied, Answer::Denied(Denied::Leased { .. })),
        "{denied:?}"
    );
    assert_eq!(
        said(&ledger.ask(&retire(true), at(1), None)),
        Ok(Outcome::Done)
    );
    ledger.state.verify().unwrap();
    assert!(ledger.state.node(&node("n0")).is_none());
    assert_eq!(ledger.state.devices().count(), 2);
    // What is left of the lease waits for the other node.
    assert_eq!(
        ledger.usage("a").used.into_values().collect::<Vec<_>>(),
        [2]
    );
    let report = full_report(
        "n1",
        2,
        ["GPU-2", "GPU-3"].map(|key| held_gpu(key, &[])).to_vec(),
    );
    ledger.ask(&Command::Report(report), at(2), None);
    let lease = ledger.state.leases().next().unwrap();
    let LeasePhase::Ended {
        reason: EndReason::NodeRetired,
        unconfirmed,
        ..
    } = &lease.phase
    else {
        unreachable!("{lease:?}");
    };
    let unconfirmed: Vec<_> = unconfirmed
        .iter()
        .map(|(key, why)| (key.to_string(), *why))
        .collect();
    let why = Unconfirmed::NodeRetired;
    assert_eq!(
        unconfirmed,
        [("GPU-0".to_owned(), why), ("GPU-1".to_owned(), why)]
    );
    assert_eq!(
        ledger.usage("a").used.into_values().collect::<Vec<_>>(),
        [0]
    );
    ledger.state.verify().unwrap();
}

#[test]
fn a_retired_node_that_comes_back_is_new_and_its_old_sessions_stay_over() {
    let mut ledger = with_nodes(&["n0"]);
    ledger.ask(&retire(true), START, None);
    let stale = |ledger: &mut Ledger| {
        let report = full_report("n0", 1, vec![held_gpu("GPU-0", &["a"])]);
        ledger.ask(&Command::Report(report), START, None)
    };
    assert!(matches!(
        stale(&mut ledger),
        Answer::Denied(Denied::StaleSession)
    ));
    let open = Command::OpenSession {
        node: node("n0"),
        default_region: region("bj"),
        boot_id: "b".into(),
        agent_version: "1".into(),
    };
    let opened = said(&ledger.ask(&open, START, None));
    assert_eq!(opened, Ok(Outcome::Session(SessionId(2))));
    assert!(matches!(
        stale(&mut ledger),
        Answer::Denied(Denied::StaleSession)
    ));
    ledger.state.verify().unwrap();
}

#[test]
fn a_gpu_that_was_forgotten_may_be_reported_by_another_node() {
    let mut ledger = leased();
    let moved = |ledger: &mut Ledger, number| {
        let devices = ["GPU-0", "GPU-2", "GPU-3"]
            .map(|key| held_gpu(key, &[]))
            .to_vec();
        let report = NodeReport {
            session: SessionId(1),
            ..full_report("n1", number, devices)
        };
        said(&ledger.ask(&Command::Report(report), at(5), None))
    };
    assert_eq!(moved(&mut ledger, 2), Err("device_of_other_node".into()));
    let forget = |forced| Command::ForgetGpu {
        gpu: GpuUuid::new("GPU-0").unwrap(),
        forced,
    };
    let denied = ledger.ask(&forget(false), at(1), None);
    assert!(
        matches!(denied, Answer::Denied(Denied::NodeHeard { .. })),
        "{denied:?}"
    );
    silence(&mut ledger, "n0");
    let denied = ledger.ask(&forget(false), at(1), None);
    assert!(
        matches!(denied, Answer::Denied(Denied::Leased { .. })),
        "{denied:?}"
    );
    assert_eq!(
        said(&ledger.ask(&forget(true), at(1), None)),
        Ok(Outcome::Done)
    );
    ledger.state.verify().unwrap();
    assert_eq!(moved(&mut ledger, 2), Ok(Outcome::Reported(2)));
    ledger.state.verify().unwrap();
    // Its old node still waits with the other GPU; what was cut off is told apart in the lease.
    let lease = ledger.state.leases().next().unwrap();
    let LeasePhase::Releasing {
        waiting,
        unconfirmed,
        ..
    } = &lease.phase
    else {
        unreachable!("{lease:?}");
    };
    assert_eq!(
        unconfirmed.values().collect::<Vec<_>>(),
        [&Unconfirmed::DeviceMoved]
    );
    assert_eq!(
        waiting.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["GPU-1"]
    );
    let unknown = Command::ForgetGpu {
        gpu: GpuUuid::new("GPU-9").unwrap(),
        forced: true,
    };
    assert!(matches!(
        ledger.ask(&unknown, at(6), None),
        Answer::Denied(Denied::Unknown { .. })
    ));
}
