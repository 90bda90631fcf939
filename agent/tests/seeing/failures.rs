//! Everything that goes wrong below the agent: it lives, says so, and what still works goes on.

use gpuquota_agent::gpu::reading::{Doubt, Health, NvmlState};
use gpuquota_agent::gpu::sampler::Collected;
use gpuquota_fake_nvml::scenario::{Action, Fault};
use rustix::process::{Signal, kill_process, test_kill_process};

use crate::node::{Node, healths, pid, pids, reading, sample_until, timely};

fn state_of(collected: &Collected, gpu: usize) -> Option<Health> {
    collected
        .reading
        .as_ref()?
        .gpus
        .get(gpu)
        .map(|gpu| gpu.health)
}

#[tokio::test]
async fn fault_o_rule_01_a_killed_worker_is_replaced_within_the_sample() {
    let node = Node::new("h100x4");
    let held = node.run_on("2", None);
    let mut sampler = node.sampler();
    reading(&mut sampler).await;
    for kills in 1..=3 {
        let worker = sampler.worker_pid().unwrap();
        kill_process(pid(worker), Signal::KILL).unwrap();
        let seen = reading(&mut sampler).await;
        assert_eq!(pids(&seen.gpus[2]), [held]);
        assert_ne!(sampler.worker_pid(), Some(worker));
        assert_eq!(sampler.stats().workers_restarted, kills);
    }
    sampler.shutdown().await;
}

/// Case 72: a call that hangs on one GPU takes neither the agent nor the other GPUs along.
#[tokio::test]
async fn fault_a_rule_02_a_gpu_that_hangs_is_quarantined_and_comes_back() {
    let node = Node::new("h100x4");
    let (stuck, free) = (node.run_on("1", None), node.run_on("3", None));
    // A worker that does not listen to SIGTERM, as one inside the driver.
    let mut sampler = node.sampler_with("trap '' TERM");
    let before = reading(&mut sampler).await;
    assert_eq!(pids(&before.gpus[1]), [stuck]);
    let first_worker = sampler.worker_pid().unwrap();

    node.fault("*", Some("1"), Action::Hang);
    let collected = timely(&mut sampler).await;
    assert_eq!(collected.nvml, NvmlState::Ok);
    let seen = collected.reading.unwrap();
    assert_eq!(
        healths(&seen),
        [Health::Ok, Health::Hung, Health::Ok, Health::Ok]
    );
    assert_eq!(pids(&seen.gpus[3]), [free]);
    let hung = &seen.gpus[1];
    assert_eq!(
        (&hung.uuid, &hung.name, hung.minor),
        (
            &before.gpus[1].uuid,
            &before.gpus[1].name,
            before.gpus[1].minor
        )
    );
    assert_eq!(
        (hung.memory, &hung.processes),
        (None, &None),
        "unknown, not nothing"
    );
    assert_eq!(sampler.stats().quarantined, 1);

    // The others go on at full speed while probes hang in turn.
    for _ in 0..20 {
        let seen = reading(&mut sampler).await;
        assert_eq!(
            healths(&seen),
            [Health::Ok, Health::Hung, Health::Ok, Health::Ok]
        );
    }
    assert_eq!(sampler.stats().workers_restarted, 1);
    sample_until(&mut sampler, |_| {
        test_kill_process(pid(first_worker)).is_err()
    })
    .await;

    node.heal();
    let back = sample_until(&mut sampler, |collected| {
        state_of(collected, 1) == Some(Health::Ok)
    })
    .await;
    assert_eq!(pids(&back.reading.unwrap().gpus[1]), [stuck]);
    assert_eq!(
        (
            sampler.stats().quarantined,
            sampler.stats().workers_abandoned
        ),
        (0, 0)
    );
    sampler.shutdown().await;
}

/// The agent starts beside a GPU that hangs when it is looked up, before it has told its name.
#[tokio::test]
async fn fault_a_a_gpu_that_hangs_from_the_start_does_not_hide_the_others() {
    let node = Node::new("h100x4");
    node.fault("*", Some("2"), Action::Hang);
    let mut sampler = node.sampler();
    let seen = sample_until(&mut sampler, |collected| collected.nvml == NvmlState::Ok).await;
    assert_eq!(seen.reading.unwrap().gpus.len(), 3);
    assert_eq!(
        (sampler.stats().quarantined, sampler.stats().unidentified),
        (1, 1)
    );
    node.heal();
    let all = sample_until(&mut sampler, |collected| state_of(collected, 3).is_some()).await;
    assert_eq!(healths(&all.reading.unwrap()), [Health::Ok; 4]);
    sampler.shutdown().await;
}

#[tokio::test]
async fn fault_a_nvml_that_hangs_as_a_whole_or_at_its_start_is_unresponsive_until_it_answers() {
    let node = Node::new("h100x4");
    let mut sampler = node.sampler();
    reading(&mut sampler).await;
    for function in ["nvmlDeviceGetCount_v2", "nvmlInit_v2"] {
        node.fault(function, None, Action::Hang);
        // The running worker does not initialise again.
        if let Some(worker) = sampler.worker_pid() {
            let _ = kill_process(pid(worker), Signal::KILL);
        }
        let collected = timely(&mut sampler).await;
        assert!(
            matches!(&collected, Collected { nvml: NvmlState::Unresponsive(detail), reading: None, .. } if detail.contains(function)),
            "{collected:?}"
        );
        assert_eq!(sampler.stats().quarantined, 0);
        node.heal();
        sample_until(&mut sampler, |collected| collected.nvml == NvmlState::Ok).await;
    }
    sampler.shutdown().await;
}

/// Not even the watchdog of the worker can speak.
#[tokio::test]
async fn fault_a_a_worker_that_stands_still_is_given_up() {
    let node = Node::new("h100x4");
    let mut sampler = node.sampler();
    reading(&mut sampler).await;
    let worker = sampler.worker_pid().unwrap();
    kill_process(pid(worker), Signal::STOP).unwrap();
    assert!(matches!(
        timely(&mut sampler).await.nvml,
        NvmlState::Unresponsive(_)
    ));
    sample_until(&mut sampler, |collected| collected.nvml == NvmlState::Ok).await;
    sample_until(&mut sampler, |_| test_kill_process(pid(worker)).is_err()).await;
    sampler.shutdown().await;
}

/// Case 72: off the bus by code 15, by a lookup that fails, or by no longer being counted.
#[tokio::test]
async fn fault_b_rule_06_a_lost_gpu_is_one_lost_row() {
    let node = Node::new("h100x4");
    let free = node.run_on("3", None);
    let mut sampler = node.sampler();
    let before = reading(&mut sampler).await;
    let expected = [Health::Ok, Health::Lost, Health::Ok, Health::Ok];

    node.edit(|scenario| scenario.set_lost("1", true));
    for _ in 0..25 {
        let seen = reading(&mut sampler).await;
        assert_eq!(healths(&seen), expected);
        assert_eq!(
            (&seen.gpus[1].uuid, &seen.gpus[1].name),
            (&before.gpus[1].uuid, &before.gpus[1].name)
        );
        assert_eq!(seen.gpus[1].processes, None);
        assert_eq!(pids(&seen.gpus[3]), [free]);
    }
    assert_eq!(sampler.stats().last_return_code, 15);
    node.edit(|scenario| scenario.set_lost("1", false));
    sample_until(&mut sampler, |collected| {
        state_of(collected, 1) == Some(Health::Ok)
    })
    .await;

    node.edit(|scenario| scenario.remove_gpu("1"));
    for _ in 0..25 {
        let seen = reading(&mut sampler).await;
        let lost: Vec<_> = seen
            .gpus
            .iter()
            .filter(|gpu| gpu.health == Health::Lost)
            .map(|gpu| &gpu.uuid)
            .collect();
        assert_eq!((seen.gpus.len(), lost), (4, vec![&before.gpus[1].uuid]));
        let last = seen
            .gpus
            .iter()
            .find(|gpu| gpu.uuid == before.gpus[3].uuid)
            .unwrap();
        assert_eq!(pids(last), [free], "whatever its index is now");
    }
    sampler.shutdown().await;
}

#[tokio::test]
async fn fault_b_a_gpu_lost_before_the_start_is_counted() {
    let node = Node::new("h100x4");
    node.edit(|scenario| scenario.set_lost("0", true));
    let mut sampler = node.sampler();
    assert_eq!(reading(&mut sampler).await.gpus.len(), 3);
    assert_eq!(sampler.stats().unidentified, 1);
    let unnamed: Vec<_> = sampler.unnamed().iter().map(|gpu| gpu.health).collect();
    assert_eq!(unnamed, [Health::Lost]);
    node.edit(|scenario| scenario.set_lost("0", false));
    sample_until(&mut sampler, |collected| {
        state_of(collected, 3) == Some(Health::Ok)
    })
    .await;
    assert_eq!(sampler.stats().unidentified, 0);
    sampler.shutdown().await;
}

/// A segmentation fault inside the library kills the worker only, and only the GPU that causes it is left out.
#[tokio::test]
async fn fault_o_a_library_that_crashes_on_one_gpu_is_kept_off_it() {
    let node = Node::new("h100x4");
    let free = node.run_on("0", None);
    let mut sampler = node.sampler();
    reading(&mut sampler).await;
    node.fault("nvmlDeviceGetTemperature", Some("2"), Action::Crash);
    let seen = sample_until(&mut sampler, |collected| collected.nvml == NvmlState::Ok)
        .await
        .reading
        .unwrap();
    assert_eq!(
        healths(&seen),
        [Health::Ok, Health::Ok, Health::Hung, Health::Ok]
    );
    assert_eq!(pids(&seen.gpus[0]), [free]);
    node.heal();
    sample_until(&mut sampler, |collected| {
        state_of(collected, 2) == Some(Health::Ok)
    })
    .await;

    node.fault("nvmlDeviceGetCount_v2", None, Action::Crash);
    let collected = sample_until(&mut sampler, |collected| collected.nvml != NvmlState::Ok).await;
    assert!(
        matches!(collected.nvml, NvmlState::Broken(_)),
        "{collected:?}"
    );
    node.heal();
    sample_until(&mut sampler, |collected| collected.nvml == NvmlState::Ok).await;
    sampler.shutdown().await;
}

/// A figure that fails is unknown; the rest of the row, and everything else, is not.
#[tokio::test]
async fn rule_03_a_call_that_fails_makes_one_figure_unknown() {
    let node = Node::new("h100x4");
    let held = node.run_on("0", None);
    let mut sampler = node.sampler();
    reading(&mut sampler).await;
    node.answer("nvmlDeviceGetComputeRunningProcesses_v3", Some("1"), 999);
    node.answer("nvmlDeviceGetPowerUsage", Some("0"), 999);
    let seen = reading(&mut sampler).await;
    assert_eq!(healths(&seen), [Health::Ok; 4]);
    assert_eq!(
        (&seen.gpus[1].processes, seen.gpus[1].memory.is_some()),
        (&None, true)
    );
    assert_eq!(
        (seen.gpus[0].glow.power_milliwatts, pids(&seen.gpus[0])),
        (None, vec![held])
    );
    node.heal();
    let seen = reading(&mut sampler).await;
    assert!(seen.gpus[1].processes.is_some() && seen.gpus[0].glow.power_milliwatts.is_some());
    // A driver too old for the newer calls.
    node.answer("nvmlDeviceGetMemoryInfo_v2", None, 13);
    let memory = reading(&mut sampler).await.gpus[0].memory.unwrap();
    assert_eq!((memory.reserved, memory.used >= 1 << 30), (None, true));
    sampler.shutdown().await;
}

/// A handle of an instance that is no more may answer as if its GPU were gone (28); the GPU is not.
#[tokio::test]
async fn fault_h_an_instance_that_vanishes_does_not_take_its_gpu_along() {
    let node = Node::new("a100-mig");
    let held = node.run_on("1", Some((1, 0)));
    let mut sampler = node.sampler();
    reading(&mut sampler).await;
    let instance = node.edit(|scenario| Ok(scenario.gpus[1].mig[1].uuid.clone()));
    node.answer("nvmlDeviceGetMemoryInfo_v2", Some(&instance), 28);
    for _ in 0..3 {
        let seen = reading(&mut sampler).await;
        assert_eq!(healths(&seen), [Health::Ok; 4]);
        assert_eq!(pids(&seen.gpus[1]), [held]);
        let memory = seen.gpus[1].instances.iter().map(|i| i.memory.is_some());
        assert_eq!(memory.collect::<Vec<_>>(), [true, false, true]);
    }
    sampler.shutdown().await;
}

/// What could not be asked is not gone: no instance leaves the reading, and nobody is said to have left it.
#[tokio::test]
async fn fault_h_a_walk_over_the_instances_that_fails_frees_none_of_them() {
    let node = Node::new("a100-mig");
    let held = node.run_on("1", Some((1, 0)));
    let mut sampler = node.sampler();
    let before = reading(&mut sampler).await.gpus[1].instances.len();
    for call in [
        "nvmlDeviceGetMaxMigDeviceCount",
        "nvmlDeviceGetMigDeviceHandleByIndex",
    ] {
        node.answer(call, Some("1"), 999);
        let mut untold = 0;
        // Long enough for the next look.
        for _ in 0..15 {
            let seen = reading(&mut sampler).await;
            assert_eq!(seen.gpus[1].instances.len(), before, "{call}");
            assert_eq!(pids(&seen.gpus[1]), [held], "{call}");
            untold += usize::from(seen.gpus[1].doubts == [Doubt::Instances]);
            assert!(seen.gpus[2].doubts.is_empty(), "{call}");
        }
        assert!(untold > 0, "{call}");
        node.heal();
        let mut passes = 0..15;
        while !reading(&mut sampler).await.gpus[1].doubts.is_empty() {
            assert!(passes.next().is_some(), "{call}");
        }
    }
    sampler.shutdown().await;
}

/// The list is too long each time that room was made for it: for this pass nobody is known to be there, and nobody is known not
/// to be. The next pass asks again.
#[tokio::test]
async fn fault_g_a_list_that_outgrows_three_rounds_is_unknown_for_that_pass() {
    let node = Node::new("h100x4");
    let held = node.run_on("1", None);
    let mut sampler = node.sampler();
    reading(&mut sampler).await;
    let list = "nvmlDeviceGetComputeRunningProcesses_v3";
    let rounds = |times| {
        node.edit(|scenario| {
            scenario.add_fault(Fault {
                gpu: Some("1".to_owned()),
                code: Some(7),
                times,
                ..Fault::new(list, Action::Return)
            })
        });
    };
    rounds(2);
    assert_eq!(
        pids(&reading(&mut sampler).await.gpus[1]),
        [held],
        "the third fits"
    );
    node.heal();
    reading(&mut sampler).await;
    rounds(3);
    let seen = reading(&mut sampler).await;
    assert_eq!(
        (&seen.gpus[1].processes, seen.gpus[1].health),
        (&None, Health::Ok)
    );
    assert!(seen.gpus[0].processes.is_some());
    assert_eq!(pids(&reading(&mut sampler).await.gpus[1]), [held]);
    sampler.shutdown().await;
}

/// Rule 20: the drill that operators run. Half the node is ill in different ways and the other half is not touched by it.
#[tokio::test]
async fn rule_20_on_the_broken_node_the_healthy_gpus_are_read() {
    let node = Node::new("broken-node");
    let held = node.run_on("7", None);
    let mut sampler = node.sampler();
    let seen = sample_until(&mut sampler, |collected| collected.nvml == NvmlState::Ok)
        .await
        .reading
        .unwrap();
    // Neither the lost one nor the one that hangs ever told its name.
    assert_eq!(healths(&seen), [Health::Ok; 6]);
    assert_eq!(sampler.stats().unidentified, 2);
    let unnamed: Vec<_> = sampler.unnamed().iter().map(|gpu| gpu.health).collect();
    assert_eq!(unnamed, [Health::Hung, Health::Lost]);
    assert_eq!(pids(&seen.gpus[5]), [held]);
    let ill = seen.gpus.iter().find(|gpu| gpu.index == 3).unwrap();
    assert_eq!(
        (ill.glow.temperature_celsius, ill.memory.is_some()),
        (None, true)
    );
    sampler.shutdown().await;
}
