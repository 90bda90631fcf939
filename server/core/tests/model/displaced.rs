//! Nodes that are to serve one tenant alone while others have leases on them.

use gpuquota_core::command::{RequestLease, SetQuota};
use gpuquota_core::event::Event;
use gpuquota_core::explanation::Rule;
use gpuquota_core::id::LeaseId;
use gpuquota_core::lease::{EndReason, LeasePlacement};
use gpuquota_core::plan::Target;
use gpuquota_core::{Answer, Command, Denied, Outcome};

use crate::Ledger;
use crate::drain::{NOTICE, at, draining, eight, granted, lease, reason, sweep};
use crate::examples::{GPU, bought, on, put, release, until};
use crate::properties::{full_report, held_gpu};
use crate::world::{model, node, region, tenant};

// Tenant a has lease 1 on node n0, and b a process there without a lease.
fn shared() -> Ledger {
    let mut ledger = eight();
    lease(&mut ledger, 2, LeasePlacement::Devices, at(0));
    let leased = ledger.state.lease(LeaseId(1)).unwrap().devices.clone();
    let devices = (0..8).map(|at| format!("GPU-{at}"));
    let free = |uuid: &String| !leased.keys().any(|key| key.to_string() == *uuid);
    let other = devices.clone().find(free).unwrap();
    let devices = devices.map(|uuid| held_gpu(&uuid, if uuid == other { &["c"] } else { &[] }));
    let report = full_report("n0", 2, devices.collect());
    granted(&mut ledger, &Command::Report(report), at(1));
    ledger
}

fn binding() -> SetQuota {
    on(put(bought("b", GPU), 8), &["n0"])
}

fn renew(ledger: &mut Ledger, ttl_ms: Option<u64>, ms: i64) -> Answer {
    let renew = Command::RenewLease {
        lease: LeaseId(1),
        ttl_ms,
        expected: None,
    };
    ledger.ask(&renew, at(ms), None)
}

fn let_stay(ledger: &Ledger) -> bool {
    let lease = ledger.state.lease(LeaseId(1)).unwrap();
    lease.active() && lease.leave_by.is_none()
}

#[test]
fn binding_over_a_lease_of_another_is_refused_and_says_which() {
    let mut ledger = shared();
    let before = ledger.state.clone();
    let refused = ledger.ask(&Command::SetQuota(binding()), at(2), None);
    let Answer::Denied(Denied::LeasedByOthers { because }) = &refused else {
        unreachable!("{refused:?}");
    };
    assert_eq!(because.rule, Rule::DeviceLeased);
    assert!(because.text.contains("(1)"), "{}", because.text);
    assert_eq!(because.tenants, [tenant("a")]);
    assert_eq!(because.nodes, [node("n0")]);
    assert_eq!(because.others, Some(2));
    assert!(ledger.state == before);
    // Nodes without leases, and an end in the past, are nobody's loss.
    granted(
        &mut ledger,
        &Command::SetQuota(on(put(bought("b", GPU), 8), &["n1"])),
        at(3),
    );
    granted(&mut ledger, &Command::SetQuota(until(binding(), 1)), at(4));
    assert!(let_stay(&ledger));
}

#[test]
fn a_dry_run_names_leases_and_holders_of_others_and_when_the_leases_end() {
    let ledger = shared();
    let shown = ledger
        .state
        .preview(&Command::SetQuota(binding()), at(2))
        .unwrap();
    assert!(matches!(shown.refused, Some(Denied::LeasedByOthers { .. })));
    assert_eq!((shown.plan.due, shown.others.len()), (None, 2));
    let (lease, holder) = (&shown.others[0], &shown.others[1]);
    assert_eq!(
        (&lease.tenant, lease.until),
        (&tenant("a"), Some(at(2 + NOTICE)))
    );
    assert!(
        matches!(&lease.what, Target::Lease { lease: LeaseId(1), devices } if devices.len() == 2)
    );
    assert_eq!((&holder.tenant, holder.until), (&tenant("c"), None));
    assert!(matches!(&holder.what, Target::Device { .. }));
}

#[test]
fn with_drain_the_leases_of_others_have_the_notice_and_end() {
    let mut ledger = shared();
    granted(&mut ledger, &Command::SetQuota(draining(binding())), at(2));
    let lease = ledger.state.lease(LeaseId(1)).unwrap();
    assert_eq!(lease.leave_by, Some(at(2 + NOTICE)));
    assert_eq!(ledger.state.next_due(), Some(at(2 + NOTICE)));
    // Renewing keeps it no longer, and the binding that stands is not refused for it again.
    assert!(matches!(renew(&mut ledger, None, 3), Answer::Granted(_)));
    granted(
        &mut ledger,
        &Command::SetQuota(on(put(bought("b", GPU), 7), &["n0"])),
        at(4),
    );
    sweep(&mut ledger, at(1 + NOTICE));
    assert_eq!(reason(&ledger, LeaseId(1)), None);
    sweep(&mut ledger, at(2 + NOTICE));
    assert_eq!(reason(&ledger, LeaseId(1)), Some(EndReason::Drained));
    assert!(ledger.refold() == ledger.state);
}

#[test]
fn a_lease_whose_own_end_comes_first_ends_by_it() {
    let mut ledger = shared();
    granted(&mut ledger, &Command::SetQuota(draining(binding())), at(2));
    assert!(matches!(
        renew(&mut ledger, Some(100), 3),
        Answer::Granted(_)
    ));
    sweep(&mut ledger, at(103));
    assert_eq!(reason(&ledger, LeaseId(1)), Some(EndReason::Expired));
}

#[test]
fn leases_stay_when_the_nodes_are_given_back_in_time() {
    for (ms, given_back) in [(10, false), (400, true)] {
        let mut ledger = shared();
        let bound = draining(until(binding(), 300));
        granted(&mut ledger, &Command::SetQuota(bound), at(2));
        assert!(!let_stay(&ledger));
        if given_back {
            sweep(&mut ledger, at(300));
        } else {
            let back = release(bought("b", GPU), true, true);
            let back = gpuquota_core::command::ReleaseQuota {
                name: gpuquota_core::command::QuotaName {
                    quota_type: Some(gpuquota_core::quota::QuotaType::Dedicated),
                    ..back.name
                },
                ..back
            };
            granted(&mut ledger, &Command::ReleaseQuota(back), at(ms));
        }
        assert!(let_stay(&ledger));
        sweep(&mut ledger, at(9 * NOTICE));
        assert!(let_stay(&ledger));
        assert!(ledger.refold() == ledger.state);
    }
}

#[test]
fn a_binding_of_an_earlier_version_is_drained_when_it_is_put_again() {
    let mut ledger = shared();
    granted(&mut ledger, &Command::SetQuota(draining(binding())), at(2));
    let told = Event::LeaseToLeave {
        lease: LeaseId(1),
        leave_by: None,
    };
    ledger.write(at(3), None, Answer::Granted(Outcome::Done), vec![told]);
    assert!(let_stay(&ledger));
    granted(&mut ledger, &Command::SetQuota(draining(binding())), at(4));
    let lease = ledger.state.lease(LeaseId(1)).unwrap();
    assert_eq!(lease.leave_by, Some(at(4 + NOTICE)));
    let again = RequestLease::of(
        tenant("a"),
        region("bj"),
        model(GPU),
        1,
        LeasePlacement::Devices,
    );
    let refused = ledger.ask(&Command::RequestLease(again), at(5), None);
    assert!(matches!(refused, Answer::Denied(_)), "{refused:?}");
}
