//! What is kept of steps: restrictions as long as there may be something to deny, and rows of which no node washes out
//! another's.

use gpuquota_core::Command;
use gpuquota_core::command::EndStep;
use gpuquota_core::device::GpuUuid;
use gpuquota_core::id::SessionId;
use gpuquota_core::node::SilenceReason;
use gpuquota_core::policy::policy;
use gpuquota_core::step::{MOST_TOLD, Rung, Step, StepClass, StepResult};

use crate::Ledger;
use crate::examples::gpus;
use crate::leases::{at, free};
use crate::steps::{end, evicts, step, term};
use crate::world::{node, tenant};

// Tenant a is denied GPU-0 and GPU-1, and has left both.
fn denied() -> Ledger {
    let mut ledger = evicts(gpus(2, "a"));
    let steps = [0, 1].map(|gpu| Step {
        pid: None,
        start_time: None,
        ..step("a", gpu, 0, StepClass::Squatter, Rung::Restrict)
    });
    for (number, step) in (1..).zip(steps) {
        assert_eq!(ledger.asks(std::slice::from_ref(&step), at(1)).allowed, [0]);
        ledger.ask(&end(number, &step, StepResult::Done), at(1), None);
        ledger.ask(&Command::ConfirmSteps(Some(tenant("a")), 1000), at(1), None);
    }
    ledger.say("n0", 2, free(0, 2), at(2));
    ledger
}

fn denials(ledger: &Ledger, name: &str) -> Vec<String> {
    let told = policy(&ledger.state, &node(name), at(9)).unwrap();
    told.denials
        .iter()
        .map(|(_, device)| device.to_string())
        .collect()
}

#[test]
fn a_device_that_is_away_for_a_while_is_denied_when_it_is_back() {
    let mut ledger = denied();
    assert_eq!(denials(&ledger, "n0"), ["GPU-0", "GPU-1"]);
    ledger.say("n0", 3, free(0, 1), at(3));
    assert_eq!(denials(&ledger, "n0"), ["GPU-0", "GPU-1"]);
    ledger.say("n0", 4, free(0, 2), at(4));
    assert_eq!(denials(&ledger, "n0"), ["GPU-0", "GPU-1"]);
    assert!(ledger.refold() == ledger.state);
}

#[test]
fn case_76_a_gpu_that_was_cut_is_denied_to_nobody_as_a_whole_and_again_once_it_is_one() {
    let mut ledger = denied();
    let cut = |partitioned: bool| {
        let mut devices = free(0, 2);
        devices[0].partitioned = partitioned;
        devices
    };
    ledger.say("n0", 3, cut(true), at(3));
    assert_eq!(denials(&ledger, "n0"), ["GPU-1"]);
    ledger.say("n0", 4, cut(false), at(4));
    assert_eq!(denials(&ledger, "n0"), ["GPU-0", "GPU-1"]);
    assert!(ledger.refold() == ledger.state);
}

#[test]
fn a_device_that_left_for_good_is_denied_to_nobody_there() {
    let mut ledger = denied();
    ledger.say("n0", 3, free(0, 1), at(3));
    let silent = Command::MarkSilent {
        node: node("n0"),
        session: SessionId(1),
        reason: SilenceReason::Timeout,
    };
    ledger.ask(&silent, at(3), None);
    let forget = Command::ForgetGpu {
        gpu: GpuUuid::new("GPU-0").unwrap(),
        forced: true,
    };
    ledger.ask(&forget, at(3), None);
    assert_eq!(denials(&ledger, "n0"), ["GPU-1"]);
    ledger.say("n1", 1, free(0, 1), at(4));
    assert!(denials(&ledger, "n1").is_empty());
    let retire = Command::RetireNode {
        node: node("n0"),
        forced: true,
    };
    ledger.ask(&retire, at(5), None);
    assert_eq!(ledger.state.restricted(&node("n0")).count(), 0);
    ledger.state.verify().unwrap();
    assert!(ledger.refold() == ledger.state);
}

#[test]
fn what_one_node_tells_without_leave_washes_out_its_own_rows_only() {
    let mut ledger = evicts(gpus(1, "a"));
    let leave = term("a", 0, 1);
    assert_eq!(
        ledger.asks(std::slice::from_ref(&leave), at(1)).allowed,
        [0]
    );
    let warn = Step {
        rung: Rung::Warn,
        pid: None,
        start_time: None,
        ..leave
    };
    let Command::EndStep(told) = end(1, &warn, StepResult::Done) else {
        unreachable!()
    };
    let of = |name: &str, number| {
        Command::EndStep(EndStep {
            node: node(name),
            number,
            ..told.clone()
        })
    };
    ledger.ask(&of("n1", 1), at(2), None);
    for number in 1..=MOST_TOLD as u64 + 5 {
        ledger.ask(&of("n0", number), at(3), None);
    }
    let rows: Vec<_> = ledger.state.steps_after(None).collect();
    let count = |name: &str, leave: bool| {
        let of = rows.iter().filter(|row| row.node == node(name));
        of.filter(|row| row.said_by.is_some() == leave).count()
    };
    assert_eq!(
        (count("n0", true), count("n0", false), count("n1", false)),
        (1, MOST_TOLD, 1)
    );
    assert!(ledger.refold() == ledger.state);
}
