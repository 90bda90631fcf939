//! Quotas that became smaller than what is used: drains, notices, and what a change would do.

use gpuquota_core::command::{OnExcess, RequestLease, SetQuota};
use gpuquota_core::device::DeviceReport;
use gpuquota_core::event::Event;
use gpuquota_core::explanation::Rule;
use gpuquota_core::id::{LeaseId, QuotaId, SessionId, Timestamp};
use gpuquota_core::lease::{EndReason, Lease, LeasePhase, LeasePlacement};
use gpuquota_core::plan::{Cause, DrainEnd};
use gpuquota_core::quota::QuotaSource;
use gpuquota_core::settings::Settings;
use gpuquota_core::{Answer, Command, Denied, Outcome};

use crate::examples::{GPU, bought, name, on, put, release, until};
use crate::properties::{NOW, full_report, held_gpu, with_nodes};
use crate::world::{model, node, region, tenant};
use crate::{Ledger, START};

pub(crate) const NOTICE: i64 = 1000;

pub(crate) fn at(ms: i64) -> Timestamp {
    Timestamp(START.0 + ms)
}

pub(crate) fn draining(set: SetQuota) -> SetQuota {
    SetQuota {
        on_excess: OnExcess::Drain,
        ..set
    }
}

/// Tenant a may have eight GPUs, which are free on node n0; notices are short.
pub(crate) fn eight() -> Ledger {
    let mut ledger = with_nodes(&["n0", "n1"]);
    let settings = Settings {
        drain_notice_ms: 1000,
        ..Settings::default()
    };
    ledger.ask(&Command::SetSettings(settings), START, None);
    ledger.put(put(bought("a", GPU), 8)).unwrap();
    say(&mut ledger, 1, &[], START);
    ledger
}

/// Node n0 has eight GPUs; a process of tenant a is on these.
pub(crate) fn say(ledger: &mut Ledger, number: u64, held: &[usize], now: Timestamp) {
    let devices: Vec<DeviceReport> = (0..8)
        .map(|at| {
            held_gpu(
                &format!("GPU-{at}"),
                if held.contains(&at) { &["a"] } else { &[] },
            )
        })
        .collect();
    let report = Command::Report(full_report("n0", number, devices));
    granted(ledger, &report, now);
}

pub(crate) fn granted(ledger: &mut Ledger, command: &Command, now: Timestamp) -> Outcome {
    let answer = ledger.ask(command, now, None);
    ledger.state.verify().unwrap();
    match answer {
        Answer::Granted(outcome) => outcome,
        Answer::Denied(denied) => unreachable!("{command:?}: {denied}"),
    }
}

pub(crate) fn lease(
    ledger: &mut Ledger,
    count: u32,
    placement: LeasePlacement,
    now: Timestamp,
) -> Lease {
    let request = RequestLease::of(tenant("a"), region("bj"), model(GPU), count, placement);
    match granted(ledger, &Command::RequestLease(request), now) {
        Outcome::Lease(lease) => Lease::clone(&lease),
        other => unreachable!("{other:?}"),
    }
}

pub(crate) fn sweep(ledger: &mut Ledger, now: Timestamp) {
    ledger.sweep(now);
    ledger.state.verify().unwrap();
}

pub(crate) fn ended(ledger: &Ledger) -> Vec<DrainEnd> {
    let events = ledger
        .journal
        .iter()
        .flat_map(|(.., record)| &record.events);
    events
        .filter_map(|event| match event {
            Event::DrainEnded { reason, .. } => Some(*reason),
            _ => None,
        })
        .collect()
}

pub(crate) fn reason(ledger: &Ledger, lease: LeaseId) -> Option<EndReason> {
    match &ledger.state.lease(lease).unwrap().phase {
        LeasePhase::Active => None,
        LeasePhase::Releasing { reason, .. } | LeasePhase::Ended { reason, .. } => Some(*reason),
    }
}

fn used(ledger: &Ledger) -> u64 {
    ledger.usage("a").used.into_values().sum()
}

// Leases 1 to 4 of one device each; 1 and 3 are idle, 3 for longer. GPU 6 is held without a lease.
pub(crate) fn mixed() -> Ledger {
    let mut ledger = eight();
    let mut keys = Vec::new();
    for number in 0..4 {
        let lease = lease(&mut ledger, 1, LeasePlacement::Devices, at(number));
        keys.extend(lease.devices.into_keys());
    }
    let index = |lease: usize| {
        let uuid = keys[lease - 1].to_string();
        uuid.trim_start_matches("GPU-").parse::<usize>().unwrap()
    };
    let free = (0..8)
        .rev()
        .find(|at| (1..=4).all(|lease| index(lease) != *at))
        .unwrap();
    say(
        &mut ledger,
        2,
        &[index(1), index(2), index(3), index(4), free],
        at(10),
    );
    say(
        &mut ledger,
        3,
        &[index(1), index(2), index(4), free],
        at(20),
    );
    say(&mut ledger, 4, &[index(2), index(4), free], at(30));
    ledger
}

#[test]
fn a_drain_begins_ends_leases_at_its_deadline_and_is_met_when_they_are_seen_free() {
    let mut ledger = mixed();
    let small = put(bought("a", GPU), 3);
    let denied = ledger.ask(&Command::SetQuota(small.clone()), at(40), None);
    assert!(matches!(
        denied,
        Answer::Denied(Denied::BelowUse { excess: 2, .. })
    ));
    assert_eq!(ledger.state.drains().count(), 0);
    granted(
        &mut ledger,
        &Command::SetQuota(draining(small.clone())),
        at(40),
    );
    let drain = ledger.state.drains().next().unwrap().2.clone();
    assert_eq!((drain.since, drain.deadline), (at(40), at(40 + NOTICE)));
    let ask = RequestLease::of(
        tenant("a"),
        region("bj"),
        model(GPU),
        1,
        LeasePlacement::Devices,
    );
    let refused = ledger.ask(&Command::RequestLease(ask), at(41), None);
    assert!(
        matches!(&refused, Answer::Denied(Denied::Lease { because }) if because.rule == Rule::OverQuota)
    );
    sweep(&mut ledger, at(39 + NOTICE));
    assert_eq!(
        ledger.state.leases().filter(|lease| lease.active()).count(),
        4
    );
    sweep(&mut ledger, at(40 + NOTICE));
    assert_eq!(reason(&ledger, LeaseId(3)), Some(EndReason::Drained));
    assert_eq!(reason(&ledger, LeaseId(1)), Some(EndReason::Drained));
    assert_eq!(
        (reason(&ledger, LeaseId(2)), reason(&ledger, LeaseId(4))),
        (None, None)
    );
    assert_eq!(
        (used(&ledger), ended(&ledger)),
        (5, vec![]),
        "charged until they are seen free"
    );
    let confirm = Command::Agree {
        node: node("n0"),
        session: SessionId(1),
        read_after: Some(NOW),
    };
    granted(&mut ledger, &confirm, at(50 + NOTICE));
    assert_eq!((used(&ledger), ended(&ledger)), (3, vec![DrainEnd::Met]));
    assert_eq!(ledger.state.drains().count(), 0);
    sweep(&mut ledger, at(9 * NOTICE));
    assert_eq!(
        ledger.state.leases().filter(|lease| lease.active()).count(),
        2
    );
    assert!(ledger.refold() == ledger.state);
}

#[test]
fn case_74_a_limit_that_is_raised_again_withdraws_the_drain() {
    let mut ledger = mixed();
    granted(
        &mut ledger,
        &Command::SetQuota(draining(put(bought("a", GPU), 2))),
        at(40),
    );
    granted(
        &mut ledger,
        &Command::SetQuota(put(bought("a", GPU), 5)),
        at(500),
    );
    assert_eq!(ended(&ledger), [DrainEnd::Withdrawn]);
    sweep(&mut ledger, at(9 * NOTICE));
    assert_eq!(
        ledger.state.leases().filter(|lease| lease.active()).count(),
        4
    );
    // What the tenant ends itself meets it too, and a part of it only makes it smaller.
    granted(
        &mut ledger,
        &Command::SetQuota(draining(put(bought("a", GPU), 3))),
        at(10_000),
    );
    let forced = |lease| Command::ReleaseLease {
        lease: LeaseId(lease),
        forced: true,
        expected: None,
    };
    granted(&mut ledger, &forced(3), at(10_001));
    let (_, group, _) = ledger.state.drains().next().unwrap();
    assert_eq!(ledger.state.excess_in(&tenant("a"), group), 1);
    granted(&mut ledger, &forced(1), at(10_002));
    assert_eq!(ended(&ledger), [DrainEnd::Withdrawn, DrainEnd::Met]);
}

#[test]
fn case_73_a_typing_error_shows_whom_it_would_hit_and_ends_nothing_before_the_deadline() {
    let mut ledger = eight();
    granted(
        &mut ledger,
        &Command::SetQuota(put(bought("a", GPU), 500)),
        START,
    );
    for _ in 0..499 {
        lease(&mut ledger, 1, LeasePlacement::CountOnly, START);
    }
    let typed = draining(put(bought("a", GPU), 5));
    let plan = ledger
        .state
        .preview(&Command::SetQuota(typed.clone()), START)
        .unwrap()
        .plan;
    assert_eq!(plan.groups[0].victims.len(), 494);
    assert_eq!(
        ledger.state.quota(QuotaId(0)).unwrap().limit.to_string(),
        "500"
    );
    granted(&mut ledger, &Command::SetQuota(typed), START);
    sweep(&mut ledger, at(NOTICE - 1));
    assert_eq!(
        ledger.state.leases().filter(|lease| lease.active()).count(),
        499
    );
    sweep(&mut ledger, at(NOTICE));
    assert_eq!(
        ledger.state.leases().filter(|lease| lease.active()).count(),
        5
    );
    assert_eq!(ended(&ledger), [DrainEnd::Met]);
}

#[test]
fn d1_4_a_forced_release_ends_leases_at_once_and_only_what_other_quotas_do_not_bear() {
    let mut ledger = mixed();
    granted(
        &mut ledger,
        &Command::SetQuota(put(name("a", QuotaSource::Assign, GPU), 5)),
        at(40),
    );
    let purchase = Command::ReleaseQuota(release(bought("a", GPU), true, false));
    granted(&mut ledger, &purchase, at(41));
    assert_eq!(ledger.state.drains().count(), 0);
    assert_eq!(
        ledger.state.leases().filter(|lease| lease.active()).count(),
        4
    );
    let assigned = release(name("a", QuotaSource::Assign, GPU), true, false);
    granted(&mut ledger, &Command::ReleaseQuota(assigned), at(42));
    assert_eq!(
        ledger.state.leases().filter(|lease| lease.active()).count(),
        0
    );
    assert_eq!(reason(&ledger, LeaseId(2)), Some(EndReason::Forced));
    let (_, group, drain) = ledger.state.drains().next().unwrap();
    assert_eq!(
        (drain.cause, drain.enforced_at),
        (Cause::Release, Some(at(42)))
    );
    assert_eq!(
        ledger.state.excess_in(&tenant("a"), group),
        5,
        "until they are seen free"
    );
    assert_eq!(
        ledger.state.next_due(),
        Some(at(42 + 10 * 60 * 1000)),
        "no more deadline"
    );
}

#[test]
fn an_end_begins_a_drain_with_notice_and_a_dedicated_one_only_on_its_nodes() {
    let mut ledger = eight();
    say(&mut ledger, 2, &[0, 1, 2], at(1));
    let dedicated = on(put(name("a", QuotaSource::Assign, GPU), 3), &["n0"]);
    granted(
        &mut ledger,
        &Command::SetQuota(until(dedicated, 500)),
        at(2),
    );
    granted(
        &mut ledger,
        &Command::SetQuota(put(bought("a", GPU), 1)),
        at(3),
    );
    assert_eq!(ledger.state.drains().count(), 0);
    sweep(&mut ledger, at(500));
    let (_, group, drain) = ledger.state.drains().next().unwrap();
    assert_eq!(
        (group.quota_type.as_str(), drain.cause),
        ("flexible", Cause::Expiry)
    );
    assert_eq!(ledger.state.excess_in(&tenant("a"), group), 2);
    assert_eq!(drain.deadline, at(500 + NOTICE));
    // Nothing of it is leased, so the deadline ends nothing; what is held stays a violation until it goes.
    sweep(&mut ledger, at(500 + NOTICE));
    assert_eq!(ledger.usage("a").violations.len(), 2);
    say(&mut ledger, 3, &[0], at(600 + NOTICE));
    assert_eq!(ended(&ledger), [DrainEnd::Met]);
}
