//! The driver fails in every way it knows: the agent lives, says so, and the other GPUs go on (case 72).

use gpuquota_fake_nvml::scenario::{Action, Fault};
use gpuquota_tests::node::{Node, Place};
use gpuquota_tests::pair::{server, uses};
use gpuquota_tests::program::pid;
use gpuquota_tests::quota::GPU;
use gpuquota_tests::scrape::Scrape;
use gpuquota_tests::server::{QUICK, Server};
use gpuquota_tests::wait::{SOON, throughout, until};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

async fn health(server: &Server, node: &Node, index: usize, expected: &str) {
    let uuid = node.uuid(index);
    until(
        &format!("GPU {index} is {expected} for the server"),
        SOON,
        async || {
            let known = server.admin().node(&node.name).await;
            let devices = known["devices"].as_array().cloned().unwrap_or_default();
            let device = devices
                .iter()
                .find(|device| device["device"].to_string().contains(&uuid));
            let seen = device.map_or(Value::Null, |device| device["health"].clone());
            if seen == expected {
                Ok(())
            } else {
                Err(format!("{seen} in {known}"))
            }
        },
    )
    .await;
}

fn gpus(scrape: &Scrape, state: &str) -> Option<f64> {
    scrape.value("gpuquota_gpus", &[("state", state)])
}

#[tokio::test]
async fn case_72_a_killed_worker_is_replaced_and_nothing_is_forgotten() {
    let server = server(QUICK).await;
    let mut node = Node::start(&server, "n1", "h100x4").await;
    let held = node.workload("a", Place::Gpu("0"));
    uses(&server, [1, 0]).await;
    for round in 1..=3 {
        let workers = node.workers();
        assert_eq!(workers.len(), 1, "one worker");
        kill_process(pid(workers[0]), Signal::KILL).unwrap();
        node.seen("the death is counted", |scrape| {
            scrape.value("gpuquota_worker_restarts_total", &[]) == Some(f64::from(round))
        })
        .await;
    }
    throughout(
        "a keeps its GPU",
        std::time::Duration::from_millis(600),
        async || {
            let used = server.admin().quotas().await.used("a", "flexible", GPU);
            if used == 1 {
                Ok(())
            } else {
                Err(format!("{used}"))
            }
        },
    )
    .await;
    // The new worker sees what happens from now on.
    let other = node.workload("b", Place::Gpu("1"));
    uses(&server, [1, 1]).await;
    drop((held, other));
    uses(&server, [0, 0]).await;
    assert_eq!(gpus(&node.scrape().await, "ok"), Some(4.0));
}

#[tokio::test]
async fn case_72_a_call_that_hangs_takes_its_own_gpu_only() {
    let server = server(QUICK).await;
    let mut node = Node::new(&server, "n1", "h100x4");
    node.configure("call_deadline = \"700ms\"\n");
    node.run().await;
    node.up(&server.admin()).await;
    let held = node.workload("a", Place::Gpu("1"));
    uses(&server, [1, 0]).await;
    let fault = Fault {
        gpu: Some("1".to_owned()),
        ..Fault::new("nvmlDeviceGetComputeRunningProcesses_v3", Action::Hang)
    };
    node.edit(|scenario| scenario.add_fault(fault));
    node.seen("one GPU hangs", |scrape| {
        gpus(scrape, "hung") == Some(1.0) && gpus(scrape, "ok") == Some(3.0)
    })
    .await;
    health(&server, &node, 1, "hung").await;
    // Others go on, and whoever was on the hanging one stays charged: unknown is not free.
    let other = node.workload("b", Place::Gpu("0"));
    uses(&server, [1, 1]).await;
    held.end();
    throughout(
        "a stays charged",
        std::time::Duration::from_millis(800),
        async || {
            let used = server.admin().quotas().await.used("a", "flexible", GPU);
            if used == 1 {
                Ok(())
            } else {
                Err(format!("{used}"))
            }
        },
    )
    .await;
    node.edit(|scenario| {
        scenario.clear_faults(None);
        Ok(())
    });
    uses(&server, [0, 1]).await;
    health(&server, &node, 1, "ok").await;
    node.seen("all answer again", |scrape| gpus(scrape, "ok") == Some(4.0))
        .await;
    drop(other);
}

#[tokio::test]
async fn case_72_a_lost_gpu_is_told_and_the_others_go_on() {
    let server = server(QUICK).await;
    let mut node = Node::start(&server, "n1", "h100x4").await;
    let held = node.workload("a", Place::Gpu("2"));
    uses(&server, [1, 0]).await;
    node.edit(|scenario| scenario.set_lost("2", true));
    node.seen("one GPU is lost", |scrape| {
        gpus(scrape, "lost") == Some(1.0) && gpus(scrape, "ok") == Some(3.0)
    })
    .await;
    health(&server, &node, 2, "lost").await;
    let other = node.workload("b", Place::Gpu("3"));
    uses(&server, [1, 1]).await;
    node.edit(|scenario| scenario.set_lost("2", false));
    health(&server, &node, 2, "ok").await;
    drop((held, other));
    uses(&server, [0, 0]).await;
}

#[tokio::test]
async fn case_72_a_crash_inside_the_driver_is_survived() {
    let server = server(QUICK).await;
    let mut node = Node::start(&server, "n1", "h100x4").await;
    let held = node.workload("a", Place::Gpu("0"));
    uses(&server, [1, 0]).await;
    let crash = Fault {
        gpu: Some("3".to_owned()),
        ..Fault::new("nvmlDeviceGetMemoryInfo_v2", Action::Crash)
    };
    let also = Fault {
        function: "nvmlDeviceGetMemoryInfo".to_owned(),
        ..crash.clone()
    };
    node.edit(|scenario| {
        scenario
            .add_fault(crash)
            .and_then(|()| scenario.add_fault(also))
    });
    node.seen("the death is counted", |scrape| {
        scrape
            .value("gpuquota_worker_restarts_total", &[])
            .is_some_and(|count| count >= 1.0)
    })
    .await;
    let other = node.workload("b", Place::Gpu("1"));
    uses(&server, [1, 1]).await;
    node.seen("the others are well", |scrape| {
        gpus(scrape, "ok") >= Some(3.0)
    })
    .await;
    drop((held, other));
}

#[tokio::test]
async fn case_72_no_driver_at_all_is_a_state_and_not_an_empty_node() {
    let server = server(QUICK).await;
    let mut node = Node::start(&server, "n1", "h100x4").await;
    let held = node.workload("a", Place::Gpu("0"));
    uses(&server, [1, 0]).await;
    // Nothing works any more, for whoever asks anew as well.
    node.edit(|scenario| {
        scenario.init_return = 9;
        scenario.add_fault(Fault {
            code: Some(999),
            ..Fault::new("*", Action::Return)
        })
    });
    node.seen("NVML is not ok", |scrape| {
        scrape.value("gpuquota_nvml_state", &[("state", "ok")]) == Some(0.0)
    })
    .await;
    health(&server, &node, 0, "unknown").await;
    let known = server.admin().node("n1").await;
    assert_eq!(
        known["devices"].as_array().map(Vec::len),
        Some(4),
        "{known}"
    );
    assert_ne!(known["facts"]["nvml"], "ok");
    uses(&server, [1, 0]).await;
    node.edit(|scenario| {
        scenario.init_return = 0;
        scenario.clear_faults(None);
        Ok(())
    });
    health(&server, &node, 0, "ok").await;
    drop(held);
    uses(&server, [0, 0]).await;
}
