//! The sum that admissions use: what many leases cost, and that nothing is left behind when they are gone.

use gpuquota_core::command::RequestLease;
use gpuquota_core::event::Record;
use gpuquota_core::id::{LeaseId, Timestamp};
use gpuquota_core::lease::MOST_ENDED;
use gpuquota_core::limit::Limit;
use gpuquota_core::usage::usage;
use gpuquota_core::{Command, Outcome, State};
use proptest::prelude::*;

use crate::examples::{GPU, bought, put};
use crate::leases::{ask_for, free, number_for};
use crate::properties::with_nodes;
use crate::world::tenant;
use crate::{Ledger, START, cases};

const NODES: usize = 4;
const PER_NODE: usize = 8;

fn cluster() -> Ledger {
    let names = ["n0", "n1", "n2", "n3"];
    let mut ledger = with_nodes(&names);
    let mut set = put(bought("a", GPU), 0);
    set.limit = Limit::Unlimited;
    ledger.put(set).unwrap();
    for (at, name) in names.iter().enumerate() {
        ledger.say(name, 1, free(at * PER_NODE, (at + 1) * PER_NODE), START);
    }
    ledger
}

fn used(state: &State) -> (u64, u64, u64) {
    let a = tenant("a");
    let usage = usage(state, &a);
    let demand = state.demands(&a).map(|(_, demand)| demand.used());
    (
        usage.used.values().sum(),
        usage.leased.values().sum(),
        demand.sum(),
    )
}

// Without the tests' own checks of each row, which look at everything.
fn step(state: &mut State, command: &Command, now: Timestamp) -> Outcome {
    let decided = state.decide(command, now).unwrap();
    let record = Record {
        actor: "server".into(),
        request_id: None,
        from: None,
        reason: None,
        tenants: Default::default(),
        replay: None,
        events: decided.events,
    };
    state.apply(state.seq().next(), now, None, &record);
    decided.outcome
}

fn lease_of(outcome: Outcome) -> LeaseId {
    match outcome {
        Outcome::Lease(lease) => lease.id,
        other => unreachable!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn many_leases_cost_what_each_costs(counts in prop::collection::vec((1..4_u32, any::<bool>()), 1..9)) {
        let mut one_by_one = cluster().state;
        let (mut placed, mut numbered) = (0, 0);
        for (count, named) in counts {
            let request = if named { ask_for("a", count) } else { number_for("a", count) };
            let before = used(&one_by_one);
            step(&mut one_by_one, &Command::RequestLease(request), START);
            let more = u64::from(count);
            prop_assert_eq!(used(&one_by_one), (before.0 + more, before.1 + more, before.2 + more));
            if named { placed += count } else { numbered += count }
        }
        let mut at_once = cluster().state;
        for request in [ask_for("a", placed), number_for("a", numbered)] {
            if request.count > 0 {
                step(&mut at_once, &Command::RequestLease(request), START);
            }
        }
        prop_assert_eq!(used(&one_by_one), used(&at_once));
    }
}

#[test]
fn case_46_leases_that_come_and_go_leave_nothing_behind() {
    let slow = std::env::var("GPUQUOTA_SLOW").is_ok_and(|it| it == "1");
    let rounds = if slow { 1_000_000 } else { 10_000 };
    let mut state = cluster().state;
    let empty = used(&state);
    assert_eq!(empty, (0, 0, 0));
    let (free, mut live) = (NODES * PER_NODE, std::collections::VecDeque::new());
    let mut now = START;
    let (mut placed, mut sum) = (0, 0);
    for round in 0..rounds {
        now = Timestamp(now.0 + 1);
        let count = u32::try_from(round % 3 + 1).unwrap();
        let named = round % 4 != 0 && placed + count as usize <= free;
        let request = RequestLease {
            ttl_ms: Some(u64::from(u32::MAX)),
            ..if named {
                ask_for("a", count)
            } else {
                number_for("a", count)
            }
        };
        let lease = lease_of(step(&mut state, &Command::RequestLease(request), now));
        live.push_back((lease, count, named));
        sum += u64::from(count);
        placed += if named { count as usize } else { 0 };
        if live.len() > 12 {
            let (lease, count, named) = live.pop_front().unwrap();
            step(
                &mut state,
                &Command::ReleaseLease {
                    lease,
                    forced: true,
                    expected: None,
                },
                now,
            );
            sum -= u64::from(count);
            placed -= if named { count as usize } else { 0 };
        }
        if round % (rounds / 20) == 0 {
            assert_eq!(used(&state), (sum, sum, sum), "round {round}");
        }
    }
    for (lease, ..) in live {
        step(
            &mut state,
            &Command::ReleaseLease {
                lease,
                forced: true,
                expected: None,
            },
            now,
        );
    }
    assert_eq!(used(&state), empty);
    assert_eq!(state.leases_of(&tenant("a")).count(), 0);
    // The meter's next hour is all that time alone still brings about.
    assert!(state.next_due().is_none_or(|due| due.0 % 3_600_000 == 0));
    assert!(state.leases().count() <= MOST_ENDED);
    state.verify().unwrap();
    // Nothing but the ended leases, their numbers and the time they took tells it from before.
    let text = |state: &State| {
        let mut value = serde_json::to_value(state).unwrap();
        for told in ["leases", "next_lease", "last_epoch", "seq", "at", "meter"] {
            value.as_object_mut().unwrap().remove(told);
        }
        value
    };
    assert!(text(&state) == text(&cluster().state), "something is left");
    let whole = u32::try_from(free).unwrap();
    step(&mut state, &Command::RequestLease(ask_for("a", whole)), now);
}
