//! What stays denied, under which names, and for how long.

use super::*;

fn restricted() -> (Bench, Observation) {
    let mut bench = Bench::new();
    let on = seen(0, &[("G0", &[(2, "b")])]);
    let against = policy(Mode::Restrict, &[("b", "G0")]);
    bench.look(0, &on, &against);
    let due = bench.look(1000, &on, &against);
    assert_eq!(due.ask.len(), 1);
    bench.plan.done(&due.ask[0], Outcome::Done, "", 1000);
    bench.plan.restrictions_mut().told(&due.ask[0], 7);
    (bench, on)
}

/// Case 74: the server cannot keep what it does not know of, and its silence about it gives nothing back.
#[test]
fn case_74_what_the_server_does_not_know_yet_is_not_given_back() {
    let (mut bench, on) = restricted();
    let nothing = Policy::default();
    assert!(bench.look(2000, &on, &nothing).lift.is_empty());
    assert!(!bench.plan.restrictions_mut().settle(6));
    assert!(bench.look(2001, &on, &nothing).lift.is_empty());
    assert!(bench.plan.restrictions_mut().settle(7));
    assert!(!bench.plan.restrictions_mut().settle(7), "no news");
    assert_eq!(bench.look(2002, &on, &nothing).lift.len(), 1);
}

#[test]
fn case_75_an_agent_that_died_before_it_was_heard_has_its_step_told_by_the_next() {
    let (bench, on) = restricted();
    let mut next = Bench::new();
    next.plan
        .restrictions_mut()
        .adopt(bench.plan.restrictions().wanted());
    // The number is that of the other agent.
    let mut kept = next.plan.restrictions().wanted();
    kept[0].denied[0].1.told = None;
    let mut next = Bench::new();
    next.plan.restrictions_mut().adopt(kept);
    let untold = next.plan.restrictions().untold();
    assert_eq!(untold.len(), 1);
    let step = &untold[0].step;
    assert_eq!(
        (step.rung, step.class, &step.whom, untold[0].outcome),
        (
            Rung::Restrict,
            Class::OverQuota,
            &whom("b", "G0"),
            Outcome::Done
        )
    );
    assert!(next.look(1, &on, &Policy::default()).lift.is_empty());
    next.plan.restrictions_mut().told(step, 1);
    assert!(next.plan.restrictions().untold().is_empty());
    next.plan.restrictions_mut().settle(1);
    assert_eq!(next.look(2, &on, &Policy::default()).lift.len(), 1);
}

/// A session that has just begun lowers what is done about nobody's processes; that gives nothing back.
#[test]
fn case_74_what_is_denied_to_nobodys_processes_stays_while_only_the_moment_lowers_it() {
    let mut kept = restricted().0.plan.restrictions().wanted();
    kept[0].denied[0].0.tenant = None;
    kept[0].denied[0].1.settled = true;
    let mut bench = Bench::new();
    bench.plan.restrictions_mut().adopt(kept);
    let none = seen(2000, &[("G0", &[])]);
    let mut lowered = Policy {
        unattributed_chosen: Mode::Restrict,
        ..Policy::default()
    };
    assert!(bench.look(2000, &none, &lowered).lift.is_empty());
    lowered.unattributed_chosen = Mode::Warn;
    assert_eq!(bench.look(2001, &none, &lowered).lift.len(), 1);
}

#[test]
fn a_lift_that_fails_is_tried_again_after_a_pause() {
    let (mut bench, on) = restricted();
    bench.plan.restrictions_mut().settle(7);
    let nothing = Policy::default();
    let due = bench.look(2000, &on, &nothing);
    bench.plan.done(&due.lift[0], Outcome::Failed, "no", 2000);
    assert!(
        bench
            .look(2000 + AGAIN_MS - 1, &on, &nothing)
            .lift
            .is_empty()
    );
    assert_eq!(bench.look(2000 + AGAIN_MS, &on, &nothing).lift.len(), 1);
}

/// After the driver was loaded anew the same name is another GPU's.
#[test]
fn what_is_denied_follows_the_device_and_not_the_name_of_its_node() {
    let (mut bench, _) = restricted();
    let denials = Policy {
        denials: [whom("b", "G0")].into(),
        ..Policy::default()
    };
    let both = seen(2000, &[("G0", &[]), ("G1", &[])]);
    bench.table.nodes = [
        (gpu("G0"), vec!["/dev/nvidia1".to_owned()]),
        (gpu("G1"), vec![NODE.to_owned()]),
    ]
    .into();
    assert!(bench.look(2000, &both, &denials).renamed);
    let names = |bench: &Bench| bench.plan.restrictions().wanted()[0].nodes();
    assert_eq!(names(&bench), ["/dev/nvidia1".to_owned()].into());
    assert!(!bench.look(2001, &both, &denials).renamed);
    // One that is not to be seen keeps its name until somebody else has it.
    bench.table.nodes.insert(gpu("G0"), Vec::new());
    assert!(!bench.look(2002, &both, &denials).renamed);
    bench
        .table
        .nodes
        .insert(gpu("G1"), vec!["/dev/nvidia1".to_owned()]);
    assert!(bench.look(2003, &both, &denials).renamed);
    assert!(names(&bench).is_empty());
    bench.table.nodes.insert(gpu("G0"), vec![NODE.to_owned()]);
    assert!(bench.look(2004, &both, &denials).renamed);
    assert_eq!(names(&bench), [NODE.to_owned()].into());
}

#[test]
fn a_person_is_told_of_one_that_is_gone_each_time() {
    let mut bench = Bench::new();
    let policy = policy(Mode::Evict, &[("b", "G0")]);
    let on = |at| seen(at, &[("G0", &[(2, "b")])]);
    bench.look(0, &on(0), &policy);
    bench.go(1000, &on(1000), &policy);
    let mut said = Vec::new();
    for now in (1001..300_000).step_by(500) {
        let due = bench.look(now, &on(now), &policy);
        said.extend(told(&due));
        for step in &due.ask {
            bench.plan.done(step, Outcome::Gone, "it moved on", now);
        }
    }
    assert_eq!(said, [(Rung::Term, Outcome::Impossible)]);
}
