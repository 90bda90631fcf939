//! The driver and its library as a whole: absent, not loaded, not fitting, hung, replaced. Each is a state that is told, and left
//! when it is over.

use std::fs;
use std::time::Duration;

use gpuquota_agent::gpu::reading::{Health, NvmlState};
use gpuquota_fake_nvml::link;
use rustix::process::{Signal, kill_process};

use crate::node::{Node, healths, pid, pids, reading, sample_until, timely};

#[tokio::test]
async fn fault_c_states_of_the_driver_are_told_and_recovered_from() {
    let node = Node::new("h100x4");
    let mut sampler = node.sampler();
    let set = |code| {
        node.edit(|scenario| {
            scenario.init_return = code;
            Ok(())
        });
    };
    type Check = fn(&NvmlState) -> bool;
    let states: [(u32, Check); 3] = [
        (9, |state| matches!(state, NvmlState::DriverNotLoaded(_))),
        (18, |state| matches!(state, NvmlState::Mismatch(_))),
        (999, |state| matches!(state, NvmlState::Broken(_))),
    ];
    for (code, expected) in states {
        set(code);
        if let Some(worker) = sampler.worker_pid() {
            kill_process(pid(worker), Signal::KILL).unwrap();
        }
        let collected = timely(&mut sampler).await;
        assert!(
            expected(&collected.nvml) && collected.reading.is_none(),
            "{collected:?}"
        );
        assert_eq!(sampler.stats().last_return_code, code);
        set(0);
        sample_until(&mut sampler, |collected| collected.nvml == NvmlState::Ok).await;
    }
    // Under a running worker, as an upgrade does it.
    node.answer("*", None, 18);
    let collected = timely(&mut sampler).await;
    assert!(
        matches!(collected.nvml, NvmlState::Mismatch(_)),
        "{collected:?}"
    );
    node.heal();
    sample_until(&mut sampler, |collected| collected.nvml == NvmlState::Ok).await;

    fs::rename(node.library(), node.path().join("aside")).unwrap();
    kill_process(pid(sampler.worker_pid().unwrap()), Signal::KILL).unwrap();
    assert!(matches!(
        timely(&mut sampler).await.nvml,
        NvmlState::Absent(_)
    ));
    fs::write(node.library(), "no library").unwrap();
    sample_until(&mut sampler, |collected| {
        matches!(collected.nvml, NvmlState::Broken(_))
    })
    .await;
    fs::rename(node.path().join("aside"), node.library()).unwrap();
    sample_until(&mut sampler, |collected| collected.nvml == NvmlState::Ok).await;
    sampler.shutdown().await;
}

/// The library is replaced under a running worker, by one that does not fit the driver yet and then by one that does. No
/// reading is missed: the loaded one goes on until the new one has proved itself.
#[tokio::test]
async fn fault_d_rule_14_a_library_that_is_replaced_is_taken_over_without_a_gap() {
    let node = Node::new("h100x4");
    let held = node.run_on("0", None);
    let mut sampler = node.sampler();
    reading(&mut sampler).await;
    let old = sampler.worker_pid().unwrap();
    let set = |code| {
        node.edit(|scenario| {
            scenario.init_return = code;
            Ok(())
        });
    };
    set(18);
    // As a package manager does it: another file under the same name.
    let bytes = fs::read(node.library()).unwrap();
    fs::write(node.path().join("new"), bytes).unwrap();
    fs::rename(node.path().join("new"), node.library()).unwrap();
    let end = tokio::time::Instant::now() + crate::node::PATIENCE;
    while sampler.stats().workers_started < 3 {
        assert_eq!(pids(&reading(&mut sampler).await.gpus[0]), [held]);
        assert!(tokio::time::Instant::now() < end, "the new one is tried");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let stats = sampler.stats();
    assert_eq!(
        (sampler.worker_pid(), stats.library_outdated),
        (Some(old), true)
    );
    set(0);
    while sampler.stats().library_outdated {
        assert_eq!(pids(&reading(&mut sampler).await.gpus[0]), [held]);
        assert!(tokio::time::Instant::now() < end, "the new one takes over");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let stats = sampler.stats();
    assert_eq!((stats.library_changes, stats.workers_restarted), (1, 0));
    assert_ne!(sampler.worker_pid(), Some(old));
    reading(&mut sampler).await;
    sampler.shutdown().await;
}

/// A library that really lacks what came with later drivers: the older calls of the same meaning are made, the rest is unknown.
#[tokio::test]
async fn fault_e_symbols_that_are_not_there_are_done_without_one_by_one() {
    let node = Node::new("h100x4");
    let held = node.run_on("1", None);
    for symbol in [
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetMigMode",
        "nvmlEventSetWait_v2",
        "nvmlSystemGetDriverVersion",
        "nvmlShutdown",
    ] {
        link::without(&node.library(), symbol).unwrap();
    }
    let mut sampler = node.sampler();
    let seen = reading(&mut sampler).await;
    assert_eq!(healths(&seen), [Health::Ok; 4]);
    assert_eq!(pids(&seen.gpus[1]), [held], "by the older call");
    let gpu = &seen.gpus[1];
    let memory = gpu.memory.unwrap();
    assert_eq!((memory.reserved, memory.used >= 1 << 30), (None, true));
    assert_eq!(
        (gpu.glow.temperature_celsius, &seen.driver_version),
        (None, &None)
    );
    assert!(gpu.glow.power_milliwatts.is_some());
    // Without any way to start there is no NVML.
    link::without(&node.library(), "nvmlInit_v2").unwrap();
    kill_process(pid(sampler.worker_pid().unwrap()), Signal::KILL).unwrap();
    sample_until(&mut sampler, |collected| {
        matches!(&collected.nvml, NvmlState::Broken(detail) if detail.contains("nvmlInit"))
    })
    .await;
    sampler.shutdown().await;
}

/// Library and driver differ while a tenant's program runs on: who has the nodes open is shown, by the running agent and by hand.
#[test]
fn fault_c_rule_14_a_mismatch_still_tells_who_has_the_devices_open() {
    let node = Node::new("h100x4");
    let root = tempfile::tempdir().unwrap();
    let pid = node.workload();
    let fd = root.path().join(pid.to_string()).join("fd");
    fs::create_dir_all(&fd).unwrap();
    // A node that every host has stands for the one of the GPU: 5:2.
    let devices = "Character devices:\n  5 nvidia\n";
    fs::write(root.path().join("devices"), devices).unwrap();
    std::os::unix::fs::symlink("/dev/ptmx", fd.join("7")).unwrap();
    // Another has more open than is looked at.
    let other = root.path().join("4194399/fd");
    fs::create_dir_all(&other).unwrap();
    for number in 0..16_385 {
        std::os::unix::fs::symlink("/dev/null", other.join(number.to_string())).unwrap();
    }
    fs::create_dir_all(root.path().join("driver/nvidia")).unwrap();
    let version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.90.07  Fri\n";
    fs::write(root.path().join("driver/nvidia/version"), version).unwrap();
    node.register(pid, "team-a");
    node.edit(|scenario| {
        scenario.init_return = 18;
        Ok(())
    });
    let mut agent = node.agent();
    agent
        .arg("devices")
        .arg("--json")
        .arg("--dir")
        .arg(node.agent_dir());
    agent.arg("--nvml-library").arg(node.library());
    let output = agent.arg("--proc-root").arg(root.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let opened = &told["open_nodes"][0];
    assert_eq!(
        (&opened["minor"], &opened["processes"][0]["tenant"]),
        (&2.into(), &"team-a".into())
    );
    assert!(
        told["error"]["detail"]
            .as_str()
            .unwrap()
            .contains("550.90.07")
    );
    assert_eq!(told["open_nodes_missed"]["limit"], 1);

    let proc_root = root.path().to_str().unwrap();
    let running = node.run_agent_with("", &["--proc-root", proc_root]);
    running.wait_for(&[
        "gpuquota_nvml_state{state=\"mismatch\"} 1",
        "gpuquota_device_node_processes{minor=\"2\",tenant=\"team-a\"} 1",
        "gpuquota_device_node_missed_processes{reason=\"limit\"} 1",
    ]);
    node.edit(|scenario| {
        scenario.init_return = 0;
        Ok(())
    });
    let text = running.wait_for(&["gpuquota_up 1"]);
    assert!(!text.contains("gpuquota_device_node_processes{"));
}
