//! What ends a lease and what does not, and what a GPU that is laid out anew leaves promised.

use gpuquota_core::command::{NodeReport, QuotaName, RequestLease};
use gpuquota_core::device::{DeviceKey, DeviceReport};
use gpuquota_core::event::SilenceReason;
use gpuquota_core::explanation::{Change, Rule};
use gpuquota_core::id::{GroupName, SessionId, Timestamp};
use gpuquota_core::lease::{EndReason, Lease, LeasePhase, Unconfirmed};
use gpuquota_core::pool::{Accelerator, CardLimitKey};
use gpuquota_core::quota::QuotaType;
use gpuquota_core::settings::Settings;
use gpuquota_core::{Answer, Command, Denied};

use crate::drain::draining;
use crate::examples::{GPU, bought, on, put, release, until};
use crate::leases::{ask_for, at, four, free, number_for};
use crate::properties::{NOW, full_report, held_gpu, with_nodes};
use crate::world::{model, node, tenant};
use crate::{Ledger, START, said};

const SLICE: &str = "1g.10gb";

fn slice(gpu: &str, ci: u32, tenants: &[&str]) -> DeviceReport {
    DeviceReport {
        key: DeviceKey::mig(gpu, 1, ci).unwrap(),
        gpu_model: model(SLICE),
        ..held_gpu(gpu, tenants)
    }
}

fn laid_out(gpu: &str) -> DeviceReport {
    DeviceReport {
        partitioned: true,
        ..held_gpu(gpu, &[])
    }
}

fn slices_for(who: &str, count: u32) -> RequestLease {
    RequestLease {
        gpu_model: model("nvidia.com/mig-1c10g"),
        ..ask_for(who, count)
    }
}

fn silence(ledger: &mut Ledger, name: &str, now: Timestamp) {
    let silent = Command::MarkSilent {
        node: node(name),
        session: SessionId(1),
        reason: SilenceReason::Timeout,
    };
    ledger.ask(&silent, now, None);
}

#[test]
fn a_reading_from_before_the_release_frees_nothing_however_young_it_seems() {
    let mut ledger = four();
    let lease = ledger.lease(&ask_for("a", 1), START).unwrap();
    let before = ledger.state.seq();
    ledger.give_back(lease.id, false, at(20));
    let released = ledger.state.seq();
    let read = |number, read_after| {
        Command::Report(NodeReport {
            age_ms: Some(0),
            read_after,
            ..full_report("n0", number, free(0, 4))
        })
    };
    ledger.ask(&read(2, None), at(30), None);
    assert_eq!(ledger.used("a"), [1], "it may have waited since before");
    // Its age says that it is from after the release; the age is as old as its way was long.
    ledger.ask(&read(3, Some(before)), at(40), None);
    assert_eq!(ledger.used("a"), [1]);
    ledger.ask(&read(4, Some(released)), at(40), None);
    assert_eq!(ledger.used("a"), [0]);
}

#[test]
fn a_node_does_not_speak_for_a_device_that_another_has() {
    let mut ledger = with_nodes(&["n0", "n1"]);
    ledger.put(put(bought("a", GPU), 4)).unwrap();
    ledger.say("n0", 1, free(0, 1), START);
    let lease = ledger.lease(&ask_for("a", 1), START).unwrap();
    ledger.say("n0", 2, Vec::new(), at(1));
    ledger.say("n1", 1, vec![held_gpu("GPU-0", &["a"])], at(2));
    ledger.give_back(lease.id, false, at(3));
    ledger.confirm("n0", NOW, at(4));
    ledger.say("n0", 3, Vec::new(), at(5));
    let state = |ledger: &Ledger| ledger.state.lease(lease.id).unwrap().clone();
    assert_eq!(state(&ledger).state(), "releasing");
    silence(&mut ledger, "n1", at(6));
    let wait = i64::try_from(Settings::default().confirm_within_ms).unwrap();
    ledger.sweep(at(3 + wait));
    assert_eq!(state(&ledger).state(), "releasing", "its node is not heard");
    let heard = Command::MarkHeard {
        node: node("n1"),
        session: SessionId(1),
    };
    ledger.ask(&heard, at(4 + wait), None);
    ledger.sweep(at(4 + 2 * wait));
    let LeasePhase::Ended { unconfirmed, .. } = state(&ledger).phase else {
        panic!("{:?}", state(&ledger));
    };
    let why: Vec<_> = unconfirmed.into_values().collect();
    assert_eq!(why, [Unconfirmed::StillHeld]);
}

#[test]
fn what_is_free_at_the_deadline_is_not_called_held() {
    let mut ledger = four();
    let lease = ledger.lease(&ask_for("a", 2), START).unwrap();
    let held = held_gpu("GPU-1", &["a"]);
    ledger.say("n0", 2, vec![held_gpu("GPU-0", &[]), held], at(1));
    // The agent does not say which row it knew of, so nothing that it reads confirms the release.
    ledger.give_back(lease.id, false, at(2));
    let wait = i64::try_from(Settings::default().confirm_within_ms).unwrap();
    ledger.sweep(at(2 + wait));
    let ended = ledger.state.lease(lease.id).unwrap().clone();
    let LeasePhase::Ended { unconfirmed, .. } = ended.phase else {
        panic!("{ended:?}");
    };
    let why: Vec<_> = unconfirmed.into_values().collect();
    assert_eq!(why, [Unconfirmed::NeverConfirmed, Unconfirmed::StillHeld]);
}

#[test]
fn waiting_for_no_time_at_all_is_not_due_for_ever() {
    let mut ledger = four();
    let settings = Settings {
        confirm_within_ms: 0,
        ..Settings::default()
    };
    ledger.ask(&Command::SetSettings(settings), START, None);
    let lease = ledger.lease(&ask_for("a", 1), START).unwrap();
    silence(&mut ledger, "n0", START);
    ledger.give_back(lease.id, false, at(1));
    for now in 1..4 {
        assert!(ledger.state.next_due() > Some(at(now)));
        ledger.sweep(at(now + 1));
    }
    assert_eq!(ledger.used("a"), [1]);
}

#[test]
fn a_gpu_that_is_laid_out_anew_is_promised_once() {
    let mut ledger = four();
    ledger
        .put(put(bought("b", "nvidia.com/mig-1c10g"), 4))
        .unwrap();
    ledger.put(put(bought("b", GPU), 4)).unwrap();
    ledger.say("n0", 2, free(0, 1), START);
    let whole = ledger.lease(&ask_for("a", 1), START).unwrap();
    let parts = || {
        vec![
            laid_out("GPU-0"),
            slice("GPU-0", 0, &[]),
            slice("GPU-0", 1, &[]),
        ]
    };
    ledger.say("n0", 3, parts(), at(1));
    assert_eq!(ledger.used("a"), [1], "the promise stands");
    let denied = ledger.lease(&slices_for("b", 1), at(2)).unwrap_err();
    assert_eq!(denied.because[0].rule, Rule::DeviceLeased);
    assert_eq!(denied.because[0].tenants, [tenant("a")]);
    ledger.give_back(whole.id, false, at(3));
    ledger.say("n0", 4, parts(), at(4));
    let part = ledger.lease(&slices_for("b", 1), at(5)).unwrap();
    // And back: the slice is gone, but promised still.
    ledger.say("n0", 5, free(0, 1), at(6));
    let denied = ledger.lease(&ask_for("a", 1), at(7)).unwrap_err();
    assert_eq!(denied.because[0].rule, Rule::DeviceLeased);
    ledger.give_back(part.id, true, at(8));
    ledger.lease(&ask_for("a", 1), at(9)).unwrap();
}

#[test]
fn a_gpu_with_somebody_on_a_slice_of_it_is_not_whole() {
    let mut ledger = four();
    let odd = vec![held_gpu("GPU-0", &[]), slice("GPU-0", 0, &["b"])];
    ledger.say("n0", 2, odd, at(1));
    let denied = ledger.lease(&ask_for("a", 1), at(2)).unwrap_err();
    assert_eq!(denied.because[0].rule, Rule::DeviceHeld);
}

#[test]
fn a_bound_of_cards_takes_the_emptiest_where_the_fullest_have_too_few_slices() {
    let mut ledger = with_nodes(&["n0"]);
    ledger
        .put(put(bought("a", "nvidia.com/mig-1c10g"), 8))
        .unwrap();
    let mut devices: Vec<_> = (0..3).map(|ci| slice("GPU-1", ci, &["b"])).collect();
    devices.push(slice("GPU-1", 3, &[]));
    devices.extend((0..4).map(|ci| slice("GPU-0", ci, &[])));
    devices.push(laid_out("GPU-0"));
    ledger.say("n0", 1, devices, START);
    let key = CardLimitKey {
        group: GroupName::new("H100").unwrap(),
        tenant: None,
        accelerator: Accelerator::Gpu,
    };
    ledger.ask(&Command::SetCardLimit(key, Some(1)), START, None);
    let cards = |ledger: &Ledger, count| {
        let mut ledger = Ledger::of(ledger.state.clone());
        let lease = ledger.lease(&slices_for("a", count), START).unwrap();
        let gpus = lease.devices.into_keys().map(|key| key.to_string());
        gpus.map(|key| key[..5].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(cards(&ledger, 1), ["GPU-1"], "whole GPUs stay whole");
    assert_eq!(cards(&ledger, 2), ["GPU-0", "GPU-0"]);
    let denied = ledger.lease(&slices_for("a", 5), START).unwrap_err();
    assert_eq!(denied.admit, Some(Change::AskFor { count: 4 }));
    let rules: Vec<Rule> = denied.because.iter().map(|it| it.rule).collect();
    assert_eq!(rules, [Rule::DeviceHeld, Rule::NodeLimit]);
}

#[test]
fn a_leased_device_that_is_gone_counts_where_usage_lays_it() {
    let mut ledger = with_nodes(&["n0"]);
    ledger.say("n0", 1, free(0, 1), START);
    ledger.put(put(bought("a", GPU), 1)).unwrap();
    ledger
        .put(until(on(put(bought("a", GPU), 1), &["n0"]), 10))
        .unwrap();
    let dedicated = RequestLease {
        quota_type: Some(gpuquota_core::quota::QuotaType::Dedicated),
        ..ask_for("a", 1)
    };
    ledger.lease(&dedicated, START).unwrap();
    ledger.say("n0", 2, Vec::new(), at(1));
    assert_eq!(ledger.used("a"), [0, 1]);
    // The dedicated quota ends; the promise takes what the other one has.
    ledger.sweep(at(10));
    assert_eq!(ledger.used("a"), [1, 0]);
    let denied = ledger.lease(&number_for("a", 1), at(11)).unwrap_err();
    assert_eq!((denied.rule, denied.used), (Rule::OverQuota, Some(1)));
}

#[test]
fn renewing_asks_the_quotas_to_which_the_devices_are_charged_now() {
    let mut ledger = four();
    let lease = ledger.lease(&ask_for("a", 1), START).unwrap();
    ledger.put(on(put(bought("a", GPU), 1), &["n0"])).unwrap();
    let renew = Command::RenewLease {
        lease: lease.id,
        ttl_ms: Some(100),
        expected: None,
    };
    assert!(matches!(
        ledger.ask(&renew, at(1), None),
        Answer::Granted(_)
    ));
    let held = (0..4).map(|gpu| held_gpu(&format!("GPU-{gpu}"), &["a"]));
    ledger.say("n0", 2, held.collect(), at(2));
    let denied = ledger.ask(&renew, at(3), None);
    let Answer::Denied(Denied::Lease { because }) = &denied else {
        panic!("{denied:?}");
    };
    assert_eq!(because.admit, Some(Change::GiveBack { count: 3 }));
    assert_eq!(said(&denied), Err("lease: over_quota".into()));
}

#[test]
fn what_runs_without_a_quota_counts_in_what_would_admit() {
    let mut ledger = four();
    ledger.put(put(bought("b", "tyui-3"), 1)).unwrap();
    ledger.say("n0", 2, vec![held_gpu("GPU-0", &["b"])], at(1));
    let denied = ledger.lease(&number_for("b", 2), at(2)).unwrap_err();
    let make = Change::RaiseLimit {
        quota: None,
        limit: 3,
    };
    assert_eq!((denied.used, denied.admit), (Some(1), Some(make)));
}

#[test]
fn what_waits_to_be_seen_free_ends_at_its_deadline() {
    let mut ledger = four();
    ledger.put(put(bought("b", GPU), 1)).unwrap();
    let short = RequestLease {
        ttl_ms: Some(10),
        ..ask_for("a", 4)
    };
    ledger.lease(&short, START).unwrap();
    let denied = ledger.lease(&ask_for("a", 1), at(5)).unwrap_err();
    assert_eq!(denied.soonest, Some(at(10)));
    let wait = i64::try_from(Settings::default().confirm_within_ms).unwrap();
    assert_eq!(denied.admit, Some(Change::WaitUntil { at: at(10 + wait) }));
    let denied = ledger.lease(&ask_for("a", 1), at(10)).unwrap_err();
    assert_eq!(denied.soonest, Some(at(10 + wait)));
    let denied = ledger.lease(&ask_for("b", 1), at(11)).unwrap_err();
    assert_eq!(denied.soonest, Some(at(10 + wait)));
}

#[test]
fn a_lease_on_a_node_that_serves_another_tenant_by_now_is_not_kept_longer() {
    let mut ledger = four();
    let asked = RequestLease {
        ttl_ms: Some(100),
        ..ask_for("a", 2)
    };
    let lease = ledger.lease(&asked, START).unwrap();
    let number = RequestLease {
        ttl_ms: Some(100),
        ..number_for("a", 1)
    };
    let number = ledger.lease(&number, START).unwrap();
    let bound = draining(on(put(bought("b", GPU), 4), &["n0"]));
    ledger.put(bound).unwrap();
    let renew = |lease: &Lease, ttl_ms| Command::RenewLease {
        lease: lease.id,
        ttl_ms,
        expected: None,
    };
    for longer in [Some(200), None] {
        let denied = match ledger.ask(&renew(&lease, longer), at(1), None) {
            Answer::Denied(Denied::Lease { because }) => because,
            other => unreachable!("{other:?}"),
        };
        assert_eq!(
            (denied.rule, denied.others, denied.asked),
            (Rule::NodeDedicated, Some(2), Some(2))
        );
        assert_eq!(denied.admit, Some(Change::LeaseElsewhere { count: 2 }));
        assert_eq!(
            (denied.tenants.as_slice(), denied.nodes.as_slice()),
            ([tenant("b")].as_slice(), [node("n0")].as_slice())
        );
        assert!(denied.redacted().tenants.is_empty() && denied.redacted().nodes.is_empty());
    }
    // It may end sooner, stays until then, and what names no devices is on no node.
    assert!(matches!(
        ledger.ask(&renew(&lease, Some(50)), at(2), None),
        Answer::Granted(_)
    ));
    assert!(matches!(
        ledger.ask(&renew(&number, None), at(2), None),
        Answer::Granted(_)
    ));
    assert_eq!(
        ledger.state.lease(lease.id).unwrap().expires_at,
        Some(at(52))
    );
    assert!(ledger.state.lease(lease.id).unwrap().active());
    // Once the node is nobody's, the lease is kept again.
    let dedicated = QuotaName {
        quota_type: Some(QuotaType::Dedicated),
        ..bought("b", GPU)
    };
    let away = Command::ReleaseQuota(release(dedicated, true, true));
    assert!(matches!(ledger.ask(&away, at(3), None), Answer::Granted(_)));
    assert!(matches!(
        ledger.ask(&renew(&lease, Some(500)), at(3), None),
        Answer::Granted(_)
    ));
}

#[test]
fn a_forced_release_waits_for_nobody_and_says_so() {
    let mut ledger = four();
    let lease = ledger.lease(&ask_for("a", 1), START).unwrap();
    let ended = ledger.give_back(lease.id, true, at(1));
    let LeasePhase::Ended {
        reason: EndReason::Forced,
        unconfirmed,
        ..
    } = &ended.phase
    else {
        unreachable!("{ended:?}");
    };
    assert_eq!(
        unconfirmed.values().collect::<Vec<_>>(),
        [&Unconfirmed::Forced]
    );
    assert_eq!(ledger.used("a"), [0]);
}
