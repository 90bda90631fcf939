//! Plans of what is to come: leases that leave by themselves before their turn, and quotas that end some day.

use std::collections::BTreeSet;

use gpuquota_core::command::{RequestLease, SetQuota};
use gpuquota_core::id::{LeaseId, Timestamp};
use gpuquota_core::lease::LeasePlacement;
use gpuquota_core::plan::{Cause, DrainEnd};
use gpuquota_core::quota::QuotaSource;
use gpuquota_core::settings::Settings;
use gpuquota_core::{Command, Preview};
use proptest::prelude::*;

use crate::drain::{NOTICE, at, draining, eight, ended, granted, lease, sweep};
use crate::drain_plan::{Asked, asked, drained, due, named, world_of};
use crate::examples::{GPU, bought, name, on, put, until};
use crate::world::{model, region, tenant};
use crate::{Ledger, cases};

fn preview(ledger: &Ledger, set: &SetQuota, now: Timestamp) -> Preview {
    let set = Command::SetQuota(set.clone());
    ledger.state.preview(&set, now).unwrap()
}

fn number(ledger: &mut Ledger, count: u32, ttl_ms: Option<u64>, now: Timestamp) {
    let placement = LeasePlacement::CountOnly;
    let request = RequestLease {
        ttl_ms,
        ..RequestLease::of(tenant("a"), region("bj"), model(GPU), count, placement)
    };
    granted(ledger, &Command::RequestLease(request), now);
}

#[test]
fn a_lease_that_ends_before_the_deadline_leaves_and_nobody_goes_for_it() {
    let mut ledger = eight();
    number(&mut ledger, 1, Some(400), at(0));
    number(&mut ledger, 7, None, at(1));
    let smaller = draining(put(bought("a", GPU), 7));
    let plan = preview(&ledger, &smaller, at(2)).plan;
    let group = &plan.groups[0];
    assert_eq!((group.excess, group.leaving), (1, 1));
    assert_eq!(group.victims, []);
    assert_eq!(plan.due, due(Cause::Shrink, at(2 + NOTICE)));
    // One that ends later is no help.
    let much = draining(put(bought("a", GPU), 6));
    let victims = named(&preview(&ledger, &much, at(2)).plan.groups);
    assert_eq!(victims, BTreeSet::from([LeaseId(2)]));
    granted(&mut ledger, &Command::SetQuota(smaller), at(2));
    sweep(&mut ledger, at(400));
    assert_eq!(ended(&ledger), [DrainEnd::Met]);
    sweep(&mut ledger, at(9 * NOTICE));
    assert!(ledger.state.lease(LeaseId(2)).unwrap().active());
}

#[test]
fn the_plan_of_a_coming_end_is_of_the_day_when_it_comes() {
    let mut ledger = eight();
    lease(&mut ledger, 6, LeasePlacement::Devices, at(0));
    let ends = until(put(bought("a", GPU), 8), 5000);
    let coming = preview(&ledger, &ends, at(1));
    assert_eq!((&coming.refused, &coming.at_end), (&None, &None));
    assert_eq!(coming.plan.due, due(Cause::Expiry, at(5000 + NOTICE)));
    let group = &coming.plan.groups[0];
    assert_eq!((group.limit_before, group.limit_after), (Some(8), Some(0)));
    assert_eq!(named(&coming.plan.groups), BTreeSet::from([LeaseId(1)]));
    // Another quota bears it, unless it ends by then too.
    let other = |ms| until(put(name("a", QuotaSource::Assign, GPU), 6), ms);
    granted(&mut ledger, &Command::SetQuota(other(9000)), at(2));
    assert_eq!(preview(&ledger, &ends, at(3)).plan.due, None);
    granted(&mut ledger, &Command::SetQuota(other(5000)), at(4));
    assert!(preview(&ledger, &ends, at(5)).plan.due.is_some());
    granted(&mut ledger, &Command::SetQuota(other(4000)), at(6));
    assert!(preview(&ledger, &ends, at(7)).plan.due.is_some());
}

#[test]
fn where_nobody_has_to_go_there_is_no_cause_and_no_deadline() {
    let mut ledger = eight();
    lease(&mut ledger, 6, LeasePlacement::Devices, at(0));
    for (num, changes) in [(9, 1), (8, 0), (6, 1)] {
        let plan = preview(&ledger, &put(bought("a", GPU), num), at(1)).plan;
        assert_eq!((plan.due, plan.groups.len()), (None, changes), "{num}");
    }
}

#[test]
fn a_change_with_an_end_shows_what_it_does_now_and_what_its_end_does() {
    let mut ledger = eight();
    for ms in 0..3 {
        lease(&mut ledger, 2, LeasePlacement::Devices, at(ms));
    }
    let both = draining(until(put(bought("a", GPU), 4), 5000));
    let shown = preview(&ledger, &both, at(10));
    assert_eq!(shown.plan.due, due(Cause::Shrink, at(10 + NOTICE)));
    assert_eq!(named(&shown.plan.groups).len(), 1);
    let end = shown.at_end.unwrap();
    assert_eq!(end.due, due(Cause::Expiry, at(5000 + NOTICE)));
    assert_eq!(named(&end.groups).len(), 2);
    assert!(named(&end.groups).is_disjoint(&named(&shown.plan.groups)));
    // An end within the notice begins it anew.
    let soon = draining(until(put(bought("a", GPU), 4), 500));
    let shown = preview(&ledger, &soon, at(10));
    assert_eq!(shown.plan.due, due(Cause::Expiry, at(500 + NOTICE)));
    assert_eq!((named(&shown.plan.groups).len(), shown.at_end), (3, None));
}

// Plans take it that what is ending has ended when its turn comes, so nothing is waited for here for long.
fn prompt(asks: &[Asked]) -> Ledger {
    let settings = Settings {
        confirm_within_ms: 10,
        ..Settings::default()
    };
    world_of(settings, asks, &[])
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn those_whom_an_end_hits_are_those_whom_its_plan_names(
        asks in prop::collection::vec(asked(), 0..8),
        which in 0..3_usize,
        num in 1..8_u32,
        end in prop::sample::select(vec![1600, 2300]),
        drains in any::<bool>(),
    ) {
        let mut ledger = prompt(&asks);
        ledger.sweep(at(1010));
        let set = match which {
            0 => put(bought("a", GPU), num),
            1 => on(put(bought("a", GPU), num), &["n1", "n2"]),
            _ => on(put(name("a", QuotaSource::Assign, GPU), num), &["n1"]),
        };
        let set = if drains { draining(until(set, end)) } else { until(set, end) };
        let now = at(1020);
        let shown = preview(&ledger, &set, now);
        granted(&mut ledger, &Command::SetQuota(draining(set)), now);
        for ms in (1500..5000).step_by(20) {
            ledger.sweep(at(ms));
        }
        let mut names = named(&shown.plan.groups);
        names.extend(shown.at_end.iter().flat_map(|plan| named(&plan.groups)));
        prop_assert_eq!(drained(&ledger), names, "{:?}", shown);
    }
}
