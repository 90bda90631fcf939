//! Leased devices that stand idle, and those of which that is not known.

use gpuquota_core::command::RequestLease;
use gpuquota_core::device::{DeviceHealth, DeviceReport};
use gpuquota_core::event::SilenceReason;
use gpuquota_core::ghost::ghosts;
use gpuquota_core::id::{LeaseId, SessionId, Timestamp};
use gpuquota_core::lease::LeasePlacement;
use gpuquota_core::{Answer, Command};

use crate::examples::{GPU, bought, put};
use crate::properties::{full_report, held_gpu, with_nodes};
use crate::world::{model, node, region, tenant};
use crate::{Ledger, START};

const HOUR_MS: i64 = 60 * 60 * 1000;

fn at(ms: i64) -> Timestamp {
    Timestamp(START.0 + ms)
}

fn idle_since(ledger: &Ledger, now: Timestamp) -> Vec<Timestamp> {
    ghosts(&ledger.state, now).map(|it| it.since).collect()
}

// One of two GPUs of node n0 is leased at 10 ms.
fn leased() -> Ledger {
    let mut ledger = with_nodes(&["n0"]);
    ledger.put(put(bought("a", GPU), 4)).unwrap();
    say(&mut ledger, 1, held_gpu("GPU-0", &[]), 0);
    let (who, place, gpus) = (tenant("a"), region("bj"), model(GPU));
    let request = RequestLease::of(who, place, gpus, 1, LeasePlacement::Devices);
    grant(&mut ledger, &Command::RequestLease(request), 10);
    ledger
}

fn grant(ledger: &mut Ledger, command: &Command, ms: i64) {
    let answer = ledger.ask(command, at(ms), None);
    assert!(matches!(answer, Answer::Granted(_)), "{answer:?}");
}

fn say(ledger: &mut Ledger, number: u64, device: DeviceReport, ms: i64) {
    let report = full_report("n0", number, vec![device]);
    grant(ledger, &Command::Report(report), ms);
}

#[test]
fn a_leased_device_is_a_ghost_once_it_was_idle_for_longer_than_is_allowed() {
    let mut ledger = leased();
    assert_eq!(idle_since(&ledger, at(10 + HOUR_MS)), []);
    // It was free before; what counts is since when it has been leased and idle.
    assert_eq!(idle_since(&ledger, at(11 + HOUR_MS)), [at(10)]);
    say(&mut ledger, 2, held_gpu("GPU-0", &["a"]), 20);
    assert_eq!(idle_since(&ledger, at(2 * HOUR_MS)), []);
    say(&mut ledger, 3, held_gpu("GPU-0", &[]), 30);
    assert_eq!(idle_since(&ledger, at(2 * HOUR_MS)), [at(30)]);
    let release = Command::ReleaseLease {
        lease: LeaseId(1),
        forced: false,
        expected: None,
    };
    grant(&mut ledger, &release, 40);
    assert_eq!(idle_since(&ledger, at(2 * HOUR_MS)), []);
}

#[test]
fn what_is_not_known_is_no_ghost() {
    let late = at(2 * HOUR_MS);
    for device in [
        DeviceReport {
            health: DeviceHealth::Hung,
            ..held_gpu("GPU-0", &[])
        },
        DeviceReport {
            unattributed: true,
            ..held_gpu("GPU-0", &[])
        },
    ] {
        let mut ledger = leased();
        assert_eq!(idle_since(&ledger, late).len(), 1);
        say(&mut ledger, 2, device, 20);
        assert_eq!(idle_since(&ledger, late), []);
    }
    let mut ledger = leased();
    let silent = Command::MarkSilent {
        node: node("n0"),
        session: SessionId(1),
        reason: SilenceReason::Timeout,
    };
    grant(&mut ledger, &silent, 20);
    assert_eq!(idle_since(&ledger, late), []);
}
