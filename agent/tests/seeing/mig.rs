//! MIG in depth: profiles by what the GPU instance is, several compute instances on one, and the epoch of a layout.

use gpuquota_agent::gpu::reading::{Doubt, GpuReading, Placement};
use std::time::Duration;

use gpuquota_fake_nvml::scenario::{Action, Fault, Process, Scenario};

use crate::node::{Node, pids, reading, sample_until};

fn profiles(gpu: &GpuReading) -> Vec<&str> {
    gpu.instances
        .iter()
        .map(|instance| instance.profile.as_deref().unwrap_or("?"))
        .collect()
}

/// Every spelling, on instances whose own names do not tell, with and without the right to ask about GPU instances.
#[tokio::test]
async fn profiles_in_every_spelling_with_and_without_privileges() {
    let node = Node::new("a100-mig");
    let layout = ["1c.3g.40gb", "2c.3g.40gb", "1g.10gb+me", "1g.20gb"];
    let own = ["1g.24gb+me.all", "4g.96gb+gfx", "2g.48gb-me"];
    node.edit(|scenario| {
        scenario.slice("0", &layout)?;
        scenario.slice("1", &["1g.10gb", "1g.10gb", "1g.10gb"])?;
        for (mig, profile) in scenario.gpus[1].mig.iter_mut().zip(own) {
            mig.profile = profile.to_owned();
        }
        Ok(())
    });
    let mut sampler = node.sampler();
    let seen = reading(&mut sampler).await;
    assert_eq!(profiles(&seen.gpus[0]), layout);
    assert_eq!(profiles(&seen.gpus[1]), own);
    let place = |at: usize| seen.gpus[0].instances[at].placement.unwrap();
    let places = [0, 1, 2, 3].map(|at| (place(at).start, place(at).size));
    assert_eq!(places, [(4, 4), (4, 4), (0, 1), (2, 2)]);
    sampler.shutdown().await;

    // A driver whose devices are called as their GPU: the GPU instance tells, and the sizes how much of it.
    node.answer("nvmlDeviceGetName", None, 3);
    let mut sampler = node.sampler();
    let seen = reading(&mut sampler).await;
    assert_eq!(profiles(&seen.gpus[0]), layout);
    assert_eq!(profiles(&seen.gpus[1]), own);
    sampler.shutdown().await;

    // Class (n): we may not ask. The sizes alone do not know what `+me` is.
    node.answer("nvmlDeviceGetGpuInstanceById", None, 4);
    let mut sampler = node.sampler();
    let seen = reading(&mut sampler).await;
    let sized = ["1c.3g.40gb", "2c.3g.40gb", "1g.10gb", "1g.20gb"];
    assert_eq!(profiles(&seen.gpus[0]), sized);
    assert_eq!(seen.gpus[0].instances[0].placement, None);
    assert_eq!(sampler.stats().last_return_code, 0);
    sampler.shutdown().await;
    node.edit(|scenario| Ok(scenario.clear_faults(Some("nvmlDeviceGetName"))));
    let mut sampler = node.sampler();
    let seen = reading(&mut sampler).await;
    assert_eq!(profiles(&seen.gpus[0]), layout, "by their names");
    sampler.shutdown().await;
}

/// A second compute instance is a device of its own; a GPU-instance-wide key would overwrite the first.
#[tokio::test]
async fn compute_instances_of_one_gpu_instance_have_their_own_processes() {
    let node = Node::new("a100-mig");
    node.edit(|scenario| scenario.slice("3", &["1c.2g.20gb", "1c.2g.20gb"]));
    let gi = 3;
    let (first, second) = (node.run_on("3", Some((gi, 0))), node.workload());
    node.edit(|scenario: &mut Scenario| {
        scenario.add_process(Process {
            gi: Some(gi),
            ci: Some(1),
            memory_mib: Some(1024),
            ..Process::new("3", second)
        })
    });
    let mut sampler = node.sampler();
    let gpu = reading(&mut sampler).await.gpus[3].clone();
    let on = |ci: u32| {
        let processes = gpu.processes.iter().flatten();
        processes
            .filter(move |process| process.ci == Some(ci))
            .filter_map(|process| process.pid)
    };
    assert_eq!(on(0).chain(on(1)).collect::<Vec<_>>(), [first, second]);
    // Rule 11: the framebuffer is the GPU instance's, and both show it.
    let memory = |at: usize| gpu.instances[at].memory.unwrap();
    assert_eq!(memory(0), memory(1));
    assert_eq!(memory(0).used, 2 << 30);
    assert_eq!(pids(&gpu).len(), 2);
    sampler.shutdown().await;
}

/// Rule 9: whatever changes about a layout begins a new epoch, also where the UUIDs stay; nothing else does.
#[tokio::test]
async fn rule_09_a_new_layout_under_the_same_uuids_is_a_new_generation() {
    let node = Node::new("a100-mig");
    let mut sampler = node.sampler();
    let generations = |gpus: &[GpuReading]| {
        let generation = |gpu: &GpuReading| gpu.mig_generation;
        gpus.iter().map(generation).collect::<Vec<_>>()
    };
    for _ in 0..25 {
        let seen = reading(&mut sampler).await;
        assert_eq!(generations(&seen.gpus), [0; 4], "nothing changed");
    }
    type Change = fn(&mut Scenario);
    let changes: [Change; 4] = [
        |scenario| scenario.gpus[1].mig[1].placement = Some([6, 2]),
        |scenario| scenario.gpus[1].mig[2].profile = "1g.10gb+me".to_owned(),
        |scenario| drop(scenario.gpus[1].mig.remove(2)),
        |scenario| {
            scenario.gpus[1].mig_mode = Some(false);
            scenario.gpus[1].mig.clear();
        },
    ];
    for (done, change) in (1..).zip(changes) {
        node.edit(|scenario| {
            change(scenario);
            Ok(())
        });
        let seen = sample_until(&mut sampler, |collected| {
            let reading = collected.reading.as_ref();
            reading.is_some_and(|seen| generations(&seen.gpus) == [0, done, 0, 0])
        });
        let seen = seen.await.reading.unwrap();
        match done {
            1 => assert_eq!(
                seen.gpus[1].instances[1].placement,
                Some(Placement { start: 6, size: 2 })
            ),
            2 => assert_eq!(
                profiles(&seen.gpus[1]),
                ["3g.40gb", "2g.20gb", "1g.10gb+me"]
            ),
            _ => {}
        }
    }
    // A lost GPU and a new worker are no new layout.
    node.edit(|scenario| scenario.set_lost("0", true));
    reading(&mut sampler).await;
    node.edit(|scenario| scenario.set_lost("0", false));
    let worker = sampler.worker_pid().and_then(|pid| i32::try_from(pid).ok());
    let worker = worker.and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(worker, rustix::process::Signal::KILL).unwrap();
    let seen = reading(&mut sampler).await;
    assert_eq!(generations(&seen.gpus), [0, 4, 0, 0]);
    sampler.shutdown().await;
}

/// The layout changes after the process list was read and before the instances are: ids are given again, and who stood on the old
/// instance is not on the new one.
#[tokio::test]
async fn fault_h_rule_09_a_list_and_its_instances_are_of_one_epoch() {
    let node = Node::new("a100-mig");
    node.edit(|scenario| scenario.slice("0", &["3g.40gb"]));
    let old = node.run_on("0", Some((1, 0)));
    let mut sampler = node.sampler();
    let before = reading(&mut sampler).await;
    assert_eq!(pids(&before.gpus[0]), [old]);
    let gi = before.gpus[0].instances[0].gi;
    node.edit(|scenario| {
        scenario.add_fault(Fault {
            ms: Some(200),
            times: 1,
            ..Fault::new("nvmlDeviceGetMPSComputeRunningProcesses_v3", Action::Delay)
        })
    });
    let (during, ()) = tokio::join!(reading(&mut sampler), async {
        // The compute list is read by now, and the next one is waited for.
        tokio::time::sleep(Duration::from_millis(100)).await;
        node.edit(|scenario| scenario.slice("0", &["1g.10gb"; 7]));
    });
    for seen in [during, reading(&mut sampler).await] {
        let gpu = &seen.gpus[0];
        match profiles(gpu)[..] {
            ["3g.40gb"] => assert_eq!(pids(gpu), [old], "all of before"),
            _ => assert_eq!((gpu.instances.len(), pids(gpu)), (7, Vec::new())),
        }
    }
    assert!(gi > 0);
    sampler.shutdown().await;
}

/// A worker that begins while a GPU does not say how it is cut: it is not taken for a whole one.
#[tokio::test]
async fn fault_h_a_gpu_that_does_not_say_how_it_is_cut_is_not_taken_for_a_whole_one() {
    for call in ["nvmlDeviceGetMigMode", "nvmlDeviceGetVirtualizationMode"] {
        let node = Node::new("a100-mig");
        let held = node.run_on("1", Some((1, 0)));
        node.answer(call, Some("1"), 999);
        let mut sampler = node.sampler();
        for _ in 0..3 {
            let seen = reading(&mut sampler).await;
            assert_eq!(seen.gpus[1].doubts, [Doubt::Instances], "{call}");
            assert!(seen.gpus[2].doubts.is_empty(), "{call}");
        }
        node.heal();
        let mut passes = 0..15;
        let seen = loop {
            let seen = reading(&mut sampler).await;
            if seen.gpus[1].doubts.is_empty() {
                break seen;
            }
            assert!(passes.next().is_some(), "{call}: it is asked again");
        };
        assert!(!seen.gpus[1].instances.is_empty(), "{call}");
        assert_eq!(pids(&seen.gpus[1]), [held], "{call}");
        sampler.shutdown().await;
    }
}
