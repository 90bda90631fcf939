//! Steps of agents: what the newest state allows, what waits for a person, and that an outcome counts once.

use gpuquota_core::command::{BeginSteps, EndStep, SetTenant, StepsAllowed};
use gpuquota_core::device::{DeviceKey, DeviceReport};
use gpuquota_core::enforcement::{Enforcement, Enforcing, Mode, Weekday, Window};
use gpuquota_core::id::{Incarnation, Seq, SessionId, Timestamp};
use gpuquota_core::policy::{Held, policy};
use gpuquota_core::settings::Settings;
use gpuquota_core::step::{Rung, Step, StepClass, StepResult};
use gpuquota_core::{Answer, Command, Denied, Outcome, State};

use crate::examples::{GPU, bought, gpus, on, put};
use crate::lease_history::evicting;
use crate::leases::{ask_for, at, free};
use crate::properties::{held_gpu, with_nodes};
use crate::world::{node, tenant};
use crate::{Ledger, START};

const MINUTE: i64 = 60_000;

// A ledger that evicts, with these devices on n0.
pub(crate) fn evicts(devices: Vec<DeviceReport>) -> Ledger {
    let mut ledger = with_nodes(&["n0", "n1"]);
    let settings = Settings {
        enforcing: evicting(),
        ..Settings::default()
    };
    ledger.ask(&Command::SetSettings(settings), START, None);
    ledger.say("n0", 1, devices, START);
    ledger
}

pub(crate) fn step(who: &str, gpu: usize, pid: u32, class: StepClass, rung: Rung) -> Step {
    Step {
        rung,
        tenant: Some(tenant(who)),
        device: DeviceKey::gpu(&format!("GPU-{gpu}")).unwrap(),
        class,
        pid: Some(pid),
        start_time: Some(7),
        group: "/a".into(),
    }
}

pub(crate) fn term(who: &str, gpu: usize, pid: u32) -> Step {
    step(who, gpu, pid, StepClass::Squatter, Rung::Term)
}

fn begin(name: &str, steps: &[Step]) -> Command {
    Command::BeginSteps(BeginSteps {
        node: node(name),
        session: SessionId(1),
        incarnation: Incarnation(0),
        version: Seq(1),
        steps: steps.to_vec(),
    })
}

impl Ledger {
    pub(crate) fn asks(&mut self, steps: &[Step], now: Timestamp) -> StepsAllowed {
        match self.ask(&begin("n0", steps), now, None) {
            Answer::Granted(Outcome::Steps(allowed)) => allowed,
            other => unreachable!("{other:?}"),
        }
    }
}

#[test]
fn case_74_a_step_is_allowed_while_the_newest_state_finds_it_and_not_once_a_limit_was_raised() {
    let mut ledger = evicts(gpus(2, "a"));
    ledger.put(put(bought("a", GPU), 1)).unwrap();
    let over = |gpu| step("a", gpu, 10, StepClass::OverQuota, Rung::Restrict);
    let allowed = ledger.asks(&[over(0), over(1)], at(1));
    assert_eq!(allowed.allowed, [1], "the longest held is within the quota");
    assert!(allowed.refused.contains("finds no over_quota on GPU-0"));
    let row = ledger.state.steps_after(None).last().unwrap().clone();
    assert_eq!((row.row, row.ended), (ledger.state.seq(), None));
    let class = step("a", 1, 10, StepClass::Squatter, Rung::Restrict);
    assert_eq!(ledger.asks(&[class], at(2)).allowed, [0_u32; 0]);
    let more = Command::SetQuota(put(bought("a", GPU), 2));
    ledger.ask(&more, at(3), None);
    let raised = ledger.asks(&[over(1)], at(3));
    assert_eq!(raised.allowed, [0_u32; 0]);
    assert_eq!(ledger.state.steps_after(None).count(), 1);
}

#[test]
fn case_61_a_node_speaks_of_its_own_devices_in_its_own_session() {
    let mut ledger = evicts(gpus(1, "a"));
    let foreign = ledger.ask(&begin("n1", &[term("a", 0, 1)]), at(1), None);
    let other = matches!(foreign, Answer::Denied(Denied::DeviceOfOtherNode { .. }));
    assert!(other, "{foreign:?}");
    let stale = Command::BeginSteps(BeginSteps {
        session: SessionId(0),
        ..match begin("n0", &[term("a", 0, 1)]) {
            Command::BeginSteps(begin) => begin,
            _ => unreachable!(),
        }
    });
    let stale = ledger.ask(&stale, at(1), None);
    assert_eq!(stale, Answer::Denied(Denied::StaleSession));
    let unknown = ledger.asks(&[term("a", 9, 1)], at(1));
    assert!(unknown.allowed.is_empty() && !unknown.refused.is_empty());
}

#[test]
fn case_73_too_much_at_once_waits_for_a_person_over_all_nodes() {
    let mut ledger = evicts(gpus(3, "a"));
    ledger.say("n1", 1, vec![held_gpu("GPU-7", &["a"])], START);
    // Half of four devices in a minute, and no half of what is asked.
    let two = [term("a", 0, 1), term("a", 1, 2)];
    assert_eq!(ledger.asks(&two, at(1)).allowed, [0, 1]);
    let kill = step("a", 0, 1, StepClass::Squatter, Rung::Kill);
    assert_eq!(ledger.asks(std::slice::from_ref(&kill), at(2)).allowed, [0]);
    let more = ledger.ask(&begin("n1", &[term("a", 7, 3)]), at(3), None);
    let Answer::Granted(Outcome::Steps(more)) = more else {
        unreachable!("{more:?}")
    };
    assert!(more.allowed.is_empty() && more.refused.contains("an admin must confirm"));
    // It stays so when the minute is over, on every node, until a person says so.
    let later = at(3 + 2 * MINUTE);
    assert!(ledger.asks(&two, later).allowed.is_empty());
    let told = policy(&ledger.state, &node("n0"), later).unwrap();
    let held = told.verdicts.iter().map(|it| (it.held, it.ladder.mode));
    assert!(
        held.into_iter()
            .all(|it| it == (Some(Held::Person), Mode::Warn))
    );
    let confirm = Command::ConfirmSteps(Some(tenant("a")), 1000);
    ledger.ask(&confirm, later, None);
    let all: Vec<Step> = (0..3).map(|gpu| term("a", gpu, 20)).collect();
    assert_eq!(ledger.asks(&all, later).allowed, [0, 1, 2]);
    // And no longer than was said.
    ledger.say("n0", 2, gpus(3, "a"), later.after(2000));
    assert!(
        ledger
            .asks(&[term("a", 0, 21)], later.after(2000))
            .allowed
            .is_empty()
    );
    assert_eq!(ledger.state.holds().count(), 1);
    // Nothing waits where nothing is left to act upon.
    ledger.say("n0", 3, gpus(3, "b"), later.after(3000));
    ledger.say("n1", 2, vec![held_gpu("GPU-7", &[])], later.after(3000));
    assert_eq!(ledger.state.holds().count(), 0);
    assert!(ledger.refold() == ledger.state);
}

/// As when the rules of attribution are lost on every node at once: each holder is nobody's then.
#[test]
fn case_73_too_much_of_nobodys_processes_waits_for_a_person_too() {
    let mut nobodys = gpus(20, "a");
    for device in &mut nobodys {
        (device.tenants, device.unattributed) = ([].into(), true);
    }
    let mut ledger = evicts(nobodys.clone());
    let restrict = |gpu: usize| Step {
        tenant: None,
        pid: None,
        start_time: None,
        ..step("a", gpu, 0, StepClass::Unattributed, Rung::Restrict)
    };
    let some: Vec<Step> = (0..8).map(restrict).collect();
    assert_eq!(ledger.asks(&some, at(1)).allowed.len(), 8);
    let more = ledger.asks(&[restrict(8)], at(2));
    assert!(more.allowed.is_empty() && more.refused.contains("an admin must confirm"));
    let mode = |ledger: &Ledger, now| {
        let told = policy(&ledger.state, &node("n0"), now).unwrap();
        told.unattributed.mode
    };
    let later = at(3 + 2 * MINUTE);
    assert_eq!(mode(&ledger, later), Mode::Warn);
    assert!(ledger.asks(&[restrict(9)], later).allowed.is_empty());
    // A person lets them through for so long.
    assert_eq!(ledger.state.hold(None).map(|hold| hold.of), Some(20));
    ledger.ask(&Command::ConfirmSteps(None, 1000), later, None);
    assert_eq!(mode(&ledger, later), Mode::Evict);
    let all: Vec<Step> = (0..20).map(restrict).collect();
    assert_eq!(ledger.asks(&all, later).allowed.len(), 20);
    let over = later.after(2000);
    ledger.say("n0", 2, nobodys, over);
    assert!(ledger.asks(&all, over).allowed.len() == 20, "the same ones");
    // Nothing waits where nothing is left to act upon.
    let last = at(10 + 10 * MINUTE);
    assert!(ledger.asks(&all, last).allowed.is_empty());
    assert_eq!(ledger.state.holds().count(), 1);
    let text = serde_json::to_string(&ledger.state).unwrap();
    assert!(serde_json::from_str::<State>(&text).unwrap() == ledger.state);
    ledger.say("n0", 3, gpus(20, "a"), last);
    assert_eq!(ledger.state.holds().count(), 0);
    assert!(ledger.refold() == ledger.state);
}

#[test]
fn one_device_may_always_go_and_one_process_counts_once() {
    let mut ledger = evicts(gpus(1, "a"));
    let many: Vec<Step> = (0..9).map(|pid| term("a", 0, pid)).collect();
    assert!(
        ledger.asks(&many, at(1)).allowed.is_empty(),
        "nine processes"
    );
    let mut ledger = evicts(gpus(1, "a"));
    assert_eq!(ledger.asks(&many[..8], at(1)).allowed.len(), 8);
    assert_eq!(
        ledger.asks(&many[..8], at(2)).allowed.len(),
        8,
        "the same ones"
    );
    assert!(ledger.asks(&many[8..], at(3)).allowed.is_empty());
    assert_eq!(ledger.state.holds().count(), 1);
}

#[test]
fn windows_notices_and_active_leases_lower_a_ladder_and_name_themselves() {
    let mut ledger = evicts(gpus(2, "b"));
    let held = |ledger: &Ledger, now| {
        let told = policy(&ledger.state, &node("n0"), now).unwrap();
        let first = told.verdicts.first().cloned().unwrap();
        (first.held, first.ladder.mode)
    };
    assert_eq!(held(&ledger, at(1)), (None, Mode::Evict));
    let all = [
        Weekday::Mon,
        Weekday::Tue,
        Weekday::Wed,
        Weekday::Thu,
        Weekday::Fri,
    ];
    let own = Enforcement {
        mode: Mode::Restrict,
        windows: vec![Window::Weekly {
            days: all
                .into_iter()
                .chain([Weekday::Sat, Weekday::Sun])
                .collect(),
            start_minute: 0,
            minutes: 1440,
        }],
        ..Enforcement::default()
    };
    let set = SetTenant {
        tenant: tenant("b"),
        number: None,
        display_name: None,
        code: None,
        projects: None,
        frozen: None,
        confined: None,
        lease_mode: None,
        enforcement: Some(Some(own)),
    };
    ledger.ask(&Command::SetTenant(set), at(2), None);
    assert_eq!(held(&ledger, at(3)), (Some(Held::Window), Mode::Warn));
    let restrict = step("b", 0, 1, StepClass::Squatter, Rung::Restrict);
    let refused = ledger.asks(&[restrict], at(3));
    assert!(
        refused.refused.contains("maintenance window"),
        "{refused:?}"
    );
    // The quota is nearer than the tenant.
    let one = Command::SetQuota(put(bought("b", GPU), 1));
    ledger.ask(&one, at(4), None);
    let quota = ledger.state.quotas().next().unwrap().id;
    let nearer = Command::SetQuotaEnforcement(quota, Some(evicting().usual));
    ledger.ask(&nearer, at(4), None);
    let told = policy(&ledger.state, &node("n0"), at(5)).unwrap();
    assert_eq!(
        (told.verdicts[0].held, told.verdicts[0].ladder.mode),
        (None, Mode::Evict)
    );
    // Leased, and then its node is bound to another tenant with time to leave.
    let two = Command::SetQuota(put(bought("b", GPU), 2));
    ledger.ask(&two, at(6), None);
    ledger.say("n0", 2, free(0, 2), at(6));
    ledger.lease(&ask_for("b", 2), at(6)).unwrap();
    ledger.say("n0", 3, gpus(2, "b"), at(6));
    let mut bound = on(put(bought("a", GPU), 2), &["n0"]);
    bound.on_excess = gpuquota_core::command::OnExcess::Drain;
    let bound = ledger.ask(&Command::SetQuota(bound), at(7), None);
    assert!(matches!(bound, Answer::Granted(_)), "{bound:?}");
    let (why, mode) = held(&ledger, at(8));
    assert!(matches!(why, Some(Held::Leased(_))), "{why:?}");
    assert_eq!(mode, Mode::Warn);
}

pub(crate) fn end(number: u64, step: &Step, result: StepResult) -> Command {
    Command::EndStep(EndStep {
        node: node("n0"),
        session: SessionId(1),
        boot_id: "b".into(),
        number,
        step: step.clone(),
        version: Seq(3),
        result,
        detail: String::new(),
        age_ms: 5,
        beside: 0,
    })
}

#[test]
fn v5_an_outcome_counts_once_and_stands_with_the_step_that_was_allowed() {
    let mut ledger = evicts(gpus(1, "a"));
    let asked = term("a", 0, 1);
    ledger.asks(std::slice::from_ref(&asked), at(1));
    let taken = |answer| matches!(answer, Answer::Granted(Outcome::Taken(_)));
    assert!(taken(ledger.ask(
        &end(1, &asked, StepResult::Done),
        at(10),
        None
    )));
    let row = ledger.state.seq();
    assert!(taken(ledger.ask(
        &end(1, &asked, StepResult::Done),
        at(11),
        None
    )));
    assert_eq!(ledger.state.seq(), row, "told twice");
    let warned = Step {
        rung: Rung::Warn,
        pid: None,
        start_time: None,
        ..asked.clone()
    };
    ledger.ask(&end(2, &warned, StepResult::Done), at(12), None);
    let rows: Vec<_> = ledger.state.steps_after(None).collect();
    let ended = rows[0].ended.clone().unwrap();
    assert_eq!(
        (rows.len(), ended.result, ended.at),
        (2, StepResult::Done, at(5))
    );
    assert_eq!(rows[1].said_by, None);
    ledger.state.verify().unwrap();
    assert!(ledger.refold() == ledger.state);
}

#[test]
fn nobodys_processes_go_only_as_far_as_was_chosen_for_them() {
    let mut ledger = evicts(vec![DeviceReport {
        unattributed: true,
        ..held_gpu("GPU-0", &[])
    }]);
    let nobody = Step {
        tenant: None,
        ..step("a", 0, 1, StepClass::Unattributed, Rung::Term)
    };
    assert_eq!(
        ledger.asks(std::slice::from_ref(&nobody), at(1)).allowed,
        [0]
    );
    let settings = Settings {
        enforcing: Enforcing {
            unattributed: Mode::Warn,
            ..evicting()
        },
        ..Settings::default()
    };
    ledger.ask(&Command::SetSettings(settings), at(2), None);
    assert!(ledger.asks(&[nobody], at(3)).allowed.is_empty());
}
