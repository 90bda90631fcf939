//! Readings without a kernel: what is held, and what stays held when nothing answers.

use super::*;
use crate::attribute::vm::VmRule;
use crate::gpu::reading::{Glow, Licence, NvmlState, ProcessKind, Reading};
use crate::observation::Source;

fn process(pid: u32, place: Option<(u32, u32)>) -> GpuProcess {
    GpuProcess {
        pid: Some(pid),
        gi: place.map(|(gi, _)| gi),
        ci: place.map(|(_, ci)| ci),
        kind: ProcessKind::Compute,
        used_memory_bytes: Some(1),
        sm_percent: None,
        memory_percent: None,
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
        ..MigReading::default()
    };
    GpuReading {
        uuid: uuid.to_owned(),
        pci_bus_id: String::new(),
        index: 0,
        minor: None,
        name: Some("NVIDIA H100".to_owned()),
        health: Health::Ok,
        mig_enabled: Some(!instances.is_empty()),
        vgpu_host: Some(false),
        memory: None,
        glow: Glow::default(),
        instances: instances.iter().map(instance).collect(),
        vgpus: None,
        processes,
        ..GpuReading::default()
    }
}

fn collected(gpus: Vec<GpuReading>) -> Collected {
    let reading = Reading {
        driver_version: Some("550".to_owned()),
        gpus,
        hidden: Vec::new(),
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
    let vms = [VmRule {
        vm: "vm-1".to_owned(),
        tenant: Some("a".to_owned()),
    }];
    let names = Names {
        models: &models,
        vms: &VmRules::new(&vms).unwrap(),
    };
    observe(collected, previous, names, &mut tenant_of, 5)
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

fn host(vgpus: Option<&[(&str, Option<&str>)]>) -> GpuReading {
    let vgpu = |(uuid, vm): &(&str, Option<&str>)| VgpuReading {
        uuid: (*uuid).to_owned(),
        vm: vm.map(str::to_owned),
        type_name: Some("NVIDIA L40S-8Q".to_owned()),
        gi: None,
        placement_id: None,
        guest_driver: None,
        framebuffer_bytes: Some(8),
        used_bytes: Some(1),
        sm_percent: None,
        licence: Licence::Licensed,
        licence_expires_at_s: None,
    };
    GpuReading {
        vgpu_host: Some(true),
        vgpus: vgpus.map(|vgpus| vgpus.iter().map(vgpu).collect()),
        ..gpu("GPU-h", &[], None)
    }
}

#[test]
fn a_vm_holds_its_vgpu_and_the_host_is_held_by_nobody() {
    let vms = [("v-1", Some("vm-1")), ("v-2", Some("vm-2")), ("v-3", None)];
    let seen = look(collected(vec![host(Some(&vms))]), None);
    let key = |uuid: &str| DeviceKey::Vgpu(uuid.to_owned());
    let of = &seen.devices[&key("v-1")];
    assert_eq!((of.gpu_model.as_str(), of.health), ("L40S-8Q", Health::Ok));
    assert_eq!(holders(&seen, &key("v-1")), ["a"]);
    for (uuid, reason) in [("v-2", Reason::NoRule), ("v-3", Reason::VmUnknown)] {
        let vgpu = seen.devices[&key(uuid)].vgpu.as_ref().unwrap();
        assert_eq!(vgpu.owner, Owner::Unattributed(reason));
        assert!(seen.devices[&key(uuid)].unattributed());
    }
    let gpu = &seen.devices[&DeviceKey::Gpu("GPU-h".to_owned())];
    assert_eq!((gpu.partitioned, gpu.health), (true, Health::Ok));
    assert!(gpu.tenants().is_empty());
}

#[test]
fn vgpus_stay_held_while_their_host_does_not_tell_and_go_when_it_does() {
    let key = DeviceKey::Vgpu("v-1".to_owned());
    let first = look(collected(vec![host(Some(&[("v-1", Some("vm-1"))]))]), None);
    let mut lost = host(None);
    lost.health = Health::Lost;
    let mut undecided = host(None);
    undecided.vgpu_host = None;
    undecided.processes = Some(Vec::new());
    for (gpu, health) in [
        (host(None), Health::Unknown),
        (lost, Health::Lost),
        (undecided, Health::Unknown),
    ] {
        let seen = look(collected(vec![gpu]), Some(&first));
        assert_eq!(seen.devices[&key].health, health);
        assert_eq!(holders(&seen, &key), ["a"]);
        let seen = look(collected(vec![host(Some(&[]))]), Some(&seen));
        assert!(!seen.devices.contains_key(&key));
    }
    let no_host = gpu("GPU-h", &[], Some(Vec::new()));
    let seen = look(collected(vec![no_host]), Some(&first));
    assert_eq!(seen.devices.len(), 1);
}

/// What a quota counts: the GPU instance that serves a vGPU is not a second device beside it.
#[test]
fn an_instance_of_a_host_serves_vgpus_and_is_not_held_itself() {
    let mut cut = host(Some(&[("v-1", Some("vm-1"))]));
    let instances = gpu("GPU-h", &[(1, 0, "3g.40gb"), (2, 0, "3g.40gb")], None).instances;
    (cut.mig_enabled, cut.instances) = (Some(true), instances);
    let seen = look(collected(vec![cut]), None);
    let holdable =
        |(key, device): (&DeviceKey, &Device)| (!device.partitioned).then(|| key.clone());
    let holdable: Vec<_> = seen.devices.iter().filter_map(holdable).collect();
    assert_eq!(holdable, [DeviceKey::Vgpu("v-1".to_owned())]);
    assert_eq!(seen.devices.len(), 4);
}

#[test]
fn fault_i_memory_of_a_process_without_a_pid_is_held_by_nobody_known() {
    let nameless = GpuProcess {
        pid: None,
        ..process(0, None)
    };
    let mut of = gpu("GPU-a", &[], Some(vec![nameless, process(1, None)]));
    of.doubts = vec![Doubt::NamelessProcesses];
    let seen = look(collected(vec![of]), None);
    let device = &seen.devices[&DeviceKey::Gpu("GPU-a".to_owned())];
    assert!(device.unattributed() && device.health == Health::Ok && !device.unlisted);
    let row = |process: &AttributedProcess| (process.pid, process.owner.reason());
    let rows: Vec<_> = device.processes.iter().map(row).collect();
    assert_eq!(rows, [(None, Some(Reason::Nameless)), (Some(1), None)]);
    assert_eq!(device.doubts, [Doubt::NamelessProcesses]);
}

#[test]
fn fault_i_rule_07_where_the_driver_mixes_up_pids_holders_are_unknown_and_not_a_tenants() {
    let mut doubtful = gpu("GPU-a", &[], Some(vec![process(1, None)]));
    doubtful.doubts = vec![Doubt::Pids];
    let sound = gpu("GPU-b", &[], Some(vec![process(1, None)]));
    // Whoever was shown before the doubt is not kept.
    let before = look(
        collected(vec![gpu("GPU-a", &[], Some(vec![process(1, None)]))]),
        None,
    );
    let seen = look(collected(vec![doubtful, sound]), Some(&before));
    let of = |uuid: &str| &seen.devices[&DeviceKey::Gpu(uuid.to_owned())];
    let row =
        |process: &AttributedProcess| (process.pid, process.start_time, process.owner.reason());
    let rows = |uuid| of(uuid).processes.iter().map(row).collect::<Vec<_>>();
    assert_eq!(rows("GPU-a"), [(Some(1), None, Some(Reason::PidsDisagree))]);
    assert!(of("GPU-a").unattributed() && of("GPU-a").tenants().is_empty());
    assert_eq!(of("GPU-a").doubts, [Doubt::Pids]);
    assert!(!of("GPU-b").unattributed() && of("GPU-b").doubts.is_empty());
}
