//! Drains whose group is changed under them: by a region, a model, a dedicated quota.

use std::collections::BTreeSet;

use gpuquota_core::Command;
use gpuquota_core::catalogue::ModelEntry;
use gpuquota_core::command::{DeclareNode, SetQuota};
use gpuquota_core::id::{HardwareName, LeaseId, Region};
use gpuquota_core::lease::EndReason;
use gpuquota_core::plan::{Cause, DrainEnd};
use gpuquota_core::quota::QuotaSource;

use crate::Ledger;
use crate::drain::{NOTICE, at, draining, ended, granted, mixed, reason, say, sweep};
use crate::examples::{GPU, bought, name, on, put};
use crate::world::{model, node, region};

// Five are used, four of them leased, and three may be.
fn drained() -> Ledger {
    let mut ledger = mixed();
    let small = draining(put(bought("a", GPU), 3));
    granted(&mut ledger, &Command::SetQuota(small), at(40));
    ledger
}

fn stands_in(ledger: &mut Ledger, name: &str, ms: i64) {
    let declare = DeclareNode::at(node("n0"), region(name));
    granted(ledger, &Command::DeclareNode(declare), at(ms));
}

fn runs(ledger: &Ledger) -> Vec<(&str, &str, Cause, i64)> {
    let drains = ledger.state.drains();
    let drains = drains.map(|(_, group, drain)| {
        let deadline = drain.deadline.0 - at(0).0;
        (
            group.region.as_str(),
            group.quota_type.as_str(),
            drain.cause,
            deadline,
        )
    });
    drains.collect()
}

fn active(ledger: &Ledger) -> usize {
    ledger.state.leases().filter(|lease| lease.active()).count()
}

#[test]
fn a_drain_follows_what_is_over_into_another_region_and_back() {
    let mut ledger = drained();
    assert_eq!(
        runs(&ledger),
        [("bj", "flexible", Cause::Shrink, 40 + NOTICE)]
    );
    stands_in(&mut ledger, "tw", 50);
    assert_eq!(
        runs(&ledger),
        [("tw", "flexible", Cause::Shrink, 40 + NOTICE)]
    );
    stands_in(&mut ledger, "bj", 60);
    assert_eq!(
        runs(&ledger),
        [("bj", "flexible", Cause::Shrink, 40 + NOTICE)]
    );
    assert_eq!(ended(&ledger), [DrainEnd::Moved, DrainEnd::Moved]);
    stands_in(&mut ledger, "tw", 70);
    sweep(&mut ledger, at(39 + NOTICE));
    assert_eq!(active(&ledger), 4);
    sweep(&mut ledger, at(40 + NOTICE));
    assert_eq!(active(&ledger), 0, "no quota of that region bears any");
    assert_eq!(reason(&ledger, LeaseId(2)), Some(EndReason::Drained));
    // Now something is given back.
    say(&mut ledger, 5, &[], at(50 + NOTICE));
    assert_eq!(ended(&ledger).last(), Some(&DrainEnd::Met));
    assert!(ledger.refold() == ledger.state);
}

#[test]
fn a_drain_whose_use_another_quota_bears_by_now_was_moved_and_not_met() {
    let mut ledger = drained();
    let mut elsewhere = put(bought("a", GPU), 5);
    elsewhere.name.region = Region::new("tw").unwrap();
    granted(&mut ledger, &Command::SetQuota(elsewhere), at(45));
    stands_in(&mut ledger, "tw", 50);
    assert_eq!(
        (runs(&ledger), ended(&ledger)),
        (vec![], vec![DrainEnd::Moved])
    );
    sweep(&mut ledger, at(9 * NOTICE));
    assert_eq!(active(&ledger), 4);
}

#[test]
fn a_drain_follows_a_model_that_the_catalogue_names_anew_and_then_has_its_own_notice() {
    let mut ledger = drained();
    sweep(&mut ledger, at(40 + NOTICE));
    assert_eq!(
        active(&ledger),
        2,
        "the deadline is past, and devices are waited for"
    );
    let called = ledger
        .state
        .devices()
        .next()
        .unwrap()
        .1
        .report
        .model
        .clone();
    let entry = ModelEntry {
        gpu_model: model("h100"),
        quota_type: None,
        aliases: BTreeSet::new(),
        hardware: BTreeSet::from([HardwareName::new(&called).unwrap()]),
        profile: None,
    };
    granted(&mut ledger, &Command::SetModel(entry), at(41 + NOTICE));
    assert_eq!(ended(&ledger), [DrainEnd::Moved]);
    let [(_, _, cause, deadline)] = runs(&ledger)[..] else {
        panic!("{:?}", runs(&ledger))
    };
    assert_eq!((cause, deadline), (Cause::Shrink, 41 + 2 * NOTICE));
    sweep(&mut ledger, at(40 + 2 * NOTICE));
    assert_eq!(active(&ledger), 2);
    sweep(&mut ledger, at(41 + 2 * NOTICE));
    assert_eq!(active(&ledger), 0);
}

#[test]
fn a_drain_follows_onto_dedicated_nodes_where_their_quota_is_too_small() {
    let mut ledger = drained();
    let assigned = put(name("a", QuotaSource::Assign, GPU), 3);
    let bound: SetQuota = on(assigned, &["n0"]);
    granted(&mut ledger, &Command::SetQuota(bound), at(50));
    assert_eq!(
        runs(&ledger),
        [("bj", "dedicated", Cause::Shrink, 40 + NOTICE)]
    );
    assert_eq!(ended(&ledger), [DrainEnd::Moved]);
    sweep(&mut ledger, at(40 + NOTICE));
    assert_eq!(active(&ledger), 2);
}
