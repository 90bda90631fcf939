//! Readings without a kernel: what is held, and what stays held when nothing answers.

use super::*;
use crate::gpu::reading::{Glow, NvmlState, ProcessKind, Reading};
use crate::observation::Source;

fn process(pid: u32, place: Option<(u32, u32)>) -> GpuProcess {
    GpuProcess {
        pid,
        gi: place.map(|(gi, _)| gi),
        ci: place.map(|(_, ci)| ci),
        kind: ProcessKind::Compute,
        used_memory_bytes: Some(1),
    }
}

fn gpu(
    uuid: &str,
    instances: &[(u32, u32, &str)],
    processes: Option<Vec<GpuProcess>>,
) -> GpuReading {
    let instance = |(gi, ci, profile): &(u32, u32, &str)| MigReading {
        uuid: format!("MIG-{gi}-{ci}"),
        gi: *gi,
        ci: *ci,
        profile: Some((*profile).to_owned()).filter(|profile| !profile.is_empty()),
        memory: None,
    };
    GpuReading {
        uuid: uuid.to_owned(),
        pci_bus_id: String::new(),
        index: 0,
        minor: None,
        name: Some("NVIDIA H100".to_owned()),
        health: Health::Ok,
        mig_enabled: Some(!instances.is_empty()),
        memory: None,
        glow: Glow::default(),
        instances: instances.iter().map(instance).collect(),
        processes,
    }
}

fn collected(gpus: Vec<GpuReading>) -> Collected {
    let reading = Reading {
        driver_version: Some("550".to_owned()),
        gpus,
    };
    Collected {
        nvml: NvmlState::Ok,
        reading: Some(reading),
        asked_boottime_ms: 0,
    }
}

fn tenant_of(pid: u32) -> Found {
    let name = ["a", "b", "c"].get(usize::try_from(pid).ok()? % 10)?;
    Some((
        Some(7),
        Owner::Tenant {
            name: (*name).to_owned(),
            source: Source::Slice,
        },
    ))
}

fn look(collected: Collected, previous: Option<&Observation>) -> Observation {
    let models = BTreeMap::from([("2g.20gb".to_owned(), "acme/two".to_owned())]);
    observe(collected, previous, &models, &mut tenant_of, 5)
}

fn holders(observation: &Observation, key: &DeviceKey) -> Vec<String> {
    observation.devices[key]
        .tenants()
        .into_iter()
        .map(str::to_owned)
        .collect()
}

fn full(uuid: &str) -> DeviceKey {
    DeviceKey::Gpu(uuid.to_owned())
}

fn mig(gi: u32, ci: u32) -> DeviceKey {
    DeviceKey::Mig("G".to_owned(), gi, ci)
}

/// Case 76: two compute instances of one GPU instance, and the GPU around them, are three devices.
#[test]
fn a_process_on_an_instance_is_not_on_the_gpu() {
    let processes = vec![
        process(10, Some((1, 0))),
        process(20, Some((1, 0))),
        process(11, Some((1, 1))),
        process(12, Some((9, 9))),
        process(15, Some((1, 1))),
    ];
    let instances = [
        (1, 0, "1c.2g.20gb"),
        (1, 1, "1g.10gb+me"),
        (2, 0, "2g.20gb"),
        (3, 0, ""),
    ];
    let seen = look(collected(vec![gpu("G", &instances, Some(processes))]), None);
    assert_eq!(holders(&seen, &mig(1, 0)), ["a"]);
    assert_eq!(seen.devices[&mig(1, 0)].processes.len(), 2);
    assert_eq!(holders(&seen, &mig(1, 1)), ["b"], "15 had gone");
    assert_eq!(holders(&seen, &mig(2, 0)), [""; 0]);
    assert_eq!(
        holders(&seen, &mig(9, 9)),
        ["c"],
        "on an instance that nobody can see"
    );
    assert_eq!(holders(&seen, &full("G")), [""; 0]);
    assert!(seen.devices[&full("G")].partitioned);
    let model = |key: &DeviceKey| seen.devices[key].gpu_model.as_str();
    assert_eq!(model(&mig(1, 0)), "nvidia.com/mig-1c.2g.20gb");
    assert_eq!(model(&mig(1, 1)), "nvidia.com/mig-1g.10gb.me");
    assert_eq!(model(&mig(2, 0)), "acme/two");
    assert_eq!(model(&mig(3, 0)), "nvidia.com/mig-unknown");
    assert_eq!(model(&mig(9, 9)), "nvidia.com/mig-unknown");
    assert_eq!(model(&full("G")), "nvidia.com/gpu");
}

/// Case 72: nothing that fails to answer frees a device.
#[test]
fn what_does_not_answer_keeps_its_last_holders() {
    let before = look(
        collected(vec![
            gpu(
                "G",
                &[(1, 0, "1g.10gb")],
                Some(vec![process(10, Some((1, 0)))]),
            ),
            gpu("H", &[], Some(vec![process(11, None)])),
            gpu("I", &[], Some(vec![process(12, None)])),
        ]),
        None,
    );
    let mut lost = gpu("G", &[(1, 0, "1g.10gb")], None);
    lost.health = Health::Lost;
    let unreadable = gpu("H", &[], None);
    let seen = look(
        collected(vec![lost, unreadable, gpu("I", &[], Some(Vec::new()))]),
        Some(&before),
    );
    assert_eq!(
        (seen.devices[&mig(1, 0)].health, holders(&seen, &mig(1, 0))),
        (Health::Lost, vec!["a".to_owned()])
    );
    assert_eq!(
        (seen.devices[&full("H")].health, holders(&seen, &full("H"))),
        (Health::Unknown, vec!["b".to_owned()])
    );
    assert_eq!(
        (seen.devices[&full("I")].health, holders(&seen, &full("I"))),
        (Health::Ok, Vec::new())
    );

    let broken = Collected {
        nvml: NvmlState::Broken("x".to_owned()),
        reading: None,
        asked_boottime_ms: 0,
    };
    let blind = look(broken.clone(), Some(&before));
    assert_eq!(blind.devices.len(), before.devices.len());
    assert!(
        blind
            .devices
            .values()
            .all(|device| device.health == Health::Unknown)
    );
    assert_eq!(holders(&blind, &full("I")), ["c"]);
    assert_eq!(blind.driver_version.as_deref(), Some("550"));
    assert!(look(broken, None).devices.is_empty());
}
