//! The two witnesses, the tenants, the bounds.

use super::*;
use crate::gpu::reading::{Health, NvmlState};
use crate::observation::{AttributedProcess, Device, Owner, Reason, Source};

fn device(partitioned: bool, tenants: &[&str]) -> Device {
    let process = |(pid, name): (u32, &&str)| AttributedProcess {
        pid: Some(pid),
        kind: None,
        start_time: Some(1),
        owner: match *name {
            "" => Owner::Unattributed(Reason::NoRule),
            name => Owner::Tenant {
                name: name.to_owned(),
                source: Source::Slice,
            },
        },
        used_memory_bytes: None,
        sm: Default::default(),
    };
    Device {
        health: Health::Ok,
        model: String::new(),
        gpu_model: String::new(),
        profile: None,
        mig_uuid: None,
        minor: None,
        partitioned,
        memory: None,
        processes: (1..).zip(tenants).map(process).collect(),
        vgpu: None,
        ..Device::default()
    }
}

fn node() -> Observation {
    let mig = |gi, ci| DeviceKey::Mig("GPU-m".into(), gi, ci);
    let gpu = |uuid: &str| DeviceKey::Gpu(uuid.into());
    Observation {
        hidden: Vec::new(),
        at_boottime_ms: 0,
        nvml: NvmlState::Ok,
        driver_version: None,
        devices: [
            (gpu("GPU-m"), device(true, &[])),
            (mig(1, 0), device(false, &["a", "a"])),
            (mig(2, 0), device(false, &["a"])),
            (mig(2, 1), device(false, &["b"])),
            (mig(3, 0), device(false, &["a", ""])),
            (gpu("GPU-x"), device(false, &["c"])),
            (gpu("GPU-y"), device(false, &["c", "a"])),
        ]
        .into(),
    }
}

fn node_at(boottime_ms: u64) -> Observation {
    Observation {
        at_boottime_ms: boottime_ms,
        ..node()
    }
}

fn at(boottime_ms: u64) -> Now {
    Now {
        boottime_ms,
        unix_s: i64::try_from(boottime_ms / 1000).unwrap(),
    }
}

fn event(uuid: &str, xid: u64, place: Option<(u32, u32)>, count: u64) -> DriverEvent {
    DriverEvent {
        uuid: uuid.to_owned(),
        what: Happening::Xid(xid),
        gi: place.map(|(gi, _)| gi),
        ci: place.map(|(_, ci)| ci),
        count,
    }
}

fn line(xid: Option<u64>, fell_off: bool) -> Trouble {
    Trouble {
        gpu: "0000:3b:00".parse().unwrap(),
        xid,
        gi: None,
        ci: None,
        pid: None,
        fell_off,
    }
}

fn counts(ledger: &Ledger) -> Vec<(u64, u64)> {
    ledger
        .xids()
        .map(|(_, xid, times)| (xid, times.count))
        .collect()
}

#[test]
fn rule_12_what_two_witnesses_tell_happened_once() {
    let mut ledger = Ledger::default();
    let log = |ledger: &mut Ledger, at_ms| {
        ledger.read(&line(Some(31), false), Some("GPU-x"), None, at(at_ms));
    };
    ledger.heard(&event("GPU-x", 31, None, 2), None, at(1_000));
    for _ in 0..3 {
        log(&mut ledger, 1_500);
    }
    assert_eq!(
        counts(&ledger),
        [(31, 3)],
        "three lines, two of them told already"
    );
    ledger.heard(&event("GPU-x", 31, None, 1), None, at(2_000));
    assert_eq!(counts(&ledger), [(31, 3)], "that was the third");
    log(&mut ledger, 7_001);
    assert_eq!(counts(&ledger), [(31, 4)], "another one");
    let (_, _, times) = ledger.xids().next().unwrap();
    assert_eq!(times.last_unix_s, 7);
}

/// Of a GPU and of each instance on it apart; an instance of a later layout with the same number has none.
#[test]
fn fault_m_the_newest_xid_is_that_of_the_gpu_or_of_the_instance_it_happened_on() {
    let mut ledger = Ledger::default();
    let mut before = node();
    let gpu = DeviceKey::Gpu("GPU-m".into());
    before.devices.get_mut(&gpu).unwrap().mig_generation = Some(3);
    let last = |ledger: &Ledger, gi, generation| ledger.last_xid("GPU-m", gi, generation);
    assert_eq!(last(&ledger, None, Some(3)), None);
    ledger.heard(&event("GPU-m", 13, Some((1, 0)), 1), Some(&before), at(0));
    ledger.heard(&event("GPU-m", 31, Some((1, 0)), 1), Some(&before), at(1));
    ledger.heard(&event("GPU-m", 63, None, 1), Some(&before), at(2));
    assert_eq!(last(&ledger, Some(1), Some(3)), Some(31));
    assert_eq!(last(&ledger, Some(2), Some(3)), None);
    assert_eq!(last(&ledger, Some(1), Some(4)), None, "cut anew");
    assert_eq!(last(&ledger, None, Some(4)), Some(63));
    // The kernel log tells of the same without the instance, and of another with it.
    let mut told = line(Some(31), false);
    ledger.read(&told, Some("GPU-m"), Some(&before), at(3));
    assert_eq!(last(&ledger, None, Some(3)), Some(63));
    (told.xid, told.gi) = (Some(63), Some(2));
    ledger.read(&told, Some("GPU-m"), Some(&before), at(4));
    assert_eq!(last(&ledger, Some(2), Some(3)), Some(63));
}

/// A loss that carries no XID, told in two lines, and later another.
#[test]
fn rule_12_a_gpu_that_falls_off_without_an_xid_is_counted() {
    let mut ledger = Ledger::default();
    ledger.read(&line(Some(79), true), None, None, at(1_000));
    ledger.read(&line(None, true), None, None, at(1_100));
    ledger.read(&line(None, true), None, None, at(90_000));
    let falls: Vec<_> = ledger
        .falls()
        .map(|(gpu, times)| (gpu, times.count))
        .collect();
    assert_eq!(falls, [("PCI-0000:3b:00", 2)]);
    assert_eq!(counts(&ledger), [(79, 1)]);
}

#[test]
fn an_xid_is_a_tenants_only_where_no_other_can_have_caused_it() {
    let mut ledger = Ledger::default();
    let before = node();
    let tenants = |ledger: &Ledger| {
        let rows = ledger
            .tenants()
            .map(|(tenant, class, count)| (tenant.to_owned(), class, count));
        rows.collect::<Vec<_>>()
    };
    for event in [
        event("GPU-m", 31, Some((3, 0)), 1),
        event("GPU-m", 31, None, 1),
        event("GPU-m", 31, Some((9, 0)), 1),
        event("GPU-y", 31, None, 1),
        event("GPU-none", 31, None, 1),
        DriverEvent {
            ci: None,
            ..event("GPU-m", 31, Some((2, 0)), 1)
        },
    ] {
        ledger.heard(&event, Some(&before), at(0));
    }
    let nobodys = (String::new(), Class::Application, 6);
    assert!(!ledger.is_undecided());
    assert_eq!(tenants(&ledger), std::slice::from_ref(&nobodys));
    ledger.heard(&event("GPU-m", 13, Some((1, 0)), 4), Some(&before), at(0));
    ledger.heard(&event("GPU-m", 43, Some((2, 1)), 1), Some(&before), at(0));
    ledger.heard(&event("GPU-x", 79, None, 1), Some(&before), at(0));
    // Not before a reading afterwards says the same.
    ledger.decide(&before, at(0));
    assert_eq!(tenants(&ledger), std::slice::from_ref(&nobodys));
    ledger.decide(&node_at(1), at(2));
    let expected = [
        nobodys,
        ("a".to_owned(), Class::Application, 4),
        ("b".to_owned(), Class::Application, 1),
        ("c".to_owned(), Class::ResetNeeded, 1),
    ];
    assert_eq!(tenants(&ledger), expected);
}

/// Whose one XID of GPU-x is, with these readings before and after it, each a change of the plain one.
fn whose(
    before: impl FnOnce(&mut Observation),
    after: impl FnOnce(&mut Observation),
    pid: Option<u32>,
) -> Vec<(String, u64)> {
    let mut ledger = Ledger::default();
    let (mut first, mut second) = (node_at(95_000), node_at(100_500));
    before(&mut first);
    after(&mut second);
    let told = Trouble {
        pid,
        ..line(Some(31), false)
    };
    ledger.read(&told, Some("GPU-x"), Some(&first), at(100_000));
    ledger.decide(&second, at(101_000));
    // Nothing better comes for a minute.
    ledger.decide(&second, at(170_000));
    assert!(!ledger.is_undecided());
    let rows = ledger.tenants();
    rows.map(|(tenant, _, count)| (tenant.to_owned(), count))
        .collect()
}

fn gpu_x(seen: &mut Observation) -> &mut Device {
    let key = DeviceKey::Gpu("GPU-x".into());
    seen.devices.get_mut(&key).unwrap()
}

/// Who held a GPU before is not who held it when the XID came: the reading before must be good and young, and the first good
/// one after it must say the same.
#[test]
fn rule_12_an_xid_is_charged_by_good_readings_before_and_after_it() {
    let nobody = [(String::new(), 1)];
    let c = [("c".to_owned(), 1)];
    let same = |_: &mut Observation| {};
    assert_eq!(whose(same, same, None), c);
    let becomes = |seen: &mut Observation, tenants: &[&str]| {
        gpu_x(seen).processes = device(false, tenants).processes;
    };
    assert_eq!(whose(same, |seen| becomes(seen, &["a"]), None), nobody);
    assert_eq!(whose(same, |seen| becomes(seen, &["c", "a"]), None), nobody);
    assert_eq!(whose(same, |seen| becomes(seen, &[]), None), nobody);
    let old = |seen: &mut Observation| seen.at_boottime_ms = 89_999;
    assert_eq!(whose(old, same, None), nobody);
    let under_way = |seen: &mut Observation| seen.at_boottime_ms = 100_000;
    assert_eq!(whose(same, under_way, None), nobody);
    let ill = |seen: &mut Observation| gpu_x(seen).health = Health::Hung;
    assert_eq!(whose(ill, same, None), nobody);
    assert_eq!(whose(same, ill, None), nobody);
    let away = |seen: &mut Observation| seen.nvml = NvmlState::Quiesced(String::new());
    assert_eq!(whose(away, same, None), nobody);
    assert_eq!(whose(same, away, None), nobody);
}

/// The process that the kernel module names is its tenant's, also when it ends by the XID and whoever else is there.
#[test]
fn rule_12_an_xid_is_charged_to_the_process_that_the_module_names() {
    let nobody = [(String::new(), 1)];
    let gone = |seen: &mut Observation| gpu_x(seen).processes.clear();
    let shared = |seen: &mut Observation| {
        gpu_x(seen).processes = device(false, &["b", "c", ""]).processes;
    };
    assert_eq!(whose(shared, gone, Some(2)), [("c".to_owned(), 1)]);
    assert_eq!(whose(shared, gone, Some(3)), nobody, "it has no tenant");
    assert_eq!(whose(|_| {}, |_| {}, Some(7)), nobody, "it is not there");
    let old = |seen: &mut Observation| seen.at_boottime_ms = 0;
    assert_eq!(whose(old, |_| {}, Some(1)), nobody);
    // The driver tells first, and the log whose it was.
    let mut ledger = Ledger::default();
    let before = node_at(99_000);
    ledger.heard(&event("GPU-x", 31, None, 2), Some(&before), at(100_000));
    let named = |pid| Trouble {
        pid: Some(pid),
        ..line(Some(31), false)
    };
    for pid in [1, 9] {
        ledger.read(&named(pid), Some("GPU-x"), Some(&before), at(100_001));
    }
    assert!(!ledger.is_undecided());
    let rows: Vec<_> = ledger.tenants().collect();
    let application = Class::Application;
    assert_eq!(rows, [("", application, 1), ("c", application, 1)]);
}

/// Two instances have the same XID, and the module names only one of their processes: it is that one's.
#[test]
fn rule_12_of_two_instances_the_process_that_is_named_answers_for_its_own() {
    let mut before = node_at(99_000);
    let instance = DeviceKey::Mig("GPU-m".into(), 2, 1);
    before.devices.get_mut(&instance).unwrap().processes[0].pid = Some(50);
    let mut ledger = Ledger::default();
    for place in [(1, 0), (2, 1)] {
        let told = event("GPU-m", 31, Some(place), 1);
        ledger.heard(&told, Some(&before), at(100_000));
    }
    let named = Trouble {
        pid: Some(50),
        ..line(Some(31), false)
    };
    ledger.read(&named, Some("GPU-m"), Some(&before), at(100_001));
    ledger.decide(&node_at(101_000), at(101_000));
    let rows: Vec<_> = ledger.tenants().collect();
    let application = Class::Application;
    assert_eq!(rows, [("a", application, 1), ("b", application, 1)]);
}

#[test]
fn fault_m_rows_are_bounded_and_what_had_no_room_is_counted() {
    let mut ledger = Ledger::default();
    for xid in 0..10_000 {
        ledger.heard(&event("GPU-x", xid, None, 1), None, at(xid * 10_000));
    }
    assert_eq!(ledger.xids().count(), MOST_ROWS);
    assert_eq!(ledger.dropped(), 10_000 - 512);
    assert_eq!(ledger.last_xid("GPU-x", None, None), Some(9_999));
}
