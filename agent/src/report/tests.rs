//! The reports applied in order give what was observed, and the digest of a fresh full report.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::gpu::reading::{Health, Licence, Memory};
use crate::observation::{AttributedProcess, Owner, Reason, Source, Vgpu};

const NODE: Node = Node {
    cpu_cores: Some(8),
    memory_bytes: Some(1 << 34),
};

fn reporter() -> Reporter {
    Reporter::new(NODE, Allowance::default(), Vec::new())
}

fn device(tenants: &[&str]) -> Device {
    Device {
        health: Health::Ok,
        model: "NVIDIA H100".into(),
        gpu_model: "nvidia.com/gpu".into(),
        profile: None,
        mig_uuid: None,
        minor: Some(0),
        partitioned: false,
        memory: Some(Memory {
            total: 80 << 30,
            reserved: None,
            free: 1,
            used: 2,
        }),
        processes: tenants
            .iter()
            .map(|name| AttributedProcess {
                pid: Some(1000),
                kind: None,
                start_time: Some(1),
                owner: if name.is_empty() {
                    Owner::Unattributed(Reason::NoRule)
                } else {
                    Owner::Tenant {
                        name: (*name).into(),
                        source: Source::Unit,
                    }
                },
                used_memory_bytes: None,
                sm: Default::default(),
            })
            .collect(),
        vgpu: None,
        ..Device::default()
    }
}

fn observation(at: u64, devices: &[(&str, Device)]) -> Observation {
    Observation {
        hidden: Vec::new(),
        at_boottime_ms: at,
        nvml: NvmlState::Ok,
        driver_version: Some("550.54".into()),
        devices: devices
            .iter()
            .map(|(uuid, device)| (DeviceKey::Gpu((*uuid).into()), device.clone()))
            .collect(),
    }
}

#[test]
fn only_what_decides_makes_a_report() {
    let mut reporter = reporter();
    let first = observation(0, &[("GPU-a", device(&["x"])), ("GPU-b", device(&[]))]);
    let full = reporter.next(&first, 0, true).unwrap();
    assert_eq!((full.full, full.devices.len()), (true, 2));
    assert_eq!(full.facts.unwrap().cpu_cores, Some(8));

    let mut same = first.clone();
    for device in same.devices.values_mut() {
        device.memory.as_mut().unwrap().used = 99;
        device.minor = Some(7);
        device.processes.iter_mut().for_each(|p| p.pid = Some(4));
    }
    assert_eq!(reporter.next(&same, 0, false), None);

    let changed = observation(9, &[("GPU-a", device(&["x", "y"])), ("GPU-b", device(&[]))]);
    let report = reporter.next(&changed, 0, false).unwrap();
    assert!(!report.full && report.gone.is_empty() && report.facts.is_none());
    assert_eq!(report.devices[0].tenants, ["x", "y"]);
    assert_eq!(report.devices.len(), 1);
}

#[test]
fn a_device_goes_only_when_nvml_says_so() {
    let mut reporter = reporter();
    reporter.next(&observation(0, &[("GPU-a", device(&["x"]))]), 0, true);
    let mut silent = observation(1, &[]);
    silent.nvml = NvmlState::Unresponsive("stuck".into());
    let report = reporter.next(&silent, 0, false).unwrap();
    assert!(report.gone.is_empty());
    assert_eq!(report.devices[0].health(), message::DeviceHealth::Unknown);
    assert_eq!(report.devices[0].tenants, ["x"]);
    assert_eq!(report.facts.unwrap().nvml, "unresponsive");
    silent.nvml = NvmlState::Unresponsive("still stuck".into());
    assert_eq!(reporter.next(&silent, 0, false), None);
    let report = reporter.next(&observation(2, &[]), 0, false).unwrap();
    assert_eq!(report.gone.len(), 1);
}

#[test]
fn what_cannot_be_told_apart_is_not_gone() {
    let instance = DeviceKey::Mig("GPU-a".into(), 1, 0);
    let mut seen = observation(0, &[("GPU-a", device(&[])), ("GPU-b", device(&["y"]))]);
    seen.devices.insert(instance.clone(), device(&["x"]));
    let mut reporter = reporter();
    reporter.next(&seen, 0, true);
    // Its GPU is lost, so nobody says what it is cut into.
    seen.devices.remove(&instance);
    for gpu in seen.devices.values_mut() {
        gpu.health = Health::Lost;
    }
    let report = reporter.next(&seen, 0, false).unwrap();
    assert!(report.gone.is_empty() && report.devices.len() == 3);
    // One GPU is counted and nothing more: it may be the one that is missing.
    let mut seen = observation(1, &[("GPU-a", device(&[]))]);
    let report = reporter.next(&seen, 1, false).unwrap();
    assert!(report.gone.is_empty(), "{report:?}");
    assert!(
        reporter
            .full()
            .devices
            .iter()
            .any(|row| row.tenants == ["y"])
    );
    seen.at_boottime_ms = 2;
    assert_eq!(reporter.next(&seen, 0, false).unwrap().gone.len(), 2);
}

#[test]
fn a_restart_while_nvml_is_silent_keeps_the_remembered_holders() {
    let mut before = reporter();
    before.next(&observation(0, &[("GPU-a", device(&["x"]))]), 0, true);
    let mut after = Reporter::new(NODE, Allowance::default(), before.full().devices);
    let mut silent = observation(1, &[]);
    silent.nvml = NvmlState::Absent("no library".into());
    let full = after.next(&silent, 0, true).unwrap();
    assert_eq!(full.devices[0].tenants, ["x"]);
    assert_eq!(full.devices[0].health(), message::DeviceHealth::Unknown);
}

#[test]
fn churn_is_bounded_and_lingers_as_held() {
    let mut reporter = reporter();
    reporter.next(&observation(0, &[("GPU-a", device(&[]))]), 0, true);
    let mut reports = 0;
    // Ten minutes of joining and leaving at every half second.
    for step in 1..1200_u64 {
        let tenants: &[&str] = if step % 2 == 0 { &[] } else { &["x"] };
        let seen = observation(step * 500, &[("GPU-a", device(tenants))]);
        reports += usize::from(reporter.next(&seen, 0, false).is_some());
        if !tenants.is_empty() {
            assert_eq!(reporter.full().devices[0].tenants, ["x"]);
        }
    }
    assert!(reports <= 2 * (30 + 300) + 1, "{reports}");
    let quiet = observation(700_000, &[("GPU-a", device(&[]))]);
    reporter.next(&quiet, 0, false);
    assert!(reporter.full().devices[0].tenants.is_empty());
}

// The server's side of it: rows by key text.
#[derive(Default)]
struct Model(BTreeMap<String, message::DeviceState>);

impl Model {
    fn apply(&mut self, contents: &Contents) {
        if contents.full {
            self.0.clear();
            assert!(contents.gone.is_empty() && contents.facts.is_some());
        }
        for row in &contents.devices {
            let key = wire::key_of(row.key.as_ref().unwrap()).unwrap();
            self.0.insert(key.to_string(), row.clone());
        }
        for key in &contents.gone {
            let key = wire::key_of(key).unwrap().to_string();
            assert!(self.0.remove(&key).is_some());
        }
    }

    fn digest(&self) -> Vec<u8> {
        let mut digest = HolderDigest::default();
        for (key, row) in &self.0 {
            digest.push(DigestRow {
                key,
                kind: match row.kind() {
                    message::DeviceKind::Mig => "mig",
                    message::DeviceKind::Vgpu => "vgpu",
                    _ => "gpu",
                },
                gpu_model: &row.gpu_model,
                health: match row.health() {
                    message::DeviceHealth::Ok => "ok",
                    message::DeviceHealth::Lost => "lost",
                    message::DeviceHealth::Hung => "hung",
                    _ => "unknown",
                },
                partitioned: row.partitioned,
                unattributed: row.unattributed,
                tenants: &row.tenants,
                licence: match row.licence() {
                    message::LicenceState::Unspecified => None,
                    message::LicenceState::Licensed => Some("licensed"),
                    message::LicenceState::Unlicensed => Some("unlicensed"),
                    message::LicenceState::Unknown => Some("unknown"),
                },
            });
        }
        digest.finish()
    }
}

fn vgpu(licence: Licence) -> Vgpu {
    Vgpu {
        gi: None,
        placement_id: None,
        guest_driver: None,
        parent: "GPU-a".into(),
        vm: Some("vm-1".into()),
        owner: Owner::System,
        licence,
        licence_expires_at_s: None,
    }
}

fn any_licence() -> impl Strategy<Value = Licence> {
    prop_oneof![
        Just(Licence::Licensed),
        Just(Licence::Unlicensed),
        Just(Licence::Unknown)
    ]
}

#[test]
fn a_change_of_licence_makes_a_report_and_another_digest() {
    let key = DeviceKey::Vgpu("v-1".into());
    let seen = |at, licence| {
        let mut seen = observation(at, &[("GPU-a", device(&[]))]);
        let mut device = device(&["x"]);
        device.vgpu = Some(vgpu(licence));
        seen.devices.insert(key.clone(), device);
        seen
    };
    let mut reporter = reporter();
    reporter.next(&seen(0, Licence::Licensed), 0, true);
    let before = reporter.digest().to_vec();
    assert_eq!(reporter.next(&seen(1, Licence::Licensed), 0, false), None);
    let report = reporter
        .next(&seen(2, Licence::Unlicensed), 0, false)
        .unwrap();
    assert_eq!(report.devices.len(), 1);
    assert_eq!(
        report.devices[0].licence(),
        message::LicenceState::Unlicensed
    );
    assert_eq!(report.devices[0].vm, "vm-1");
    assert_ne!(reporter.digest(), before);
    // Its GPU does not answer, so nobody says that it is gone; after a restart, too.
    let mut lost = observation(3, &[("GPU-a", device(&[]))]);
    for gpu in lost.devices.values_mut() {
        gpu.health = Health::Lost;
    }
    let mut after = Reporter::new(NODE, Allowance::default(), reporter.full().devices);
    for reporter in [&mut reporter, &mut after] {
        let report = reporter.next(&lost, 0, false).unwrap();
        assert!(report.gone.is_empty(), "{report:?}");
        assert_eq!(
            reporter.full().devices[1].licence(),
            message::LicenceState::Unlicensed
        );
    }
}

fn any_device() -> impl Strategy<Value = Device> {
    let tenant = prop_oneof![Just(""), Just("a"), Just("b"), Just("c")];
    let health = prop_oneof![
        6 => Just(Health::Ok),
        1 => Just(Health::Lost),
        1 => Just(Health::Hung),
        1 => Just(Health::Unknown)
    ];
    (
        proptest::collection::vec(tenant, 0..4),
        health,
        any::<bool>(),
        proptest::option::of(any_licence()),
    )
        .prop_map(|(tenants, health, partitioned, licence)| {
            let mut device = device(&tenants);
            device.health = health;
            device.partitioned = partitioned;
            device.vgpu = licence.map(vgpu);
            device
        })
}

fn any_key() -> impl Strategy<Value = DeviceKey> {
    let gpu = prop_oneof![Just("GPU-a".to_owned()), Just("GPU-b".to_owned())];
    prop_oneof![
        gpu.clone().prop_map(DeviceKey::Gpu),
        (gpu, 0..2_u32, 0..2_u32).prop_map(|(uuid, gi, ci)| DeviceKey::Mig(uuid, gi, ci)),
        Just(DeviceKey::Vgpu("v-1".into())),
    ]
}

fn any_observation() -> impl Strategy<Value = (Observation, bool)> {
    let nvml = prop_oneof![
        5 => Just(NvmlState::Ok),
        1 => Just(NvmlState::Broken("x".into())),
    ];
    let devices = proptest::collection::btree_map(any_key(), any_device(), 0..6);
    (devices, nvml, any::<bool>()).prop_map(|(devices, nvml, full)| {
        let observation = Observation {
            hidden: Vec::new(),
            at_boottime_ms: 0,
            nvml,
            driver_version: None,
            devices,
        };
        (observation, full)
    })
}

proptest! {
    #[test]
    fn reports_in_order_give_the_last_observation(
        steps in proptest::collection::vec((any_observation(), 0..3000_u64), 1..25),
        burst in 1..4_u32,
    ) {
        let allowance = Allowance { burst, period_ms: 2000 };
        let mut reporter = Reporter::new(NODE, allowance, Vec::new());
        let mut model = Model::default();
        let mut now = 0;
        let mut last = None;
        for (turn, ((mut seen, full), wait)) in steps.into_iter().enumerate() {
            now += wait;
            seen.at_boottime_ms = now;
            if let Some(contents) = reporter.next(&seen, 0, full || turn == 0) {
                model.apply(&contents);
            }
            prop_assert_eq!(model.digest(), reporter.digest());
            let mut fresh = Model::default();
            fresh.apply(&reporter.full());
            prop_assert_eq!(&model.0, &fresh.0);
            // Who is there is never left out; who is not there may only linger.
            for (key, device) in &seen.devices {
                let told: BTreeSet<&str> =
                    model.0[&key.to_string()].tenants.iter().map(String::as_str).collect();
                prop_assert!(told.is_superset(&device.tenants()));
            }
            last = Some(seen);
        }
        // Once the tokens are back nothing lingers.
        let mut seen = last.unwrap();
        seen.at_boottime_ms = now + 100_000;
        if let Some(contents) = reporter.next(&seen, 0, false) {
            model.apply(&contents);
        }
        for (key, device) in seen.devices.iter().filter(|(_, d)| d.health == Health::Ok) {
            let told = &model.0[&key.to_string()];
            prop_assert!(told.tenants.iter().map(String::as_str).eq(device.tenants()));
            prop_assert_eq!(told.unattributed, device.unattributed());
            if let Some(vgpu) = &device.vgpu {
                prop_assert_eq!(told.licence(), wire::licence_of(vgpu.licence));
            }
        }
        if seen.nvml == NvmlState::Ok && seen.devices.values().all(|d| d.health == Health::Ok) {
            prop_assert_eq!(model.0.len(), seen.devices.len());
        }
    }
}
