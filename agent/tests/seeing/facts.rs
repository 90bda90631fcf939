//! What boards are, and which of them NVML does not show.

use std::fs;
use std::os::unix::fs::symlink;

use gpuquota_agent::gpu::reading::{Health, HiddenGpu, HostMode, RemappedRows, Why};
use gpuquota_fake_nvml::scenario::{self, Excluded};

use crate::node::{Node, healths, reading, sample_until};

#[tokio::test]
async fn facts_are_those_of_the_board_and_what_it_does_not_know_is_unknown() {
    let node = Node::new("a100-mig");
    node.edit(|scenario| {
        let gpu = &mut scenario.gpus[2];
        (gpu.persistence, gpu.ecc_uncorrected) = (false, 3);
        gpu.remapped_rows = Some(scenario::RemappedRows {
            uncorrectable: 2,
            pending: true,
            ..scenario::RemappedRows::default()
        });
        let gpu = &mut scenario.gpus[3];
        (gpu.serial, gpu.ecc, gpu.remapped_rows) = (None, None, None);
        Ok(())
    });
    let mut sampler = node.sampler();
    let seen = reading(&mut sampler).await;
    let truth = gpuquota_fake_nvml::file::read(&node.scenario()).unwrap();
    let facts = |at: usize| seen.gpus[at].facts.as_deref().unwrap();
    for (at, gpu) in truth.gpus.iter().enumerate() {
        assert_eq!(facts(at).serial, gpu.serial);
        assert_eq!(facts(at).vbios_version, gpu.vbios_version);
        assert_eq!(facts(at).board_part_number, gpu.board_part_number);
        assert_eq!(facts(at).persistence, Some(gpu.persistence));
        assert_eq!(facts(at).ecc, gpu.ecc);
    }
    let rows = |uncorrectable, pending| {
        Some(RemappedRows {
            correctable: 0,
            uncorrectable,
            pending,
            failed: false,
        })
    };
    let remapped = [0, 1, 2, 3].map(|at| facts(at).remapped_rows);
    assert_eq!(
        remapped,
        [None, None, rows(2, true), None],
        "not in MIG mode"
    );
    let errors = [2, 3].map(|at| facts(at).ecc_uncorrected_errors);
    assert_eq!(errors, [Some(3), None]);
    assert_eq!(sampler.stats().last_return_code, 0);
    sampler.shutdown().await;
}

#[tokio::test]
async fn a_host_says_how_it_gives_vgpus() {
    let node = Node::new("l40s-vgpu");
    node.edit(|scenario| {
        scenario.gpus[1].virtualization = scenario::Virtualization::None;
        scenario.gpus[1].vgpu.clear();
        Ok(())
    });
    let mut sampler = node.sampler();
    let seen = reading(&mut sampler).await;
    let modes: Vec<_> = seen
        .gpus
        .iter()
        .map(|gpu| gpu.facts.as_ref().unwrap().host_vgpu_mode)
        .collect();
    assert_eq!(modes, [Some(HostMode::Sriov), None]);
    sampler.shutdown().await;
}

/// One that was seen before is then no longer lost: it is known where it is.
#[tokio::test]
async fn gpus_that_the_driver_leaves_out_or_a_vm_has_are_shown_and_not_lost() {
    let node = Node::new("l4x4");
    let mut sampler = node.sampler();
    let before = reading(&mut sampler).await;
    assert_eq!(before.hidden, []);
    let given = &before.gpus[1];
    node.edit(|scenario| {
        scenario.excluded.push(Excluded {
            uuid: "GPU-out".to_owned(),
            pci_bus_id: "00000000:FA:00.0".to_owned(),
        });
        scenario.remove_gpu("1")
    });
    let seen = sample_until(&mut sampler, |collected| {
        let reading = collected.reading.as_ref();
        reading.is_some_and(|seen| !seen.hidden.is_empty())
    });
    let seen = seen.await.reading.unwrap();
    assert_eq!(
        healths(&seen)
            .iter()
            .filter(|health| **health == Health::Lost)
            .count(),
        1
    );
    assert_eq!(seen.hidden[0].uuid.as_deref(), Some("GPU-out"));
    sampler.shutdown().await;

    let devices = node.sysfs().join("bus/pci/devices");
    let folder = devices.join(given.pci_bus_id[4..].to_ascii_lowercase());
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("vendor"), "0x10de\n").unwrap();
    fs::write(folder.join("class"), "0x030200\n").unwrap();
    symlink("../../drivers/vfio-pci", folder.join("driver")).unwrap();
    node.edit(|scenario| {
        // The scenario as it was before: the GPU is seen, and then a VM takes it.
        let mut gpu = scenario.gpus[0].clone();
        (gpu.uuid, gpu.pci_bus_id) = (given.uuid.clone(), given.pci_bus_id.clone());
        scenario.gpus.push(gpu);
        Ok(())
    });
    let mut sampler = node.sampler();
    assert_eq!(reading(&mut sampler).await.gpus.len(), 4);
    node.edit(|scenario| scenario.remove_gpu("3"));
    let seen = reading(&mut sampler).await;
    assert_eq!(healths(&seen), [Health::Ok; 3]);
    let passthrough = HiddenGpu {
        pci_bus_id: given.pci_bus_id.clone(),
        uuid: None,
        why: Why::Passthrough,
    };
    assert!(seen.hidden.contains(&passthrough), "{:?}", seen.hidden);
    assert_eq!(sampler.stats().unidentified, 0);
    sampler.shutdown().await;
}
