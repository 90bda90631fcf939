//! A journal that was put back from a backup: its next incarnation gives out numbers that no earlier one gave out.

use std::collections::BTreeSet;

use gpuquota_core::archive::Head;
use gpuquota_core::command::{CheckOutSeat, CreateLicenceQuota, RequestLease};
use gpuquota_core::id::{
    Code, DisplayName, Epoch, Incarnation, LeaseId, ProductId, QuotaId, Seq, SessionId,
    TenantNumber,
};
use gpuquota_core::lease::LeasePlacement;
use gpuquota_core::licence::Product;
use gpuquota_core::{Answer, Command, Event, Outcome, Record, State};

use crate::START;
use crate::examples::{GPU, bought, put};
use crate::properties::with_nodes;
use crate::world::{model, node, region, tenant};

fn restore(at_least: u32) -> Command {
    let replaced = Head {
        seq: Seq(9),
        hash: "00".into(),
    };
    Command::Restore(Incarnation(at_least), Some(replaced))
}

#[test]
fn every_number_of_an_incarnation_is_above_those_of_the_one_before() {
    let mut ledger = with_nodes(&["n0"]);
    ledger.put(put(bought("a", GPU), 2)).unwrap();
    let product = Product {
        id: ProductId(1),
        name: DisplayName::new("product").unwrap(),
        code: Code::new("P").unwrap(),
        vgpu_types: BTreeSet::new(),
    };
    ledger.ask(&Command::SetProduct(product), START, None);
    let before = ledger.state.node(&node("n0")).unwrap().session;
    let mut highest = (QuotaId(1), before, TenantNumber(1), LeaseId(1), Epoch(1));
    for (at_least, incarnation, name) in [(0, 1, "b"), (1, 2, "c"), (7, 7, "d"), (3, 8, "e")] {
        let granted = ledger.ask(&restore(at_least), START, None);
        assert_eq!(granted, Answer::Granted(Outcome::Done));
        assert_eq!(ledger.state.incarnation(), Incarnation(incarnation));
        ledger.put(put(bought(name, GPU), 2)).unwrap();
        let quota = ledger.state.quotas_of(&tenant(name)).next().unwrap().id;
        let open = Command::OpenSession {
            node: node("n0"),
            default_region: region("bj"),
            boot_id: "b".into(),
            agent_version: "1".into(),
        };
        let Answer::Granted(Outcome::Session(session)) = ledger.ask(&open, START, None) else {
            unreachable!("a session is always opened");
        };
        let number = ledger.state.tenant(&tenant(name)).unwrap().profile.number;
        let one = LeasePlacement::CountOnly;
        let lease = RequestLease::of(tenant(name), region("bj"), model(GPU), 1, one);
        let leased = ledger.ask(&Command::RequestLease(lease), START, None);
        let Answer::Granted(Outcome::Lease(lease)) = leased else {
            unreachable!("{leased:?}");
        };
        let terms = CreateLicenceQuota {
            tenant: number,
            product: ProductId(1),
            max: 1,
            expires_at: None,
            is_active: true,
        };
        let made = ledger.ask(&Command::CreateLicenceQuota(terms), START, None);
        let Answer::Granted(Outcome::LicenceQuota(licence)) = made else {
            unreachable!("{made:?}");
        };
        let seat = CheckOutSeat {
            tenant: tenant(name),
            product: ProductId(1),
            owner: DisplayName::new("o").unwrap(),
            ttl_ms: 1000,
        };
        let taken = ledger.ask(&Command::CheckOutSeat(seat), START, None);
        let Answer::Granted(Outcome::Seat(seat)) = taken else {
            unreachable!("{taken:?}");
        };
        let first = Incarnation(incarnation).first_id();
        assert_eq!((licence.0, seat.seat.0), (first, first));
        let now = (quota, session, number, lease.id, lease.epoch);
        assert!(
            now.0 > highest.0 && now.1 > highest.1 && now.2 > highest.2,
            "{now:?}"
        );
        assert!(now.3 > highest.3 && now.4 > highest.4, "{now:?}");
        assert_eq!(now.0, QuotaId(first));
        assert_eq!(now.1, SessionId(first + 1));
        assert_eq!((now.3, now.4), (LeaseId(first), Epoch(first + 1)));
        highest = now;
        ledger.state.verify().unwrap();
    }
    // What was there before keeps its numbers.
    let kept: Vec<u64> = ledger
        .state
        .quotas_of(&tenant("a"))
        .map(|it| it.id.0)
        .collect();
    assert_eq!(kept, [0]);
}

#[test]
fn the_largest_incarnation_keeps_numbers_that_portals_and_json_readers_take() {
    assert!(Incarnation::LARGEST.next().first_id() < 1 << 53);
    let mut ledger = with_nodes(&[]);
    let granted = ledger.ask(&restore(Incarnation::LARGEST.0), START, None);
    assert_eq!(granted, Answer::Granted(Outcome::Done));
    for name in ["a", "b"] {
        ledger.put(put(bought(name, GPU), 2)).unwrap();
    }
    ledger.state.verify().unwrap();
}

#[test]
fn an_event_that_turns_back_contradicts_the_ledger() {
    let mut state = State::default();
    let record = |incarnation| Record {
        actor: "server".into(),
        request_id: None,
        from: None,
        reason: None,
        tenants: Default::default(),
        replay: None,
        events: vec![Event::Restored {
            incarnation: Incarnation(incarnation),
            replaced: None,
        }],
    };
    state.apply(Seq(1), START, None, &record(2));
    for stale in [1, 2] {
        let mut state = state.clone();
        let folded = std::panic::catch_unwind(move || {
            state.apply(Seq(2), START, None, &record(stale));
        });
        assert!(folded.is_err(), "{stale}");
    }
}

#[test]
fn a_state_that_an_earlier_version_wrote_is_read_and_one_of_a_newer_is_not() {
    let mut ledger = with_nodes(&["n0"]);
    ledger.put(put(bought("a", GPU), 2)).unwrap();
    let mut text = serde_json::to_value(&ledger.state).unwrap();
    let members = text.as_object_mut().unwrap();
    members.remove("incarnation").unwrap();
    let earlier: State = serde_json::from_value(text.clone()).unwrap();
    assert_eq!(earlier, ledger.state);
    text["of_a_later_version"] = 1.into();
    assert!(serde_json::from_value::<State>(text).is_err());
}
