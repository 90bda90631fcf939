//! Readings while NVML works: all facts of full GPUs and instances, and what changes between passes.

use gpuquota_agent::gpu::reading::{Doubt, GpuProcess, Health, ProcessKind};
use gpuquota_agent::gpu::sampler::Collected;
use gpuquota_fake_nvml::scenario::{Action, Fault, Kind, Process};

use crate::node::{Node, healths, pids, reading, sample_until};

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn full_gpus_and_instances_with_their_processes() {
    let node = Node::new("a100-mig");
    let whole = node.run_on("2", None);
    let half = node.run_on("1", Some((1, 0)));
    let (small, drawing) = node.edit(|scenario| {
        let small = scenario.gpus[1].mig[2].clone();
        // The same process in two lists, one in a list of its own, and one that has no pid.
        scenario.add_process(Process {
            kind: Kind::Graphics,
            memory_mib: Some(2048),
            ..Process::new("2", whole)
        })?;
        let drawing = node.workload();
        scenario.add_process(Process {
            kind: Kind::Mps,
            ..Process::new("3", drawing)
        })?;
        scenario.add_process(Process {
            phantom: true,
            ..Process::new("3", 0)
        })?;
        Ok((small, drawing))
    });
    let mut sampler = node.sampler();
    let seen = reading(&mut sampler).await;
    let scenario = gpuquota_fake_nvml::file::read(&node.scenario()).unwrap();

    assert_eq!(seen.driver_version.as_ref(), Some(&scenario.driver_version));
    assert_eq!(healths(&seen), [Health::Ok; 4]);
    for (gpu, truth) in seen.gpus.iter().zip(&scenario.gpus) {
        assert_eq!(
            (&gpu.uuid, gpu.name.as_ref()),
            (&truth.uuid, Some(&truth.name))
        );
        assert!(gpu.pci_bus_id.eq_ignore_ascii_case(&truth.pci_bus_id));
        assert_eq!(gpu.mig_enabled, Some(truth.mig_mode == Some(true)));
        let memory = gpu.memory.unwrap();
        assert_eq!(memory.total, truth.memory_total_mib * MIB);
        assert_eq!(memory.reserved, Some(truth.memory_reserved_mib * MIB));
        assert_eq!(gpu.glow.power_milliwatts, truth.power_mw);
        // In MIG mode there is no utilisation.
        assert_eq!(
            gpu.glow.utilization_gpu_percent.is_some(),
            gpu.mig_enabled == Some(false)
        );
        let told: Vec<_> = gpu
            .instances
            .iter()
            .map(|i| (i.gi, i.ci, i.uuid.as_str(), i.profile.as_deref()))
            .collect();
        let real = truth
            .mig
            .iter()
            .map(|m| (m.gi, m.ci, m.uuid.as_str(), Some(m.profile.as_str())));
        assert_eq!(told, real.collect::<Vec<_>>());
    }
    assert_eq!(
        seen.gpus[1].instances.len(),
        3,
        "behind a gap in the slots, too"
    );
    let told = seen.gpus[1].instances[2].memory.unwrap();
    assert_eq!(told.total, small.memory_total_mib * MIB);
    assert_eq!(seen.gpus[1].instances[0].memory.unwrap().used, 1024 * MIB);
    let process = |pid: u32, place: Option<(u32, u32)>, kind, mib: Option<u64>| GpuProcess {
        pid: Some(pid).filter(|pid| *pid != 0),
        gi: place.map(|(gi, _)| gi),
        ci: place.map(|(_, ci)| ci),
        kind,
        used_memory_bytes: mib.map(|mib| mib * MIB),
        sm_percent: None,
        memory_percent: None,
    };
    assert_eq!(
        seen.gpus[1].processes,
        Some(vec![process(
            half,
            Some((1, 0)),
            ProcessKind::Compute,
            Some(1024)
        )])
    );
    assert_eq!(
        seen.gpus[2].processes,
        Some(vec![process(whole, None, ProcessKind::Compute, Some(2048))])
    );
    assert_eq!(
        seen.gpus[3].processes,
        Some(vec![
            process(0, None, ProcessKind::Compute, None),
            process(drawing, None, ProcessKind::Mps, None)
        ])
    );
    sampler.shutdown().await;
}

/// Class (i): pid 0 is memory of a process that nobody here can name, and it is kept.
#[tokio::test]
async fn fault_i_a_process_listed_without_a_pid_is_kept_and_marked() {
    let node = Node::new("h100x4");
    let pid = node.run_on("1", None);
    for mib in [100, 200] {
        node.edit(|scenario| {
            scenario.add_process(Process {
                memory_mib: Some(mib),
                phantom: true,
                ..Process::new("1", 0)
            })
        });
    }
    let mut sampler = node.sampler();
    let seen = reading(&mut sampler).await;
    let row = |process: &GpuProcess| (process.pid, process.used_memory_bytes);
    let rows: Vec<_> = seen.gpus[1].processes.iter().flatten().map(row).collect();
    assert_eq!(
        rows,
        [(None, Some(300 * MIB)), (Some(pid), Some(1024 * MIB))]
    );
    assert_eq!(seen.gpus[1].doubts, [Doubt::NamelessProcesses]);
    assert_eq!(seen.gpus[0].doubts, []);
    sampler.shutdown().await;
}

/// The layouts of drivers 535.43 to 535.98 and others: the pids are right and nothing is overwritten.
#[tokio::test]
async fn fault_f_rule_04_process_lists_of_any_row_size() {
    let node = Node::new("h100x4");
    let mut expected: Vec<u32> = (0..9).map(|_| node.run_on("1", None)).collect();
    expected.sort_unstable();
    for bytes in [16, 24, 32] {
        node.edit(|scenario| {
            scenario.process_element_bytes = bytes;
            Ok(())
        });
        let mut sampler = node.sampler();
        for _ in 0..2 {
            let seen = reading(&mut sampler).await;
            assert_eq!(pids(&seen.gpus[1]), expected, "{bytes} bytes");
            assert_eq!(
                seen.gpus[1].processes.as_ref().unwrap()[0].used_memory_bytes,
                Some(1024 * MIB)
            );
        }
        assert_eq!(sampler.stats().workers_restarted, 0);
        sampler.shutdown().await;
    }
}

/// More processes than the first guess of the buffer.
#[tokio::test]
async fn fault_g_many_processes_on_one_gpu() {
    let node = Node::new("t4x1");
    node.edit(|scenario| {
        for pid in 4_000_000..4_000_300 {
            scenario.add_process(Process {
                phantom: true,
                start_time: None,
                ..Process::new("0", pid)
            })?;
        }
        Ok(())
    });
    let mut sampler = node.sampler();
    assert_eq!(pids(&reading(&mut sampler).await.gpus[0]).len(), 300);
    sampler.shutdown().await;
}

#[tokio::test]
async fn fault_h_rule_09_instances_that_are_cut_anew_are_seen_at_once() {
    let node = Node::new("a100-mig");
    let mut sampler = node.sampler();
    let mut seen = reading(&mut sampler).await;
    assert!(seen.gpus[3].instances.is_empty());
    let profiles = |gpu: &gpuquota_agent::gpu::reading::GpuReading| -> Vec<String> {
        gpu.instances
            .iter()
            .filter_map(|instance| instance.profile.clone())
            .collect()
    };
    // Cut while in use otherwise, cut for the first time, and no longer cut.
    node.edit(|scenario| {
        scenario.slice("1", &["2g.20gb", "1g.10gb", "1g.10gb"])?;
        scenario.slice("3", &["7g.80gb"])?;
        scenario.slice("0", &[])
    });
    seen = reading(&mut sampler).await;
    assert_eq!(profiles(&seen.gpus[1]), ["2g.20gb", "1g.10gb", "1g.10gb"]);
    assert_eq!(profiles(&seen.gpus[3]), ["7g.80gb"]);
    assert_eq!(
        (seen.gpus[0].mig_enabled, seen.gpus[0].instances.len()),
        (Some(false), 0)
    );
    // An instance more on a GPU that is in MIG mode already: its first process gives it away.
    let place = node.edit(|scenario| {
        let mut more = scenario.gpus[1].mig[2].clone();
        (more.gi, more.uuid, more.slot) = (13, "MIG-more".to_owned(), Some(6));
        scenario.gpus[1].mig.push(more);
        Ok((13, 0))
    });
    let pid = node.run_on("1", Some(place));
    seen = reading(&mut sampler).await;
    assert_eq!(
        seen.gpus[1].instances.last().map(|instance| instance.gi),
        Some(13)
    );
    assert_eq!(pids(&seen.gpus[1]), [pid]);
    assert_eq!(sampler.stats().workers_restarted, 0);
    sampler.shutdown().await;
}

/// The same UUID is not the same instance: one that is made anew in the same place may be another profile of the same size.
#[tokio::test]
async fn fault_h_a_profile_that_changes_under_the_same_uuid_is_noticed() {
    let node = Node::new("a100-mig");
    let mut sampler = node.sampler();
    let before = reading(&mut sampler).await.gpus[1].instances[0].clone();
    assert_eq!(before.profile.as_deref(), Some("3g.40gb"));
    node.edit(|scenario| {
        scenario.gpus[1].mig[0].profile = "4g.40gb".to_owned();
        Ok(())
    });
    let profile = |collected: &Collected| {
        let reading = collected.reading.as_ref()?;
        reading.gpus[1].instances[0].profile.clone()
    };
    sample_until(&mut sampler, |collected| {
        profile(collected).as_deref() == Some("4g.40gb")
    })
    .await;
    sampler.shutdown().await;
}

/// Without privileges a GPU in MIG mode does not tell; what is on its instances is known, and without any it is nothing.
#[tokio::test]
async fn fault_n_rule_05_processes_of_instances_without_the_right_to_ask_their_gpu() {
    let node = Node::new("a100-mig");
    let held = node.run_on("1", Some((1, 0)));
    let shared = node.workload();
    node.edit(|scenario| {
        scenario.gpus[0].mig_mode = Some(true);
        scenario.gpus[0].mig.clear();
        let (gi, ci) = (scenario.gpus[1].mig[1].gi, scenario.gpus[1].mig[1].ci);
        scenario.add_process(Process {
            kind: Kind::Mps,
            gi: Some(gi),
            ci: Some(ci),
            ..Process::new("1", shared)
        })
    });
    // The first call of each list on each of the two is the one about the GPU itself.
    for gpu in ["0", "1"] {
        let fault = Fault {
            gpu: Some(gpu.to_owned()),
            code: Some(4),
            times: 1,
            ..Fault::new("nvmlDeviceGetComputeRunningProcesses_v3", Action::Return)
        };
        node.edit(|scenario| scenario.add_fault(fault));
    }
    let mut sampler = node.sampler();
    let seen = reading(&mut sampler).await;
    let mut on = pids(&seen.gpus[1]);
    on.sort_unstable();
    let mut expected = [held, shared];
    expected.sort_unstable();
    assert_eq!(on, expected);
    assert_eq!(seen.gpus[0].processes, Some(Vec::new()));
    sampler.shutdown().await;
}

/// Budget: at most 1.3 times the calls that the figures of a pass need.
#[tokio::test]
async fn rule_19_calls_stay_within_the_budget() {
    for name in ["h100x8", "a100-mig", "a100x8", "l40s-vgpu"] {
        let node = Node::new(name);
        if name == "a100x8" {
            let layout = ["1g.10gb"; 7];
            node.edit(|scenario| {
                (0..8).try_for_each(|at| scenario.slice(&at.to_string(), &layout))
            });
        }
        for gpu in ["6", "7"].iter().filter(|_| name == "h100x8") {
            node.run_on(gpu, None);
        }
        let mut sampler = node.sampler();
        let first = reading(&mut sampler).await;
        reading(&mut sampler).await;
        let before = sampler.stats().nvml_calls;
        // As many as it takes until everything that changes rarely is asked once more.
        const PASSES: u64 = 60;
        for _ in 0..PASSES {
            reading(&mut sampler).await;
        }
        let made = sampler.stats().nvml_calls - before;
        // Memory, power, temperature and three process lists; utilisation outside MIG, memory of each GPU instance in it;
        // on a host the list of vGPUs and what they do, and of each which it is, its VM, memory and licence.
        let of_gpu = |gpu: &gpuquota_agent::gpu::reading::GpuReading| {
            let own = if gpu.mig_enabled == Some(true) {
                gpu.instances.len()
            } else {
                1
            };
            // Utilisation of processes where there are some.
            let busy = usize::from(!pids(gpu).is_empty());
            let virtual_gpus = gpu.vgpus.as_ref().map_or(0, |vgpus| {
                1 + usize::from(!vgpus.is_empty()) + 4 * vgpus.len()
            });
            6 + u64::try_from(own + busy + virtual_gpus).unwrap()
        };
        let needed = PASSES * (1 + first.gpus.iter().map(of_gpu).sum::<u64>());
        assert!(
            made * 10 <= needed * 13,
            "{name}: {made} calls made, {needed} needed"
        );
        assert!(made >= needed, "{name}: {made} calls made, {needed} needed");
        sampler.shutdown().await;
    }
}
