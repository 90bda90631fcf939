//! Leases, rule by rule.

use std::collections::BTreeSet;

use gpuquota_core::command::{NodeReport, RequestLease};
use gpuquota_core::device::DeviceReport;
use gpuquota_core::event::SilenceReason;
use gpuquota_core::explanation::{Change, Explanation, Rule};
use gpuquota_core::id::{LeaseId, Seq, SessionId, Timestamp};
use gpuquota_core::lease::{EndReason, Lease, LeasePhase, LeasePlacement, Unconfirmed};
use gpuquota_core::quota::QuotaSource;
use gpuquota_core::settings::Settings;
use gpuquota_core::{Answer, Command, Denied, Outcome};

use crate::examples::{GPU, bought, name, put};
use crate::properties::{NOW, full_report, held_gpu, with_nodes};
use crate::world::{model, node, region, tenant};
use crate::{Ledger, START};

pub(crate) fn at(ms: i64) -> Timestamp {
    Timestamp(START.0 + ms)
}

pub(crate) fn ask_for(who: &str, count: u32) -> RequestLease {
    RequestLease::of(
        tenant(who),
        region("bj"),
        model(GPU),
        count,
        LeasePlacement::Devices,
    )
}

pub(crate) fn number_for(who: &str, count: u32) -> RequestLease {
    RequestLease {
        placement: LeasePlacement::CountOnly,
        ..ask_for(who, count)
    }
}

impl Ledger {
    pub(crate) fn lease(
        &mut self,
        request: &RequestLease,
        now: Timestamp,
    ) -> Result<Lease, Box<Explanation>> {
        match self.ask(&Command::RequestLease(request.clone()), now, None) {
            Answer::Granted(Outcome::Lease(lease)) => {
                assert_eq!(
                    self.state.lease(lease.id),
                    Some(&*lease),
                    "the answer is the row"
                );
                self.state.verify().unwrap();
                Ok(Lease::clone(&lease))
            }
            Answer::Denied(Denied::Lease { because }) => Err(because),
            other => unreachable!("{other:?}"),
        }
    }

    pub(crate) fn give_back(&mut self, lease: LeaseId, forced: bool, now: Timestamp) -> Lease {
        match self.ask(
            &Command::ReleaseLease {
                lease,
                forced,
                expected: None,
            },
            now,
            None,
        ) {
            Answer::Granted(Outcome::Lease(lease)) => {
                assert_eq!(
                    self.state.lease(lease.id),
                    Some(&*lease),
                    "the answer is the row"
                );
                self.state.verify().unwrap();
                Lease::clone(&lease)
            }
            other => unreachable!("{other:?}"),
        }
    }

    pub(crate) fn say(
        &mut self,
        name: &str,
        number: u64,
        devices: Vec<DeviceReport>,
        now: Timestamp,
    ) {
        let report = full_report(name, number, devices);
        let answer = self.ask(&Command::Report(report), now, None);
        assert!(matches!(answer, Answer::Granted(_)), "{answer:?}");
        self.state.verify().unwrap();
    }

    pub(crate) fn confirm(&mut self, name: &str, read_after: Seq, now: Timestamp) {
        let confirm = Command::Agree {
            node: node(name),
            session: SessionId(1),
            read_after: Some(read_after),
        };
        let answer = self.ask(&confirm, now, None);
        assert!(matches!(answer, Answer::Granted(_)), "{answer:?}");
        self.state.verify().unwrap();
    }

    /// The node says that it is as the ledger has it, by a reading that may be older than its session.
    pub(crate) fn settle(&mut self, name: &str, now: Timestamp) {
        let node = node(name);
        let session = self.state.node(&node).unwrap().session;
        let agree = Command::Agree {
            node,
            session,
            read_after: None,
        };
        let answer = self.ask(&agree, now, None);
        assert!(matches!(answer, Answer::Granted(_)), "{answer:?}");
        self.state.verify().unwrap();
    }

    pub(crate) fn used(&self, who: &str) -> Vec<u64> {
        self.usage(who).used.into_values().collect()
    }
}

pub(crate) fn free(from: usize, to: usize) -> Vec<DeviceReport> {
    (from..to)
        .map(|at| held_gpu(&format!("GPU-{at}"), &[]))
        .collect()
}

// Tenant a with four GPUs by purchase, on node n0 with four free GPUs.
pub(crate) fn four() -> Ledger {
    let mut ledger = with_nodes(&["n0"]);
    ledger.put(put(bought("a", GPU), 4)).unwrap();
    ledger.say("n0", 1, free(0, 4), START);
    ledger
}

#[test]
fn a_device_has_one_live_lease_and_epochs_grow() {
    let mut ledger = four();
    ledger.put(put(bought("b", GPU), 4)).unwrap();
    let first = ledger.lease(&ask_for("a", 3), START).unwrap();
    assert_eq!(
        (first.id, first.devices.len(), first.state()),
        (LeaseId(1), 3, "active")
    );
    let denied = ledger.lease(&ask_for("b", 2), START).unwrap_err();
    assert_eq!(denied.rule, Rule::NoDevice);
    assert_eq!(denied.because[0].rule, Rule::DeviceLeased);
    assert_eq!(
        (
            denied.because[0].others,
            denied.because[0].tenants.as_slice()
        ),
        (Some(3), [tenant("a")].as_slice())
    );
    assert!(denied.redacted().because[0].tenants.is_empty());
    assert_eq!(denied.admit, Some(Change::AskFor { count: 1 }));
    let second = ledger.lease(&ask_for("b", 1), START).unwrap();
    assert!(second.epoch > first.epoch);
    let both: BTreeSet<_> = first.devices.keys().chain(second.devices.keys()).collect();
    assert_eq!(both.len(), 4);
    assert_eq!((ledger.used("a"), ledger.used("b")), (vec![3], vec![1]));
}

#[test]
fn used_and_asked_stay_within_all_quotas_that_fit_in_their_order() {
    let mut ledger = four();
    ledger
        .put(put(name("a", QuotaSource::Assign, GPU), 2))
        .unwrap();
    let first = ledger.lease(&number_for("a", 3), START).unwrap();
    assert_eq!(first.source, QuotaSource::Purchase);
    // Two are left over: one by purchase, so that is where the lease begins.
    let second = ledger.lease(&number_for("a", 2), START).unwrap();
    assert_eq!(
        (second.source, ledger.used("a")),
        (QuotaSource::Purchase, vec![4, 1])
    );
    let third = ledger.lease(&number_for("a", 1), START).unwrap();
    assert_eq!(
        (third.source, ledger.used("a")),
        (QuotaSource::Assign, vec![4, 2])
    );
    let denied = ledger.lease(&number_for("a", 1), START).unwrap_err();
    assert_eq!(denied.rule, Rule::OverQuota);
    assert_eq!(
        (denied.used, denied.leased, denied.observed, denied.asked),
        (Some(6), Some(6), Some(0), Some(1))
    );
    assert_eq!(denied.own.len(), 3);
    let settings = Settings {
        consume_first: QuotaSource::Assign,
        ..Settings::default()
    };
    ledger.ask(&Command::SetSettings(settings), START, None);
    ledger.give_back(first.id, false, START);
    assert_eq!(ledger.used("a"), [1, 2]);
}

#[test]
fn a_number_and_what_runs_without_a_lease_cover_each_other() {
    let mut ledger = four();
    ledger.lease(&number_for("a", 2), START).unwrap();
    assert_eq!(ledger.used("a"), [2]);
    let held = (0..3).map(|at| held_gpu(&format!("GPU-{at}"), &["a"]));
    ledger.say("n0", 2, held.chain(free(3, 4)).collect(), START);
    assert_eq!(ledger.used("a"), [3]);
    let usage = ledger.usage("a");
    assert_eq!(
        (
            usage.leased.into_values().sum::<u64>(),
            usage.observed.into_values().sum::<u64>()
        ),
        (2, 3)
    );
    // One is left: by a number it may be what runs already, with a device it may not.
    assert_eq!(
        ledger.lease(&ask_for("a", 2), START).unwrap_err().rule,
        Rule::OverQuota
    );
    let placed = ledger.lease(&ask_for("a", 1), START).unwrap();
    assert!(placed.devices.contains_key(&held_gpu("GPU-3", &[]).key));
    assert_eq!(ledger.used("a"), [4]);
}

#[test]
fn a_released_lease_is_charged_until_a_later_reading_shows_its_devices_free() {
    let mut ledger = four();
    let lease = ledger.lease(&ask_for("a", 2), START).unwrap();
    let keys: Vec<_> = lease.devices.keys().cloned().collect();
    let held = |names: &[&str]| -> Vec<DeviceReport> {
        let mut devices = free(0, 4);
        for device in devices
            .iter_mut()
            .filter(|device| keys.contains(&device.key))
        {
            device.tenants = names.iter().map(|name| tenant(name)).collect();
        }
        devices
    };
    ledger.say("n0", 2, held(&["a"]), at(10));
    let releasing = ledger.give_back(lease.id, false, at(20));
    assert_eq!(
        (releasing.state(), ledger.used("a")),
        ("releasing", vec![2])
    );
    assert_eq!(
        ledger.give_back(lease.id, false, at(21)).state(),
        "releasing"
    );
    let released = ledger.state.seq();
    ledger.confirm("n0", NOW, at(30));
    assert_eq!(ledger.used("a"), [2], "they are held");
    // The processes have gone, but the reading is older than the release.
    let before = Seq(released.0 - 1);
    let late = NodeReport {
        age_ms: Some(0),
        read_after: Some(before),
        ..full_report("n0", 3, held(&[]))
    };
    ledger.ask(&Command::Report(late), at(40), None);
    assert_eq!(ledger.used("a"), [2], "the reading is too old");
    ledger.confirm("n0", before, at(40));
    assert_eq!(ledger.used("a"), [2], "so is this one");
    ledger.confirm("n0", released, at(40));
    assert_eq!(ledger.used("a"), [0]);
    let ended = ledger.state.lease(lease.id).unwrap();
    let LeasePhase::Ended {
        reason,
        unconfirmed,
        ..
    } = &ended.phase
    else {
        unreachable!("{ended:?}");
    };
    assert_eq!((reason, unconfirmed.len()), (&EndReason::Released, 0));
    assert_eq!(
        ledger
            .lease(&ask_for("a", 4), at(41))
            .unwrap()
            .devices
            .len(),
        4
    );
}

#[test]
fn a_lease_of_two_nodes_is_freed_node_by_node() {
    let mut ledger = with_nodes(&["n0", "n1"]);
    ledger.put(put(bought("a", GPU), 8)).unwrap();
    ledger.say("n0", 1, free(0, 2), START);
    ledger.say("n1", 1, free(2, 4), START);
    let lease = ledger.lease(&ask_for("a", 4), START).unwrap();
    ledger.give_back(lease.id, false, at(1));
    ledger.say("n0", 2, free(0, 2), at(2));
    assert_eq!(ledger.used("a"), [2]);
    assert_eq!(
        ledger.lease(&ask_for("a", 2), at(3)).unwrap().nodes(),
        BTreeSet::from([&node("n0")])
    );
    ledger.say("n1", 2, free(2, 4), at(4));
    assert_eq!(
        (
            ledger.used("a"),
            ledger.state.lease(lease.id).unwrap().state()
        ),
        (vec![2], "ended")
    );
}

#[test]
fn case_51_waiting_ends_after_a_bounded_time_but_never_while_the_node_is_silent() {
    let mut ledger = four();
    let lease = ledger
        .lease(
            &RequestLease {
                ttl_ms: Some(100),
                ..ask_for("a", 1)
            },
            START,
        )
        .unwrap();
    let key = lease.devices.keys().next().unwrap().clone();
    let held = |who: &str| {
        let mut devices = free(0, 4);
        devices
            .iter_mut()
            .filter(|device| device.key == key)
            .for_each(|device| device.tenants = vec![tenant(who)]);
        devices
    };
    ledger.say("n0", 2, held("a"), at(1));
    let silent = Command::MarkSilent {
        node: node("n0"),
        session: SessionId(1),
        reason: SilenceReason::Timeout,
    };
    ledger.ask(&silent, at(2), None);
    ledger.sweep(at(100));
    assert_eq!(ledger.state.lease(lease.id).unwrap().state(), "releasing");
    let wait = i64::try_from(Settings::default().confirm_within_ms).unwrap();
    for round in 1..4 {
        ledger.sweep(at(100 + round * wait));
        assert_eq!(
            (
                ledger.state.lease(lease.id).unwrap().state(),
                ledger.used("a")
            ),
            ("releasing", vec![1])
        );
        assert!(
            ledger.state.next_due() > Some(at(100 + round * wait)),
            "the sweep does not spin"
        );
    }
    let heard = Command::MarkHeard {
        node: node("n0"),
        session: SessionId(1),
    };
    ledger.ask(&heard, at(100 + 4 * wait - 1), None);
    ledger.settle("n0", at(100 + 4 * wait - 1));
    // The time while it was silent does not count.
    ledger.sweep(at(100 + 5 * wait - 2));
    assert_eq!(ledger.state.lease(lease.id).unwrap().state(), "releasing");
    let now = at(100 + 5 * wait - 1);
    ledger.sweep(now);
    let ended = ledger.state.lease(lease.id).unwrap().clone();
    let LeasePhase::Ended {
        reason: EndReason::Expired,
        unconfirmed,
        ..
    } = ended.phase
    else {
        unreachable!("{ended:?}");
    };
    assert_eq!(unconfirmed[&key], Unconfirmed::StillHeld);
    // It still runs there, so it is still charged and nobody else gets it.
    assert_eq!(ledger.used("a"), [1]);
    assert!(
        ledger
            .lease(&ask_for("a", 3), now)
            .unwrap()
            .devices
            .keys()
            .all(|other| *other != key)
    );
}
