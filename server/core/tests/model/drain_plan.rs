//! Plans beside what they say: without its victims nothing is over, and with any one of them something is.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::command::{RequestLease, SetQuota};
use gpuquota_core::device::{DeviceKey, DeviceReport};
use gpuquota_core::event::{Event, Record};
use gpuquota_core::id::{LeaseId, NodeName, Timestamp};
use gpuquota_core::lease::{EndReason, Lease, LeasePlacement};
use gpuquota_core::plan::{Activity, Cause, Due, GroupPlan, Target, Victim};
use gpuquota_core::quota::{QuotaSource, QuotaType};
use gpuquota_core::settings::Settings;
use gpuquota_core::usage::usage;
use gpuquota_core::{Answer, Command, Denied, Preview, State};
use proptest::prelude::*;

use crate::drain::{NOTICE, at, draining, eight, granted, lease, mixed, reason, say};
use crate::examples::{GPU, bought, name, on, put, release};
use crate::properties::{full_report, held_gpu, with_nodes};
use crate::world::{model, node, region, tenant};
use crate::{Ledger, START, cases};

const EACH: usize = 4;

fn preview(ledger: &Ledger, set: &SetQuota, now: Timestamp) -> Preview {
    ledger
        .state
        .preview(&Command::SetQuota(set.clone()), now)
        .unwrap()
}

pub(crate) fn due(cause: Cause, deadline: Timestamp) -> Option<Due> {
    Some(Due { cause, deadline })
}

fn only(preview: &Preview) -> &GroupPlan {
    assert_eq!(preview.plan.groups.len(), 1, "{preview:?}");
    &preview.plan.groups[0]
}

fn leases(plan: &GroupPlan) -> Vec<u64> {
    let victims = plan.victims.iter();
    victims
        .filter_map(|victim| match victim.what {
            Target::Lease { lease, .. } => Some(lease.0),
            Target::Device { .. } => None,
        })
        .collect()
}

#[test]
fn idle_leases_go_first_then_the_newest_then_what_is_held_without_one() {
    let ledger = mixed();
    let plan = preview(&ledger, &draining(put(bought("a", GPU), 1)), at(40));
    assert_eq!(plan.refused, None);
    let group = only(&plan);
    assert_eq!(leases(group), [3, 1, 4, 2]);
    assert_eq!(group.victims[0].activity, Activity::Idle { since: at(20) });
    assert_eq!(group.victims[2].activity, Activity::InUse);
    assert_eq!((group.limit_before, group.limit_after), (Some(8), Some(1)));
    assert_eq!((group.used, group.excess, group.leaving), (5, 4, 0));
    assert_eq!(plan.plan.due, due(Cause::Shrink, at(40 + NOTICE)));
    // One more, and the device goes too.
    let all = ledger.state.preview(
        &Command::ReleaseQuota(release(bought("a", GPU), false, true)),
        at(40),
    );
    let all = all.unwrap();
    assert!(
        matches!(all.refused, Some(Denied::InUse { used: 5, .. })),
        "{all:?}"
    );
    let group = only(&all);
    assert_eq!((group.victims.len(), group.limit_after), (5, Some(0)));
    assert!(matches!(group.victims[4].what, Target::Device { .. }));
    assert_eq!(all.plan.due, due(Cause::Release, at(40)));
}

#[test]
fn what_the_last_makes_unnecessary_is_spared_and_nothing_goes_at_the_limit() {
    let mut ledger = eight();
    lease(&mut ledger, 1, LeasePlacement::Devices, at(0));
    lease(&mut ledger, 5, LeasePlacement::Devices, at(1));
    let to = |num| preview(&ledger, &draining(put(bought("a", GPU), num)), at(2));
    // The older one is idle for longer, so it goes first. Where it is not enough, the other suffices alone.
    assert_eq!(leases(only(&to(5))), [1]);
    assert_eq!(leases(only(&to(1))), [2]);
    assert_eq!(leases(only(&to(6))), [] as [u64; 0]);
    assert_eq!(only(&to(6)).excess, 0);
    assert!(to(8).plan.groups.is_empty(), "nothing changes");
}

#[test]
fn a_number_goes_with_the_devices_that_it_covers_and_alone_where_they_do_not() {
    let mut ledger = eight();
    lease(&mut ledger, 4, LeasePlacement::CountOnly, at(0));
    say(&mut ledger, 2, &[0, 1], at(1));
    let plan = preview(&ledger, &draining(put(bought("a", GPU), 2)), at(2));
    assert_eq!(
        (leases(only(&plan)), only(&plan).victims.len()),
        (vec![1], 1)
    );
    assert_eq!(only(&plan).victims[0].activity, Activity::Unknown);
    let plan = preview(&ledger, &draining(put(bought("a", GPU), 1)), at(2));
    assert_eq!((only(&plan).used, only(&plan).victims.len()), (4, 2));
}

#[derive(Clone, Debug)]
pub(crate) struct Asked {
    count: u32,
    dedicated: bool,
    number: bool,
    given_back: bool,
    end: Option<i64>,
}

pub(crate) fn asked() -> impl Strategy<Value = Asked> {
    let flag = prop::bool::weighted(0.3);
    let end = prop::option::of(prop::sample::select(vec![1500, 1000 + NOTICE, 2500]));
    (
        1..4_u32,
        any::<bool>(),
        flag,
        prop::bool::weighted(0.2),
        end,
    )
        .prop_map(|(count, dedicated, number, given_back, end)| Asked {
            count,
            dedicated,
            number,
            given_back,
            end,
        })
}

fn gpu(number: usize) -> String {
    format!("GPU-{number}")
}

fn report(ledger: &mut Ledger, number: u64, held: &BTreeSet<usize>, ms: i64) {
    for (place, host) in ["n0", "n1", "n2"].into_iter().enumerate() {
        let here = place * EACH..(place + 1) * EACH;
        let devices =
            here.map(|at| held_gpu(&gpu(at), if held.contains(&at) { &["a"] } else { &[] }));
        let report = full_report(host, number, devices.collect());
        granted(ledger, &Command::Report(report), at(ms));
    }
}

// Four GPUs on each of three nodes, of which n1 and n2 are dedicated in part: quotas 1 and 2.
pub(crate) fn world(asks: &[Asked], held: &[BTreeSet<usize>]) -> Ledger {
    world_of(Settings::default(), asks, held)
}

pub(crate) fn world_of(settings: Settings, asks: &[Asked], held: &[BTreeSet<usize>]) -> Ledger {
    let mut ledger = with_nodes(&["n0", "n1", "n2"]);
    let settings = Settings {
        drain_notice_ms: 1000,
        ..settings
    };
    granted(&mut ledger, &Command::SetSettings(settings), START);
    ledger.put(put(bought("a", GPU), 6)).unwrap();
    ledger
        .put(on(put(bought("a", GPU), 6), &["n1", "n2"]))
        .unwrap();
    let narrow = on(put(name("a", QuotaSource::Assign, GPU), 3), &["n1"]);
    ledger.put(narrow).unwrap();
    report(&mut ledger, 1, &BTreeSet::new(), 0);
    for (ms, ask) in (1..).zip(asks) {
        let placement = match ask.number {
            true => LeasePlacement::CountOnly,
            false => LeasePlacement::Devices,
        };
        let request = RequestLease {
            quota_type: ask.dedicated.then_some(QuotaType::Dedicated),
            ttl_ms: ask.end.map(|end| u64::try_from(end - ms).unwrap()),
            ..RequestLease::of(tenant("a"), region("bj"), model(GPU), ask.count, placement)
        };
        let answer = ledger.ask(&Command::RequestLease(request), at(ms), None);
        if let Answer::Granted(gpuquota_core::Outcome::Lease(lease)) = answer
            && ask.given_back
        {
            let back = Command::ReleaseLease {
                lease: lease.id,
                forced: false,
                expected: None,
            };
            granted(&mut ledger, &back, at(ms));
        }
    }
    for (number, held) in (2..).zip(held) {
        report(
            &mut ledger,
            number,
            held,
            100 + i64::try_from(number).unwrap(),
        );
    }
    ledger
}

// The state once these leases have ended and nobody of the tenant is on these devices.
fn without(state: &State, leases: &BTreeSet<LeaseId>, devices: &BTreeSet<DeviceKey>) -> State {
    let ends = leases
        .iter()
        .filter(|lease| state.lease(**lease).is_some_and(|it| it.live()));
    let mut events: Vec<Event> = ends
        .map(|lease| Event::LeaseEnded {
            lease: *lease,
            reason: EndReason::Drained,
            unconfirmed: BTreeMap::new(),
        })
        .collect();
    for host in ["n0", "n1", "n2"].map(node) {
        let freed = devices.iter().filter_map(|key| state.device(key));
        let freed = freed.filter(|device| device.node == host);
        events.push(reported(
            &host,
            freed.map(|device| device.report.clone()).collect(),
        ));
    }
    let record = Record {
        actor: "server".into(),
        request_id: None,
        from: None,
        reason: None,
        tenants: Default::default(),
        replay: None,
        events,
    };
    let mut after = state.clone();
    after.apply(state.seq().next(), state.at(), None, &record);
    after
}

fn reported(host: &NodeName, devices: Vec<DeviceReport>) -> Event {
    let freed = devices.into_iter().map(|report| DeviceReport {
        tenants: Vec::new(),
        ..report
    });
    Event::NodeReported {
        node: host.clone(),
        spool: "s".into(),
        number: 99,
        observed_at: START,
        full: false,
        facts: None,
        devices: freed.collect(),
        gone: Vec::new(),
        earlier: false,
    }
}

fn parts<'a>(
    victims: impl Iterator<Item = &'a Victim>,
) -> (BTreeSet<LeaseId>, BTreeSet<DeviceKey>) {
    let (mut leases, mut keys) = (BTreeSet::new(), BTreeSet::new());
    for victim in victims {
        match &victim.what {
            Target::Lease { lease, devices } => {
                leases.insert(*lease);
                keys.extend(devices.keys().cloned());
            }
            Target::Device { device, .. } => {
                keys.insert(device.clone());
            }
        }
    }
    (leases, keys)
}

/// Leases that drains took.
pub(crate) fn drained(ledger: &Ledger) -> BTreeSet<LeaseId> {
    let leases = ledger.state.leases().map(|lease| lease.id);
    leases
        .filter(|lease| reason(ledger, *lease) == Some(EndReason::Drained))
        .collect()
}

pub(crate) fn named(groups: &[GroupPlan]) -> BTreeSet<LeaseId> {
    parts(groups.iter().flat_map(|group| &group.victims)).0
}

fn over(state: &State, group: &GroupPlan) -> u64 {
    let usage = usage(state, &tenant("a"));
    let over = usage.excess_in().get(&group.group).copied().unwrap_or(0);
    assert_eq!(
        state.excess_in(&tenant("a"), &group.group),
        over,
        "counted twice"
    );
    over
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn without_the_victims_nothing_is_over_and_with_any_of_them_something_is(
        asks in prop::collection::vec(asked(), 0..8),
        held in prop::collection::vec(prop::collection::btree_set(0..12_usize, 0..9), 0..3),
        which in 0..3_usize,
        num in 0..6_u32,
    ) {
        let mut ledger = world(&asks, &held);
        let set = match which {
            0 => put(bought("a", GPU), num),
            1 => on(put(bought("a", GPU), num), &["n1", "n2"]),
            _ => on(put(name("a", QuotaSource::Assign, GPU), num), &["n1"]),
        };
        let now = at(1000);
        let plan = ledger.state.preview(&Command::SetQuota(set.clone()), now).unwrap();
        prop_assert_eq!(&plan, &ledger.state.preview(&Command::SetQuota(set.clone()), now).unwrap());
        let before = ledger.state.clone();
        let answer = ledger.ask(&Command::SetQuota(set.clone()), now, None);
        prop_assert_eq!(plan.refused.is_none(), matches!(answer, Answer::Granted(_)));
        granted(&mut ledger, &Command::SetQuota(draining(set)), now);
        for (who, group, drain) in ledger.state.drains() {
            let of = plan.plan.groups.iter().find(|it| it.group == *group);
            prop_assert_eq!((who, of.and_then(|it| it.due)), (&tenant("a"), Some(drain.due())));
        }
        let (mut gone, mut keys) = (BTreeSet::new(), BTreeSet::new());
        let in_time = |lease: &Lease| lease.expires_at.is_some_and(|end| end <= at(1000 + NOTICE));
        let ends = |lease: &&Lease| lease.live() && (!lease.active() || in_time(lease));
        for lease in before.leases().filter(ends) {
            gone.insert(lease.id);
            keys.extend(lease.occupied().map(|(key, _)| key.clone()));
        }
        for group in plan.plan.groups.iter().filter(|group| group.due.is_some()) {
            prop_assert_eq!(over(&ledger.state, group), group.excess);
            let left = over(&without(&ledger.state, &gone, &keys), group);
            prop_assert_eq!(group.excess - left, group.leaving);
            for spared in 0..group.victims.len() {
                let victims = group.victims.iter().enumerate();
                let victims = victims.filter(|(at, _)| *at != spared).map(|(_, victim)| victim);
                let (mut leases, mut devices) = parts(victims);
                leases.extend(gone.iter().copied());
                devices.extend(keys.iter().cloned());
                let state = without(&ledger.state, &leases, &devices);
                prop_assert!(over(&state, group) > 0, "{} is no victim: {:?}", spared, group);
            }
            let (leases, devices) = parts(group.victims.iter());
            gone.extend(leases);
            keys.extend(devices);
            prop_assert_eq!(over(&without(&ledger.state, &gone, &keys), group), 0);
        }
        for ms in [1500, 1000 + NOTICE, 9 * NOTICE] {
            ledger.sweep(at(ms));
        }
        prop_assert_eq!(drained(&ledger), named(&plan.plan.groups), "{:?}", plan);
    }
}
