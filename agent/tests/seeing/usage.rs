//! How busy processes keep GPUs: what the driver samples, what GPM measures of instances, and what nobody knows.

use gpuquota_agent::gpu::reading::{Doubt, GpuReading};
use gpuquota_fake_nvml::scenario::{Action, Architecture, Process, Scenario, Virtualization};

use crate::node::{Node, reading, sample_until};

/// A process that keeps so many percent of a GPU, or of an instance of it, busy.
fn busy(node: &Node, gpu: &str, gi: Option<u32>, percent: u32) -> u32 {
    let pid = node.workload();
    let process = Process {
        gi,
        sm_percent: Some(percent),
        memory_mib: Some(1024),
        ..Process::new(gpu, pid)
    };
    node.edit(|scenario| scenario.add_process(process));
    pid
}

fn sm(gpu: &GpuReading, pid: u32) -> Option<u32> {
    let mut processes = gpu.processes.iter().flatten();
    processes
        .find(|process| process.pid == Some(pid))?
        .sm_percent
}

fn set(node: &Node, change: impl Fn(&mut Process)) {
    node.edit(|scenario: &mut Scenario| {
        scenario.processes.iter_mut().for_each(&change);
        Ok(())
    });
}

/// Class (j): stale samples, four-digit percents, and a driver that found none. No figure is ever 0 for want of one.
#[tokio::test]
async fn fault_j_processes_have_the_newest_good_sample_or_none() {
    let node = Node::new("h100x4");
    let (first, second) = (busy(&node, "1", None, 40), busy(&node, "1", None, 25));
    let idle = node.run_on("1", None);
    let mut sampler = node.sampler();
    let seen = reading(&mut sampler).await;
    let of = |gpu: &GpuReading| [first, second, idle].map(|pid| sm(gpu, pid));
    assert_eq!(of(&seen.gpus[1]), [Some(40), Some(25), None]);
    assert_eq!(sampler.stats().last_return_code, 0, "not found is no fault");
    sampler.shutdown().await;

    let told = async |node: &Node| {
        let mut sampler = node.sampler();
        let seen = of(&reading(&mut sampler).await.gpus[1]);
        assert_eq!(sampler.stats().last_return_code, 0);
        sampler.shutdown().await;
        seen
    };
    set(&node, |process| {
        if process.pid == first {
            process.sm_percent = Some(4321);
        }
    });
    assert_eq!(told(&node).await, [None, Some(25), None]);
    set(&node, |process| process.sample_age_ms = 60_000);
    assert_eq!(told(&node).await, [None; 3], "long ago");
    set(&node, |process| {
        (process.sm_percent, process.sample_age_ms) = (process.sm_percent.map(|_| 7), 0);
    });
    node.answer("nvmlDeviceGetProcessUtilization", None, 6);
    assert_eq!(told(&node).await, [None; 3], "not found");
    node.heal();
    // More rows than the buffer has room for at first.
    node.edit(|scenario| {
        for pid in 4_000_000..4_000_200 {
            scenario.add_process(Process {
                phantom: true,
                start_time: None,
                sm_percent: Some(1),
                ..Process::new("1", pid)
            })?;
        }
        Ok(())
    });
    assert_eq!(told(&node).await, [Some(7), Some(7), None]);
}

/// Asking costs a call, so an idle GPU and one that has no samples are not asked.
#[tokio::test]
async fn idle_gpus_are_not_asked_how_busy_their_processes_are() {
    let node = Node::new("h100x4");
    for function in ["nvmlDeviceGetProcessUtilization", "nvmlGpmMigSampleGet"] {
        node.fault(function, None, Action::Crash);
    }
    let mut sampler = node.sampler();
    reading(&mut sampler).await;
    node.edit(|scenario| scenario.slice("0", &["1g.10gb"]));
    reading(&mut sampler).await;
    assert_eq!(sampler.stats().workers_restarted, 0);
    sampler.shutdown().await;
    node.heal();
    node.answer("nvmlDeviceGetProcessUtilization", None, 3);
    let pid = busy(&node, "2", None, 40);
    let mut sampler = node.sampler();
    reading(&mut sampler).await;
    node.heal();
    let seen = reading(&mut sampler).await;
    assert_eq!(sm(&seen.gpus[2], pid), None, "left out for a while");
    sampler.shutdown().await;
}

/// Class (k): GPM tells of GPU instances from the second sample on, nothing across a new layout, nothing above 100 %.
#[tokio::test]
async fn fault_k_gpm_measures_instances_between_samples_of_one_epoch() {
    let node = Node::new("h100x4");
    node.edit(|scenario| scenario.slice("0", &["3g.40gb", "1g.10gb"]));
    let pid = busy(&node, "0", Some(1), 60);
    busy(&node, "0", Some(7), 250);
    let mut sampler = node.sampler();
    let of = |gpu: &GpuReading| {
        gpu.instances
            .iter()
            .map(|i| i.sm_percent)
            .collect::<Vec<_>>()
    };
    let first = reading(&mut sampler).await;
    assert_eq!(of(&first.gpus[0]), [None, None], "one sample is none");
    assert_eq!(
        sm(&first.gpus[0], pid),
        None,
        "by process there is nothing on MIG"
    );
    let measured = sample_until(&mut sampler, |collected| {
        let reading = collected.reading.as_ref();
        reading.is_some_and(|seen| of(&seen.gpus[0])[0].is_some())
    });
    let measured = measured.await.reading.unwrap();
    assert_eq!(of(&measured.gpus[0]), [Some(60), None]);

    // The same ids and UUIDs, another profile of another size: the fake answers 99 % across that.
    node.edit(|scenario| {
        let mig = &mut scenario.gpus[0].mig[0];
        (mig.profile, mig.placement) = ("2g.20gb".to_owned(), Some([0, 2]));
        mig.memory_total_mib = 20_096;
        Ok(())
    });
    let recut = reading(&mut sampler).await;
    assert_eq!(recut.gpus[0].mig_generation, 1);
    assert_eq!(
        of(&recut.gpus[0])[0],
        None,
        "a new epoch begins with one sample"
    );
    let after = sample_until(&mut sampler, |collected| {
        let reading = collected.reading.as_ref();
        reading.is_some_and(|seen| of(&seen.gpus[0])[0].is_some())
    });
    assert_eq!(of(&after.await.reading.unwrap().gpus[0])[0], Some(60));
    assert_eq!(sampler.stats().last_return_code, 0);
    sampler.shutdown().await;
}

/// One look is two samples where there are instances: what each does lies between them.
#[test]
fn devices_tells_how_busy_an_instance_is() {
    let node = Node::new("h100x4");
    node.edit(|scenario| scenario.slice("0", &["3g.40gb", "1g.10gb"]));
    let pid = busy(&node, "0", Some(1), 60);
    let (code, text) = crate::program::devices(&node, &["--json"]);
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    let devices = told["devices"].as_array().unwrap();
    let holds = |device: &&serde_json::Value| {
        let processes = device["processes"].as_array();
        processes.is_some_and(|all| all.iter().any(|process| process["pid"] == pid))
    };
    let held = devices.iter().find(holds).expect("its instance");
    let percent = held["utilization_percent"].as_u64();
    assert_eq!((code, percent), (Some(0), Some(60)), "{held}");
}

/// Rule 10: on Ampere MIG there is no utilisation at all, and none is not 0.
#[tokio::test]
async fn rule_10_without_gpm_an_instance_says_unknown() {
    let node = Node::new("a100-mig");
    let pid = busy(&node, "1", Some(1), 60);
    let mut sampler = node.sampler();
    for _ in 0..3 {
        let seen = reading(&mut sampler).await;
        assert_eq!(sm(&seen.gpus[1], pid), None);
        assert!(
            seen.gpus[1]
                .instances
                .iter()
                .all(|instance| instance.sm_percent.is_none())
        );
    }
    assert_eq!(sampler.stats().last_return_code, 0);
    sampler.shutdown().await;
    // A driver that has the calls and refuses them.
    node.edit(|scenario| {
        scenario.gpus[1].architecture = Some(Architecture::Hopper);
        Ok(())
    });
    node.answer("nvmlGpmMigSampleGet", None, 3);
    let mut sampler = node.sampler();
    for _ in 0..3 {
        let seen = reading(&mut sampler).await;
        assert!(
            seen.gpus[1]
                .instances
                .iter()
                .all(|instance| instance.sm_percent.is_none())
        );
    }
    sampler.shutdown().await;
}

/// Rows that dcgm-exporter has by default: the NVLink counter, and in a guest whether it has its licence. Nothing where there is none.
#[tokio::test]
async fn rule_20_nvlink_counters_and_a_guests_licence_are_the_drivers() {
    let node = Node::new("h100x4");
    node.edit(|scenario| {
        scenario.gpus[0].nvlink_bandwidth = Some(123_456);
        // A host has no licence of its own, whatever the call says.
        scenario.gpus[0].guest_licensed = Some(true);
        for (gpu, licensed) in [(1, Some(true)), (2, Some(false)), (3, None)] {
            scenario.gpus[gpu].virtualization = Virtualization::Vgpu;
            scenario.gpus[gpu].guest_licensed = licensed;
        }
        Ok(())
    });
    let mut sampler = node.sampler();
    sampler.want_more(true);
    let seen = reading(&mut sampler).await;
    let told = |gpu: &GpuReading| {
        let gauges = gpu.gauges.unwrap();
        (gauges.nvlink_bandwidth, gauges.guest_licensed)
    };
    let expected = [
        (Some(123_456), None),
        (None, Some(true)),
        (None, Some(false)),
        (None, None),
    ];
    assert_eq!(seen.gpus.iter().map(told).collect::<Vec<_>>(), expected);
    assert_eq!(sampler.stats().last_return_code, 0);
    sampler.shutdown().await;
}

/// Rule 7: a driver whose samples name a process by another pid than its list (HAMi-core#112) is not believed about that GPU, until
/// the two agree. What ends or begins between the two answers raises no doubt.
#[tokio::test]
async fn fault_i_rule_07_a_list_and_samples_that_name_different_pids_are_a_doubt() {
    let node = Node::new("h100x4");
    let (wrong, other) = (busy(&node, "1", None, 40), node.workload());
    let (first, right) = (busy(&node, "2", None, 30), busy(&node, "2", None, 20));
    // Whom the samples name can be an MPS client where the driver lists none.
    let unproven = busy(&node, "3", None, 10);
    let list = "nvmlDeviceGetMPSComputeRunningProcesses_v3";
    node.answer(list, Some("3"), 3);
    let called = |pid: Option<u32>| {
        set(&node, |process| {
            if [wrong, unproven].contains(&process.pid) {
                process.sample_pid = pid;
            }
        });
    };
    called(Some(other));
    let mut sampler = node.sampler();
    let seen = reading(&mut sampler).await;
    assert_eq!(seen.gpus[1].doubts, [], "one sample proves nothing");
    node.kill(first);
    let doubted = sample_until(&mut sampler, |collected| {
        let reading = collected.reading.as_ref();
        reading.is_some_and(|seen| seen.gpus[1].doubts == [Doubt::Pids])
    });
    let doubted = doubted.await.reading.unwrap();
    assert!(doubted.gpus[1].processes.is_some());
    for good in [0, 2, 3] {
        assert_eq!(doubted.gpus[good].doubts, [], "GPU {good}");
    }
    assert_eq!(crate::node::pids(&doubted.gpus[2]), [right]);
    called(None);
    let agreed = sample_until(&mut sampler, |collected| {
        let reading = collected.reading.as_ref();
        reading.is_some_and(|seen| {
            seen.gpus[1].doubts.is_empty() && sm(&seen.gpus[1], wrong) == Some(40)
        })
    });
    assert_eq!(
        crate::node::pids(&agreed.await.reading.unwrap().gpus[1]),
        [wrong]
    );
    sampler.shutdown().await;
}
