//! The meter, rule by rule, with its exact milliseconds.

use std::collections::BTreeSet;

use gpuquota_core::Command;
use gpuquota_core::catalogue::ModelEntry;
use gpuquota_core::command::{DeclareNode, NodeReport, RequestLease};
use gpuquota_core::device::{DeviceHealth, DeviceReport};
use gpuquota_core::event::{Event, SilenceReason};
use gpuquota_core::id::{HardwareName, SessionId, Timestamp};
use gpuquota_core::lease::LeasePlacement;
use gpuquota_core::limit::Limit;
use gpuquota_core::meter::{Hour, Metered, UsageRow};

use crate::examples::{GPU, bought, on, put};
use crate::meter::store;
use crate::properties::{full_report, held_gpu, with_nodes};
use crate::world::{model, node, region, tenant};
use crate::{Ledger, START};

const HOUR: i64 = 3_600_000;

// The first full hour after the world began.
fn at(ms: i64) -> Timestamp {
    Timestamp((START.0 / HOUR + 1) * HOUR + ms)
}

fn first() -> Hour {
    Hour::of(at(0))
}

impl Ledger {
    fn seen(&mut self, number: u64, devices: Vec<DeviceReport>, now: Timestamp) {
        self.ask(
            &Command::Report(full_report("n0", number, devices)),
            now,
            None,
        );
        self.state.verify().unwrap();
    }

    // class:tenant=ms of the hours from..to, joined over devices.
    fn metered(&self, from: u32, to: u32, until: Timestamp) -> Vec<String> {
        let hours = self
            .state
            .metered(first().plus(from), first().plus(to), until);
        assert_eq!(hours.error_ms, 0);
        words(&hours)
    }
}

fn words(hours: &Metered) -> Vec<String> {
    let of = |row: &UsageRow| {
        let tenant = row.tenant.as_ref().map_or("", |tenant| tenant.as_str());
        format!(
            "{}+{} {} {}{}{tenant}={}",
            row.device,
            first().until(row.hour),
            row.place.model.as_str(),
            row.class.as_str(),
            if tenant.is_empty() { "" } else { ":" },
            row.ms
        )
    };
    hours.rows.iter().map(of).collect()
}

fn gpu(holders: &[&str]) -> Vec<DeviceReport> {
    vec![held_gpu("G", holders)]
}

fn ledger() -> Ledger {
    let mut ledger = with_nodes(&["n0"]);
    ledger.put(put(bought("a", GPU), 1)).unwrap();
    ledger.put(put(bought("b", GPU), 1)).unwrap();
    ledger.put(put(bought("c", GPU), 1)).unwrap();
    ledger
}

#[test]
fn those_who_share_a_device_share_its_time_and_the_rest_goes_to_the_first_by_name() {
    let mut ledger = ledger();
    ledger.seen(1, gpu(&["b", "a", "x", "c"]), at(0));
    ledger.seen(2, gpu(&["x"]), at(1001));
    ledger.seen(3, gpu(&[]), at(2000));
    assert_eq!(
        ledger.metered(0, 1, at(2500)),
        [
            "G+0 nvidia.com/gpu busy:a=335",
            "G+0 nvidia.com/gpu busy:b=333",
            "G+0 nvidia.com/gpu busy:c=333",
            "G+0 nvidia.com/gpu free=500",
            "G+0 nvidia.com/gpu squatter=999"
        ]
    );
}

#[test]
fn a_lease_without_a_holder_is_idle_and_another_holder_is_a_squatter() {
    let mut ledger = ledger();
    ledger.seen(1, gpu(&[]), at(0));
    let lease = RequestLease {
        ttl_ms: Some(5_000),
        ..RequestLease::of(
            tenant("a"),
            region("bj"),
            model(GPU),
            1,
            LeasePlacement::Devices,
        )
    };
    ledger.ask(&Command::RequestLease(lease), at(100), None);
    ledger.seen(2, gpu(&["b"]), at(200));
    ledger.seen(3, gpu(&["a", "b"]), at(300));
    let mut unknown = gpu(&[]);
    unknown[0].unattributed = true;
    ledger.seen(4, unknown, at(400));
    ledger.seen(5, gpu(&[]), at(500));
    // Its end is reached, it stays the tenant's until it is seen free, and then it is nobody's.
    ledger.seen(6, gpu(&["a"]), at(5_200));
    ledger.seen(7, gpu(&[]), at(5_300));
    assert_eq!(
        ledger.metered(0, 1, at(6_000)),
        [
            "G+0 nvidia.com/gpu busy:a=200",
            "G+0 nvidia.com/gpu leased_idle:a=4800",
            "G+0 nvidia.com/gpu free=800",
            "G+0 nvidia.com/gpu squatter=200"
        ]
    );
}

#[test]
fn what_is_not_read_is_unknown_and_what_is_split_is_not_metered() {
    let mut ledger = ledger();
    ledger.seen(1, gpu(&["a"]), at(0));
    let silent = Command::MarkSilent {
        node: node("n0"),
        session: SessionId(1),
        reason: SilenceReason::Timeout,
    };
    ledger.ask(&silent, at(10), None);
    let heard = Command::MarkHeard {
        node: node("n0"),
        session: SessionId(1),
    };
    ledger.ask(&heard, at(30), None);
    let mut hung = gpu(&["a"]);
    hung[0].health = DeviceHealth::Hung;
    ledger.seen(2, hung, at(60));
    let mut split = gpu(&[]);
    split[0].partitioned = true;
    ledger.seen(3, split, at(100));
    ledger.seen(4, Vec::new(), at(200));
    ledger.seen(5, gpu(&[]), at(1_000));
    assert_eq!(
        ledger.metered(0, 1, at(1_001)),
        [
            "G+0 nvidia.com/gpu busy:a=40",
            "G+0 nvidia.com/gpu free=1",
            "G+0 nvidia.com/gpu unknown=60"
        ]
    );
}

#[test]
fn a_quota_that_comes_ends_or_is_nothing_turns_squatters_into_tenants_and_back() {
    let mut ledger = with_nodes(&["n0"]);
    ledger.seen(1, gpu(&["a"]), at(0));
    let mut set = put(bought("a", GPU), 1);
    set.expires_at = Some(at(100));
    ledger.ask(&Command::SetQuota(set.clone()), at(10), None);
    // More of it changes nothing, the end does, in the row in which it is noticed.
    set.limit = Limit::Finite(7);
    ledger.ask(&Command::SetQuota(set.clone()), at(20), None);
    ledger.sweep(at(150));
    set.expires_at = None;
    ledger.ask(&Command::SetQuota(set.clone()), at(200), None);
    ledger.seen(2, gpu(&[]), at(300));
    set.limit = Limit::Finite(0);
    ledger.ask(&Command::SetQuota(set), at(310), None);
    ledger.seen(3, gpu(&["a"]), at(320));
    assert_eq!(
        ledger.metered(0, 1, at(400)),
        [
            "G+0 nvidia.com/gpu busy:a=240",
            "G+0 nvidia.com/gpu free=20",
            "G+0 nvidia.com/gpu squatter=140"
        ]
    );
}

#[test]
fn a_node_that_becomes_anothers_makes_squatters_of_those_on_it() {
    let mut ledger = ledger();
    ledger.seen(1, gpu(&["a"]), at(0));
    ledger.ask(
        &Command::SetQuota(on(put(bought("b", GPU), 1), &["n0"])),
        at(100),
        None,
    );
    let moved = DeclareNode::at(node("n0"), region("tw"));
    ledger.ask(&Command::DeclareNode(moved), at(300), None);
    ledger.state.verify().unwrap();
    let hour = ledger.state.metered(first(), first().next(), at(350));
    let places: Vec<_> = hour
        .wall
        .iter()
        .map(|row| (row.region.as_str(), row.ms))
        .collect();
    assert_eq!(places, [("bj", 300), ("tw", 50)]);
    let classes: Vec<_> = hour
        .rows
        .iter()
        .map(|row| (row.class.as_str(), row.ms))
        .collect();
    assert_eq!(
        classes,
        [("busy", 100), ("squatter", 200), ("squatter", 50)]
    );
}

#[test]
fn a_model_that_gets_a_name_is_metered_under_it_from_then_on() {
    let mut ledger = ledger();
    ledger.seen(1, gpu(&[]), at(0));
    let entry = ModelEntry {
        gpu_model: model("h100"),
        quota_type: None,
        aliases: BTreeSet::new(),
        hardware: [HardwareName::new("H100").unwrap()].into(),
        profile: None,
    };
    ledger.ask(&Command::SetModel(entry), at(70), None);
    ledger.state.verify().unwrap();
    assert_eq!(
        ledger.metered(0, 1, at(100)),
        ["G+0 h100 free=30", "G+0 nvidia.com/gpu free=70"]
    );
}

#[test]
fn an_outage_of_hours_is_closed_by_one_row_and_split_exactly() {
    let mut ledger = ledger();
    ledger.seen(1, gpu(&["a"]), at(HOUR - 1));
    let rows = ledger.state.seq().0;
    // The clock stands on the hour.
    ledger.sweep(at(HOUR));
    assert_eq!(ledger.state.closed_before(), first().next());
    ledger.sweep(at(HOUR + 5));
    assert_eq!(ledger.state.seq().0, rows + 1);
    ledger.seen(2, gpu(&[]), at(5 * HOUR + 7));
    assert_eq!(ledger.state.seq().0, rows + 3, "one row closes four hours");
    assert_eq!(
        ledger.metered(0, 9, at(5 * HOUR + 9)),
        [
            "G+0 nvidia.com/gpu busy:a=1",
            "G+1 nvidia.com/gpu busy:a=3600000",
            "G+2 nvidia.com/gpu busy:a=3600000",
            "G+3 nvidia.com/gpu busy:a=3600000",
            "G+4 nvidia.com/gpu busy:a=3600000",
            "G+5 nvidia.com/gpu busy:a=7",
            "G+5 nvidia.com/gpu free=2"
        ]
    );
    let mut stored = Vec::new();
    store(&mut ledger, at(5 * HOUR + 9), &mut stored);
    assert_eq!(
        (stored.len(), ledger.state.stored_before()),
        (5, first().plus(5))
    );
    // What is stored is not given again, and the rest goes on.
    let rest = ["G+5 nvidia.com/gpu busy:a=7", "G+5 nvidia.com/gpu free=2"];
    assert_eq!(ledger.metered(5, 9, at(5 * HOUR + 9)), rest);
    let seq = ledger.state.seq();
    let again = Command::NoteUsage {
        through: first().plus(5),
    };
    ledger.ask(&again, at(5 * HOUR + 9), None);
    let later = Command::NoteUsage {
        through: first().plus(6),
    };
    ledger.ask(&later, at(5 * HOUR + 9), None);
    assert_eq!(ledger.state.seq(), seq, "neither twice nor before its end");
}

#[test]
fn a_device_that_goes_and_comes_back_existed_only_while_it_was_there() {
    let mut ledger = ledger();
    ledger.seen(1, gpu(&[]), at(0));
    let gone = NodeReport {
        full: false,
        gone: vec![held_gpu("G", &[]).key],
        ..full_report("n0", 2, Vec::new())
    };
    ledger.ask(&Command::Report(gone), at(10), None);
    assert_eq!(
        ledger.state.hour_due(),
        Some(at(HOUR)),
        "what was is closed too"
    );
    ledger.sweep(at(3 * HOUR));
    assert_eq!(ledger.state.hour_due(), None, "nothing is left to meter");
    ledger.seen(3, gpu(&[]), at(4 * HOUR + 40));
    assert_eq!(
        ledger.metered(0, 9, at(4 * HOUR + 50)),
        ["G+0 nvidia.com/gpu free=10", "G+4 nvidia.com/gpu free=10"]
    );
    let mut stored = Vec::new();
    store(&mut ledger, at(5 * HOUR), &mut stored);
    assert_eq!(stored.iter().map(|row| row.ms).sum::<u64>(), 3_599_970);
}

#[test]
fn hours_are_closed_before_anything_that_comes_later() {
    let mut ledger = ledger();
    ledger.seen(1, gpu(&[]), at(0));
    let sweep = ledger.state.decide(&Command::Sweep, at(2 * HOUR)).unwrap();
    let (from, to) = (at(0), at(2 * HOUR));
    assert_eq!(sweep.events, [Event::HourClosed { from, to }]);
    let text = serde_json::to_string(&sweep.events[0]).unwrap();
    assert_eq!(
        text,
        format!(
            r#"{{"type":"hour_closed","from":{},"to":{}}}"#,
            from.0, to.0
        )
    );
}
