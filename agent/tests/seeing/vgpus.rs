//! vGPU hosts: whose VM holds which vGPU, whether it has a licence, and VMs that come and go while one looks.

use gpuquota_agent::attribute::{AttributionConfig, Observer};
use gpuquota_agent::clock::boottime_ms;
use gpuquota_agent::facts::Node as Facts;
use gpuquota_agent::gpu::reading::{Doubt, Health, Licence, NvmlState, VgpuReading};
use gpuquota_agent::gpu::sampler::Sampler;
use gpuquota_agent::observation::{Device, DeviceKey, Observation, Owner, Reason, Source};
use gpuquota_agent::report::Reporter;
use gpuquota_agent::report::bucket::Allowance;
use gpuquota_fake_nvml::scenario::{self, Action, Vgpu};
use gpuquota_proto::agent_v1::LicenceState;

use crate::node::{Node, healths, reading, sample_until};

/// 2027-06-30T12:00:00Z
const END_S: i64 = 1_814_356_800;

fn vgpu(node: &Node, at: usize) -> Vgpu {
    let scenario = gpuquota_fake_nvml::file::read(&node.scenario()).unwrap();
    scenario.gpus[0].vgpu[at].clone()
}

fn license(node: &Node, uuid: &str, licence: scenario::Licence) {
    node.edit(|scenario| scenario.license_vgpu(uuid, licence, None));
}

async fn vgpus(sampler: &mut Sampler) -> Vec<VgpuReading> {
    let seen = reading(sampler).await;
    assert_eq!(healths(&seen), [Health::Ok; 2]);
    assert_eq!(seen.gpus[1].vgpus, Some(Vec::new()));
    seen.gpus[0].vgpus.clone().unwrap()
}

#[tokio::test]
async fn a_vm_holds_its_vgpu_and_a_lost_licence_is_reported() {
    let node = Node::new("l40s-vgpu");
    let [first, second] = [vgpu(&node, 0), vgpu(&node, 1)];
    let vm = first.vm.clone().unwrap();
    let config = format!("[[vm]]\nvm = \"{vm}\"\ntenant = \"team-a\"\n");
    let config: AttributionConfig = toml::from_str(&config).unwrap();
    let mut observer = Observer::new(&config, None).unwrap();
    let mut sampler = node.sampler();
    let mut reporter = Reporter::new(Facts::read(), Allowance::default(), Vec::new());
    let mut look = async |full| {
        let collected = sampler.sample(boottime_ms()).await;
        let seen = observer.observe(collected, None, boottime_ms());
        let report = reporter.next(&seen, 0, full);
        (seen, report)
    };
    let of = |seen: &Observation, uuid: &str| -> Device {
        seen.devices[&DeviceKey::Vgpu(uuid.to_owned())].clone()
    };

    let (seen, report) = look(true).await;
    let device = of(&seen, &first.uuid);
    assert_eq!(
        (device.model.as_str(), device.gpu_model.as_str()),
        ("NVIDIA L40S-8Q", "L40S-8Q")
    );
    assert_eq!(device.memory.unwrap().total, 8 << 30);
    let told = device.vgpu.unwrap();
    assert_eq!(
        told.owner,
        Owner::Tenant {
            name: "team-a".to_owned(),
            source: Source::Vm
        }
    );
    assert_eq!((told.vm, told.licence), (Some(vm), Licence::Licensed));
    assert_eq!(told.licence_expires_at_s, Some(END_S));
    let gpu = &seen.devices[&DeviceKey::Gpu(told.parent)];
    assert!(gpu.partitioned && gpu.tenants().is_empty() && !gpu.unattributed());
    let other = of(&seen, &second.uuid).vgpu.unwrap();
    assert_eq!(other.owner, Owner::Unattributed(Reason::NoRule));
    assert_eq!(other.licence, Licence::Unlicensed);
    assert_eq!(report.unwrap().devices.len(), 4);

    assert_eq!(look(false).await.1, None, "nothing changed");
    license(&node, &first.uuid, scenario::Licence::Unlicensed);
    let report = look(false).await.1.unwrap();
    assert_eq!(report.devices.len(), 1);
    let row = &report.devices[0];
    assert_eq!(row.licence(), LicenceState::Unlicensed);
    assert_eq!(
        (row.licence_expires_at_s, &row.tenants[..]),
        (None, &["team-a".to_owned()][..])
    );

    node.edit(|scenario| {
        scenario.vgpu_mut(&second.uuid)?.vm = None;
        Ok(())
    });
    let nameless = of(&look(false).await.0, &second.uuid).vgpu.unwrap();
    assert_eq!(
        nameless.vm.as_deref(),
        second.vm.as_deref(),
        "what is known stays"
    );
    node.edit(|scenario| scenario.remove_vgpu(&first.uuid));
    let (seen, report) = look(false).await;
    assert!(
        !seen
            .devices
            .contains_key(&DeviceKey::Vgpu(first.uuid.clone()))
    );
    assert_eq!(report.unwrap().gone[0].vgpu_uuid, first.uuid);
    sampler.shutdown().await;
}

/// Class (e), (l): an old driver without the newer call, and guests that say nothing, or have no driver.
#[tokio::test]
async fn fault_l_a_licence_is_known_with_an_old_driver_and_never_guessed() {
    let node = Node::new("l40s-vgpu");
    let uuid = vgpu(&node, 0).uuid;
    let mut sampler = node.sampler();
    for (licence, expected) in [
        (scenario::Licence::Unknown, Licence::Unknown),
        (scenario::Licence::NoDriver, Licence::Unknown),
        (scenario::Licence::Unlicensed, Licence::Unlicensed),
        (scenario::Licence::Licensed, Licence::Licensed),
    ] {
        license(&node, &uuid, licence);
        assert_eq!(
            vgpus(&mut sampler).await[0].licence,
            expected,
            "{licence:?}"
        );
    }
    node.edit(|scenario| {
        scenario.vgpu_mut(&uuid)?.licence = None;
        Ok(())
    });
    assert_eq!(
        vgpus(&mut sampler).await[0].licence,
        Licence::Unknown,
        "not supported"
    );
    license(&node, &uuid, scenario::Licence::Licensed);
    node.edit(|scenario| {
        let call = "nvmlVgpuInstanceGetLicenseInfo_v2".to_owned();
        scenario.missing_symbols.push(call);
        Ok(())
    });
    let seen = vgpus(&mut sampler).await;
    let told = |vgpu: &VgpuReading| (vgpu.licence, vgpu.licence_expires_at_s);
    assert_eq!(told(&seen[0]), (Licence::Licensed, None));
    assert_eq!(told(&seen[1]), (Licence::Unlicensed, None));
    node.answer("nvmlVgpuInstanceGetLicenseStatus", Some(&uuid), 999);
    let seen = vgpus(&mut sampler).await;
    assert_eq!(told(&seen[0]), (Licence::Unknown, None));
    assert_eq!(told(&seen[1]), (Licence::Unlicensed, None));
    sampler.shutdown().await;
}

/// Class (l): the VM stops between the list and any of the questions. That is no fault of the GPU.
#[tokio::test]
async fn fault_l_a_vgpu_that_ends_while_it_is_read_is_gone_and_nothing_else() {
    let node = Node::new("l40s-vgpu");
    let uuid = vgpu(&node, 0).uuid;
    for function in [
        "nvmlVgpuInstanceGetUUID",
        "nvmlVgpuInstanceGetVmID",
        "nvmlVgpuInstanceGetType",
        "nvmlVgpuInstanceGetFbUsage",
        "nvmlVgpuInstanceGetLicenseInfo_v2",
    ] {
        let mut sampler = node.sampler();
        node.answer(function, Some(&uuid), 6);
        let seen = vgpus(&mut sampler).await;
        assert_eq!(seen.len(), 1, "{function}: {seen:?}");
        assert_ne!(seen[0].uuid, uuid);
        assert_eq!(sampler.stats().last_return_code, 0, "{function}");
        node.heal();
        assert_eq!(vgpus(&mut sampler).await.len(), 2, "{function}");
        sampler.shutdown().await;
    }
}

#[tokio::test]
async fn more_vgpus_than_were_expected_are_all_seen_and_an_unreadable_list_is_none() {
    let node = Node::new("l40s-vgpu");
    let mut sampler = node.sampler();
    assert_eq!(vgpus(&mut sampler).await.len(), 2);
    node.edit(|scenario| {
        for number in 0..70 {
            scenario.add_vgpu("0", "NVIDIA L40S-2B", &number.to_string(), None)?;
        }
        Ok(())
    });
    let seen = vgpus(&mut sampler).await;
    assert_eq!(seen.len(), 72);
    assert_eq!(seen[71].vm.as_deref(), Some("69"), "a domain id");
    for (function, code) in [
        ("nvmlDeviceGetActiveVgpus", 999),
        ("nvmlDeviceGetActiveVgpus", 4),
        ("nvmlDeviceGetActiveVgpus", 7),
    ] {
        node.answer(function, Some("0"), code);
        let seen = reading(&mut sampler).await;
        assert_eq!(seen.gpus[0].vgpus, None, "{code}");
        assert_eq!(seen.gpus[1].vgpus, Some(Vec::new()), "{code}");
        node.heal();
    }
    assert_eq!(vgpus(&mut sampler).await.len(), 72);
    sampler.shutdown().await;
}

/// A question that hangs costs its own GPU only.
#[tokio::test]
async fn a_vgpu_whose_licence_hangs_leaves_the_other_gpu_alone() {
    let node = Node::new("l40s-vgpu");
    let mut sampler = node.sampler();
    assert_eq!(vgpus(&mut sampler).await.len(), 2);
    let uuid = vgpu(&node, 0).uuid;
    node.fault(
        "nvmlVgpuInstanceGetLicenseInfo_v2",
        Some(&uuid),
        Action::Hang,
    );
    let seen = sample_until(&mut sampler, |collected| {
        let reading = collected.reading.as_ref();
        reading.is_some_and(|seen| healths(seen) == [Health::Hung, Health::Ok])
    });
    let seen = seen.await;
    assert_eq!(seen.nvml, NvmlState::Ok);
    assert_eq!(seen.reading.unwrap().gpus[0].vgpus, None);
    sampler.shutdown().await;
}

/// What the driver samples, and nothing for want of it.
#[tokio::test]
async fn fault_j_how_busy_vgpus_are_is_the_newest_good_sample_or_unknown() {
    let node = Node::new("l40s-vgpu");
    let uuid = vgpu(&node, 0).uuid;
    let mut sampler = node.sampler();
    let told = |seen: Vec<VgpuReading>| seen.iter().map(|of| of.sm_percent).collect::<Vec<_>>();
    assert_eq!(told(vgpus(&mut sampler).await), [None, None], "not found");
    assert_eq!(sampler.stats().last_return_code, 0);
    for (percent, expected) in [(35, Some(35)), (4321, None), (0, Some(0))] {
        node.edit(|scenario| {
            scenario.vgpu_mut(&uuid)?.sm_percent = Some(percent);
            Ok(())
        });
        let mut sampler = node.sampler();
        assert_eq!(told(vgpus(&mut sampler).await), [expected, None]);
        sampler.shutdown().await;
    }
    node.answer("nvmlDeviceGetVgpuUtilization", None, 3);
    let mut other = node.sampler();
    assert_eq!(told(vgpus(&mut other).await), [None, None]);
    other.shutdown().await;
    sampler.shutdown().await;
}

/// What it costs elsewhere: the mode, and nothing more.
#[tokio::test]
async fn a_gpu_that_is_no_host_is_not_asked_for_vgpus() {
    let node = Node::new("t4x1");
    node.fault("nvmlDeviceGetActiveVgpus", None, Action::Crash);
    let mut sampler = node.sampler();
    let seen = reading(&mut sampler).await;
    assert_eq!(
        (seen.gpus[0].vgpu_host, &seen.gpus[0].vgpus),
        (Some(false), &None)
    );
    assert_eq!(healths(&seen), [Health::Ok]);
    sampler.shutdown().await;
}

/// vGPUs that take turns on a GPU instance stand in no list of the GPU; placement and guest driver are told, or unknown.
#[tokio::test]
async fn vgpus_on_gpu_instances_with_their_places_and_guests_drivers() {
    let node = Node::new("a100-mig");
    let uuids = node.edit(|scenario| {
        scenario.slice("0", &["3g.40gb", "3g.40gb"])?;
        scenario.gpus[0].virtualization = scenario::Virtualization::HostVgpu;
        ["11", "22", "33"]
            .iter()
            .map(|vm| {
                let uuid = scenario.add_vgpu("0", "NVIDIA A100-4C", vm, Some(4096))?;
                let vgpu = scenario.vgpu_mut(&uuid)?;
                (vgpu.gi, vgpu.time_sliced) = (Some(if *vm == "33" { 2 } else { 1 }), *vm != "11");
                (vgpu.placement_id, vgpu.driver_version) = (Some(5).filter(|_| *vm == "22"), None);
                Ok(uuid)
            })
            .collect::<Result<Vec<_>, _>>()
    });
    let listed =
        async |sampler: &mut Sampler| reading(sampler).await.gpus[0].vgpus.clone().unwrap();
    let mut sampler = node.sampler();
    let seen = listed(&mut sampler).await;
    let told: Vec<_> = seen
        .iter()
        .map(|vgpu| {
            (
                vgpu.uuid.as_str(),
                vgpu.gi,
                vgpu.placement_id,
                vgpu.guest_driver.as_deref(),
            )
        })
        .collect();
    let expected = [(0, 1, None), (1, 1, Some(5)), (2, 2, None)];
    let expected =
        expected.map(|(at, gi, place): (usize, _, _)| (uuids[at].as_str(), Some(gi), place, None));
    assert_eq!(told, expected);
    // The guest boots and loads its driver: seen at the next look, not asked at every pass.
    node.edit(|scenario| {
        scenario.vgpu_mut(&uuids[1])?.driver_version = Some("550.90.05".to_owned());
        Ok(())
    });
    let mut drivers = Vec::new();
    for _ in 0..11 {
        drivers.push(listed(&mut sampler).await[1].guest_driver.clone());
    }
    assert_eq!(drivers[0], None, "not at every pass");
    assert_eq!(drivers[10].as_deref(), Some("550.90.05"));
    sampler.shutdown().await;
    // One that cannot be read makes the list unknown, not short.
    node.answer("nvmlGpuInstanceGetActiveVgpus", None, 999);
    let mut sampler = node.sampler();
    assert_eq!(reading(&mut sampler).await.gpus[0].vgpus, None);
    sampler.shutdown().await;
}

/// Class (n): what the shipped unit, without CAP_SYS_ADMIN, is told of GPU instances. That more vGPUs run is not known, which is
/// not that none do; where the GPU says that none take turns there is no doubt.
#[tokio::test]
async fn fault_n_vgpus_that_we_may_not_ask_for_are_unknown_and_not_absent() {
    let node = Node::new("a100-mig");
    let uuids = node.edit(|scenario| {
        scenario.slice("0", &["3g.40gb", "3g.40gb"])?;
        scenario.gpus[0].virtualization = scenario::Virtualization::HostVgpu;
        [false, true]
            .iter()
            .map(|turns| {
                let uuid = scenario.add_vgpu("0", "NVIDIA A100-4C", "7", Some(4096))?;
                let vgpu = scenario.vgpu_mut(&uuid)?;
                (vgpu.gi, vgpu.time_sliced) = (Some(1), *turns);
                Ok(uuid)
            })
            .collect::<Result<Vec<_>, _>>()
    });
    let mut observer = Observer::new(&AttributionConfig::default(), None).unwrap();
    let mut look = |collected, before: Option<&Observation>| {
        observer.observe(collected, before, boottime_ms())
    };
    let host = |seen: &Observation| {
        let mut gpus = seen.devices.iter().filter(|(_, gpu)| gpu.readout.is_some());
        let mine = gpus.find(|(_, gpu)| gpu.readout.as_ref().is_some_and(|of| of.index == 0));
        let gpu = mine.unwrap().1;
        (gpu.health, gpu.doubts.clone())
    };
    let health = |seen: &Observation, at: usize| {
        let key = DeviceKey::Vgpu(uuids[at].clone());
        seen.devices.get(&key).map(|vgpu| vgpu.health)
    };
    let mut sampler = node.sampler();
    let all = look(sampler.sample(boottime_ms()).await, None);
    assert_eq!(host(&all), (Health::Ok, Vec::new()));
    let parts = all
        .devices
        .iter()
        .filter(|(_, part)| part.mig_uuid.is_some());
    let parts: Vec<bool> = parts.map(|(_, part)| part.partitioned).collect();
    assert!(parts.iter().filter(|cut| **cut).count() == 2, "{parts:?}");
    sampler.shutdown().await;

    node.answer("nvmlDeviceGetGpuInstanceById", None, 4);
    let mut sampler = node.sampler();
    let collected = sampler.sample(boottime_ms()).await;
    let seen = look(collected.clone(), None);
    assert_eq!(host(&seen), (Health::Unknown, vec![Doubt::Vgpus]));
    assert_eq!(
        [health(&seen, 0), health(&seen, 1)],
        [Some(Health::Ok), None]
    );
    assert_eq!(sampler.stats().last_return_code, 0);
    let seen = look(collected, Some(&all));
    let expected = [Some(Health::Ok), Some(Health::Unknown)];
    assert_eq!([health(&seen, 0), health(&seen, 1)], expected, "still held");
    // One that the GPU itself listed and lists no more has ended; the doubt is not about it.
    let mut reporter = Reporter::new(Facts::read(), Allowance::default(), Vec::new());
    reporter.next(&seen, 0, true);
    node.edit(|scenario| scenario.remove_vgpu(&uuids[0]));
    let seen = look(sampler.sample(boottime_ms()).await, Some(&seen));
    let expected = [None, Some(Health::Unknown)];
    assert_eq!([health(&seen, 0), health(&seen, 1)], expected);
    let gone = reporter.next(&seen, 0, false).unwrap().gone;
    assert_eq!((gone.len(), &gone[0].vgpu_uuid), (1, &uuids[0]));
    sampler.shutdown().await;

    node.edit(|scenario| scenario.remove_vgpu(&uuids[1]));
    let mut sampler = node.sampler();
    let seen = look(sampler.sample(boottime_ms()).await, None);
    assert_eq!(host(&seen), (Health::Ok, Vec::new()), "none take turns");
    sampler.shutdown().await;
}
