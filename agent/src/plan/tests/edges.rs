//! How much at once, what a rule alone does, what fails, and who shares a group.

use super::*;

#[test]
fn case_73_so_many_and_no_more_are_ended_within_a_minute() {
    let mut bench = Bench::new();
    bench.able.ended_per_minute = 2;
    bench.able.no_restriction = Some("no bpf".to_owned());
    let policy = policy(Mode::Evict, &[("b", "G0")]);
    let crowd: Vec<(u32, &str)> = (1..=5).map(|pid| (pid, "b")).collect();
    bench.look(0, &seen(0, &[("G0", &crowd)]), &policy);
    let mut ended = |now: u64| {
        let mut due = bench.look(now, &seen(now, &[("G0", &crowd)]), &policy);
        bench.plan.spare(&bench.able, now, &mut due.ask);
        due.ask.len()
    };
    assert_eq!([ended(1000), ended(1001), ended(60_999)], [2, 0, 0]);
    assert_eq!(ended(61_000), 2);
}

#[test]
fn a_rule_alone_warns_and_the_ledger_decides_the_rest() {
    let mut bench = Bench::new();
    let ladder = Ladder {
        mode: Mode::Evict,
        grace_ms: 0,
        term_grace_ms: 0,
    };
    let only = Rule {
        only: ["a".to_owned()].into(),
        otherwise: Class::Foreign,
    };
    let mut policy = Policy {
        others: ladder,
        rules: [(gpu("G0"), only)].into(),
        ..Policy::default()
    };
    let on = seen(
        0,
        &[("G0", &[(1, "a"), (2, "b")]), ("G1", &[(1, "a"), (2, "b")])],
    );
    let due = bench.look(0, &on, &policy);
    assert_eq!(
        (told(&due), due.ask.len()),
        (vec![(Rung::Warn, Outcome::Done)], 0)
    );
    assert_eq!(
        bench.plan.violations(),
        &[((Some("b".to_owned()), Class::Foreign), 1)].into()
    );
    // A limit of cards likewise, where the ledger has judged none of them.
    policy.rules.clear();
    policy.cards.insert("a".to_owned(), 1);
    bench.look(1, &on, &policy);
    assert_eq!(
        bench.plan.violations(),
        &[((Some("a".to_owned()), Class::OverNodeLimit), 1)].into()
    );
}

#[test]
fn a_restriction_that_fails_is_tried_again_and_then_gone_without() {
    let mut bench = Bench::new();
    let policy = policy(Mode::Evict, &[("b", "G0")]);
    let on = |at| seen(at, &[("G0", &[(2, "b")])]);
    bench.look(0, &on(0), &policy);
    let mut now = 1000;
    for _ in 0..ATTEMPTS {
        let due = bench.look(now, &on(now), &policy);
        assert_eq!(due.ask.len(), 1);
        assert_eq!(due.ask[0].rung, Rung::Restrict);
        bench.plan.done(&due.ask[0], Outcome::Failed, "no", now);
        assert!(
            bench
                .look(now + AGAIN_MS - 1, &on(now), &policy)
                .ask
                .is_empty()
        );
        now += AGAIN_MS;
    }
    // A person is told; the other group of the same violator is tried all the same.
    let due = bench.look(now, &on(now), &policy);
    assert_eq!(told(&due), [(Rung::Restrict, Outcome::Impossible)]);
    assert_eq!(bench.go(now, &on(now), &policy), [(Rung::Term, Some(2))]);
    let moved = |at| seen(at, &[("G0", &[(3, "b")])]);
    assert_eq!(
        bench.go(now + 1, &moved(now + 1), &policy),
        [(Rung::Restrict, None)]
    );
    // What could not be done a minute ago may work by now.
    let last = now - AGAIN_MS;
    let early = bench.look(last + MINUTE_MS - 1, &on(last), &policy);
    assert!(early.ask.iter().all(|step| step.rung != Rung::Restrict));
    let due = bench.look(last + MINUTE_MS, &on(last), &policy);
    assert_eq!(due.ask.len(), 1);
    assert_eq!(due.ask[0].rung, Rung::Restrict);
}

/// A slice that ends with its login each time has not failed, and the next one is restricted before anybody is ended.
#[test]
fn groups_that_are_gone_each_time_are_no_failures() {
    let mut bench = Bench::new();
    let policy = policy(Mode::Evict, &[("b", "G0")]);
    let on = |at| seen(at, &[("G0", &[(2, "b")])]);
    bench.look(0, &on(0), &policy);
    let mut now = 1000;
    for _ in 0..=ATTEMPTS {
        let due = bench.look(now, &on(now), &policy);
        assert_eq!(due.ask.len(), 1);
        assert_eq!(due.ask[0].rung, Rung::Restrict);
        bench
            .plan
            .done(&due.ask[0], Outcome::Gone, "no such group", now);
        now += READ_MS << LONGEST_PAUSE;
    }
}

#[test]
fn two_tenants_of_one_group_are_denied_what_each_is_denied() {
    let mut bench = Bench::new();
    let shared = Grouped::Theirs("/shared.slice".to_owned());
    bench.table.groups = [(2, shared.clone()), (3, shared)].into();
    let mut both = policy(Mode::Restrict, &[("b", "G0"), ("c", "G0")]);
    let on = seen(0, &[("G0", &[(2, "b"), (3, "c")])]);
    bench.go(0, &on, &both);
    assert_eq!(bench.go(1000, &on, &both).len(), 2);
    both.verdicts.remove(&whom("b", "G0"));
    let due = bench.look(1001, &on, &both);
    assert_eq!(due.lift.len(), 1);
    assert_eq!(
        bench.plan.restrictions().denied_after(&due.lift[0]),
        [NODE.to_owned()].into()
    );
    bench.plan.done(&due.lift[0], Outcome::Done, "", 1001);
    both.verdicts.clear();
    let due = bench.look(1002, &on, &both);
    assert!(
        bench
            .plan
            .restrictions()
            .denied_after(&due.lift[0])
            .is_empty()
    );
}

#[test]
fn what_is_gone_each_time_is_asked_for_less_and_less_often() {
    let mut bench = Bench::new();
    let policy = policy(Mode::Evict, &[("b", "G0")]);
    let on = |at| seen(at, &[("G0", &[(2, "b")])]);
    bench.look(0, &on(0), &policy);
    assert_eq!(bench.go(1000, &on(1000), &policy), [(Rung::Restrict, None)]);
    let mut asked = Vec::new();
    for now in (1001..100_000).step_by(250) {
        let due = bench.look(now, &on(now), &policy);
        for step in &due.ask {
            asked.push(now);
            bench.plan.done(
                step,
                Outcome::Gone,
                "it has none of these device nodes open",
                now,
            );
        }
    }
    let pauses: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [1000, 2000, 4000, 8000, 16_000, 32_000]);
}

/// Whoever shelters behind a name that is protected shelters nobody else.
#[test]
fn one_that_is_refused_is_asked_for_less_often_told_once_and_keeps_no_other_waiting() {
    let mut bench = Bench::new();
    let policy = policy(Mode::Evict, &[("b", "G0")]);
    let alone = |at| seen(at, &[("G0", &[(2, "b")])]);
    bench.look(0, &alone(0), &policy);
    assert_eq!(
        bench.go(1000, &alone(1000), &policy),
        [(Rung::Restrict, None)]
    );
    let (mut asked, mut said) = (Vec::new(), Vec::new());
    for now in (1001..400_000).step_by(250) {
        let due = bench.look(now, &alone(now), &policy);
        said.extend(told(&due));
        for step in &due.ask {
            asked.push(now);
            bench.plan.done(step, Outcome::Refused, "protected", now);
        }
    }
    let pauses: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [5000, 10_000, 20_000, 40_000, 80_000, 160_000]);
    assert_eq!(said, [(Rung::Term, Outcome::Impossible)]);
    bench
        .table
        .groups
        .insert(3, Grouped::Theirs("/user.slice/user-2.slice".to_owned()));
    let both = seen(400_001, &[("G0", &[(2, "b"), (3, "b")])]);
    assert_eq!(bench.go(400_001, &both, &policy), [(Rung::Term, Some(3))]);
}

#[test]
fn a_group_in_which_somebody_may_hold_the_device_is_not_denied_it() {
    let mut bench = Bench::new();
    let shared = Grouped::Theirs("/system.slice/hub.service".to_owned());
    bench.table.groups = [(2, shared.clone()), (3, shared)].into();
    let policy = policy(Mode::Evict, &[("b", "G0")]);
    let on = seen(0, &[("G0", &[(2, "b")]), ("G1", &[(3, "c")])]);
    bench.look(0, &on, &policy);
    let due = bench.look(1000, &on, &policy);
    assert_eq!(told(&due), [(Rung::Restrict, Outcome::Impossible)]);
    // Its process is ended all the same.
    assert_eq!(bench.go(1001, &on, &policy), [(Rung::Term, Some(2))]);
}

/// Who is in a group and uses no GPU is denied one with it: a service that serves many users is nobody's own.
#[test]
fn a_group_in_which_others_are_idle_is_not_denied_it_and_given_back_when_they_come() {
    let group = "/user.slice/user-2.slice";
    let whose = |tenants: &[&str]| {
        let named = |name: &&str| (!name.is_empty()).then(|| (*name).to_owned());
        Some(tenants.iter().map(named).collect())
    };
    let against = policy(Mode::Evict, &[("b", "G0")]);
    let on = |at| seen(at, &[("G0", &[(2, "b")])]);
    for others in [whose(&["b", "c"]), whose(&["b", ""]), None] {
        let mut bench = Bench::new();
        bench.table.tenants.insert(group.to_owned(), others);
        bench.go(0, &on(0), &against);
        let due = bench.look(1000, &on(1000), &against);
        assert_eq!(told(&due), [(Rung::Restrict, Outcome::Impossible)]);
        assert_eq!(due.ask[0].rung, Rung::Term);
    }
    let mut bench = Bench::new();
    let here = |bench: &mut Bench, tenants: &[&str]| {
        bench.table.tenants.insert(group.to_owned(), whose(tenants));
    };
    here(&mut bench, &["b"]);
    bench.go(0, &on(0), &against);
    assert_eq!(
        bench.go(1000, &on(1000), &against),
        [(Rung::Restrict, None)]
    );
    // Without a reading of it, and again only when they have left.
    here(&mut bench, &["b", "c"]);
    let away = |at| seen(at, &[("G0", &[])]);
    let denied = Policy {
        denials: [whom("b", "G0")].into(),
        ..Policy::default()
    };
    assert_eq!(bench.go(CROWD_MS - 1, &away(CROWD_MS - 1), &denied), []);
    assert_eq!(
        bench.go(CROWD_MS, &away(CROWD_MS), &denied),
        [(Rung::Lift, None)]
    );
    // Who may not hold it either is denied it with them.
    let both = policy(Mode::Restrict, &[("b", "G0"), ("c", "G0")]);
    here(&mut bench, &["b", "c"]);
    bench.table.groups = [2, 3]
        .map(|pid| (pid, Grouped::Theirs(group.to_owned())))
        .into();
    let on = seen(80_000, &[("G0", &[(2, "b"), (3, "c")])]);
    bench.go(70_000, &away(70_000), &both);
    bench.go(80_000, &on, &both);
    let restricted = [(Rung::Restrict, None), (Rung::Restrict, None)];
    assert_eq!(bench.go(82_000, &on, &both), restricted);
    let none = seen(90_000, &[("G0", &[])]);
    let denied = Policy {
        denials: [whom("b", "G0"), whom("c", "G0")].into(),
        ..Policy::default()
    };
    assert_eq!(bench.go(90_000, &none, &denied), []);
}

/// Whoever was only watched for a day has the whole time once somebody means it.
#[test]
fn grace_begins_with_the_warning_that_promises_it() {
    let mut bench = Bench::new();
    let on = |at| seen(at, &[("G0", &[(2, "b")])]);
    let against = |mode| policy(mode, &[("b", "G0")]);
    let warned = [(Rung::Warn, Outcome::Done)];
    assert_eq!(told(&bench.look(0, &on(0), &against(Mode::Observe))), []);
    assert_eq!(told(&bench.look(1, &on(1), &against(Mode::Warn))), warned);
    let restrict = against(Mode::Restrict);
    let due = bench.look(5000, &on(5000), &restrict);
    assert_eq!((told(&due), due.ask.len()), (warned.to_vec(), 0));
    assert_eq!(bench.look(5999, &on(5999), &restrict), Due::default());
    assert_eq!(
        bench.go(6000, &on(6000), &restrict),
        [(Rung::Restrict, None)]
    );
    let evict = against(Mode::Evict);
    let due = bench.look(7000, &on(7000), &evict);
    assert_eq!((told(&due), due.ask.len()), (warned.to_vec(), 0));
    assert_eq!(bench.go(7999, &on(7999), &evict), []);
    assert_eq!(bench.go(8000, &on(8000), &evict), [(Rung::Term, Some(2))]);
}
