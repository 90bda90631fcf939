//! States that no fold makes: leases that break what must always hold are found.

use gpuquota_core::State;
use serde_json::{Value, json};

use crate::START;
use crate::leases::{ask_for, at, four, number_for};

// Leases 1 to 4: active, a number, to end, ended by force.
fn state() -> Value {
    let mut ledger = four();
    for request in [ask_for("a", 1), number_for("a", 1), ask_for("a", 1)] {
        ledger.lease(&request, START).unwrap();
    }
    let forced = ledger.lease(&ask_for("a", 1), START).unwrap();
    ledger.give_back(forced.id, true, at(1));
    let ending = ledger.state.leases().nth(2).map(|lease| lease.id).unwrap();
    ledger.give_back(ending, false, at(2));
    serde_json::to_value(&ledger.state).unwrap()
}

fn verified(state: Value) -> Result<(), String> {
    let state: State = serde_json::from_value(state).unwrap();
    state.verify().map_err(|broken| broken.0)
}

#[test]
fn leases_that_contradict_the_rest_are_broken() {
    let good = state();
    assert_eq!(verified(good.clone()), Ok(()));
    let broken = |place: &str, value: Value| {
        let mut state = good.clone();
        *state.pointer_mut(place).unwrap() = value;
        verified(state).expect_err(place)
    };
    for (place, value, why) in [
        ("/next_lease", json!(4), "given out again"),
        ("/last_epoch", json!(3), "given out again"),
        ("/leases/1/model", json!("other"), "another model"),
        ("/leases/1/terms/count", json!(2), "as many devices"),
        ("/leases/2/terms/tenant", json!("nobody"), "no tenant"),
        ("/leases/3/phase/releasing/waiting", json!([]), "waits"),
        (
            "/leases/3/phase/releasing/waiting",
            json!(["GPU-9"]),
            "waits",
        ),
        (
            "/leases/4/phase/ended/unconfirmed",
            json!({"GPU-9": "forced"}),
            "another's",
        ),
        ("/leases/2/epoch", json!(1), "do not grow"),
    ] {
        let said = broken(place, value);
        assert!(said.contains(why), "{place}: {said}");
    }
}

#[test]
#[should_panic(expected = "a device has two live leases")]
fn a_device_with_two_live_leases_is_broken() {
    let mut state = state();
    let first = state.pointer("/leases/1/devices").unwrap().clone();
    *state.pointer_mut("/leases/3/devices").unwrap() = first.clone();
    let waiting: Vec<&String> = first.as_object().unwrap().keys().collect();
    *state
        .pointer_mut("/leases/3/phase/releasing/waiting")
        .unwrap() = json!(waiting);
    let _ = verified(state);
}
