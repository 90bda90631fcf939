//! The program itself against a server over TLS: what it sees arrives, and how it stops, restarts and does without a disk.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "../../src/uplink/fake_server.rs"]
mod fake_server;
mod node;

use std::time::Duration;

use fake_server::FakeServer;
use gpuquota_agent::clock;
use gpuquota_proto::agent_v1::{DeviceHealth, Report};
use node::Node;

fn holders(report: &Report) -> Vec<&str> {
    let tenants = report.devices.iter().flat_map(|device| &device.tenants);
    tenants.map(String::as_str).collect()
}

#[tokio::test]
async fn a_process_is_told_while_it_lives_and_a_stop_is_said() {
    let node = Node::new("h100x2");
    let server = FakeServer::start(&node.server_files).await;
    let agent = node.start(server.address, "");
    server
        .until("the first report", |book| !book.applied.is_empty())
        .await;
    {
        let book = server.book();
        let first = &book.applied[0];
        assert!(first.full && first.devices.len() == 2 && holders(first).is_empty());
        let facts = first.facts.as_ref().unwrap();
        assert_eq!(
            (facts.nvml.as_str(), facts.driver_version.as_str()),
            ("ok", "550.90.07")
        );
        assert!(facts.cpu_cores.is_some() && facts.memory_bytes.is_some());
    }
    let pid = node.run_on("0", "blue");
    server
        .until("the holder", |book| {
            book.applied.iter().any(|r| holders(r) == ["blue"])
        })
        .await;
    let text = node.scrape(&agent).await;
    assert!(text.contains(
        r#"gpuquota_tenant_devices{tenant="blue",gpu_model="nvidia.com/gpu",kind="gpu"} 1"#
    ));
    assert!(text.contains("gpuquota_uplink_connected 1"), "{text}");
    node.kill(pid);
    server
        .until("its end", |book| {
            let last = book.applied.last().unwrap();
            !last.full && last.devices.len() == 1 && holders(last).is_empty()
        })
        .await;
    let before = tokio::time::Instant::now();
    assert!(agent.terminate().await.success());
    assert!(before.elapsed() < Duration::from_secs(5));
    assert_eq!(server.book().goodbyes, 1);
}

#[tokio::test]
async fn case_48_a_killed_agent_goes_on_where_it_was() {
    let node = Node::new("h100x1");
    let server = FakeServer::start(&node.server_files).await;
    let agent = node.start(server.address, "");
    server
        .until("the first report", |book| !book.applied.is_empty())
        .await;
    let second = node.start(server.address, "");
    assert_eq!(
        second.ended().await.code(),
        Some(1),
        "two agents in one folder"
    );
    let address = server.address;
    let book = server.stop().await;
    node.run_on("0", "blue");
    node.wait_for_scrape(&agent, "gpuquota_spool_records 1")
        .await;
    agent.kill();
    let server = FakeServer::start_at(&node.server_files, address, book).await;
    let _agent = node.start(address, "");
    server.until("both", |book| book.applied.len() >= 3).await;
    let book = server.book();
    let numbers: Vec<u64> = book.applied.iter().map(|report| report.number).collect();
    assert_eq!((numbers, book.last.len()), (vec![1, 2, 3], 1));
    let fulls: Vec<bool> = book.applied.iter().map(|report| report.full).collect();
    assert_eq!(fulls, [true, false, true]);
    assert_eq!(holders(&book.applied[2]), ["blue"]);
}

#[tokio::test]
async fn case_60_without_a_place_for_its_state_it_reports_all_the_same() {
    let node = Node::new("h100x1");
    let server = FakeServer::start(&node.server_files).await;
    let agent = node.start(server.address, "state = \"agent.key/state\"\n");
    server
        .until("the first report", |book| !book.applied.is_empty())
        .await;
    node.wait_for_scrape(&agent, "gpuquota_spool_in_memory_only 1")
        .await;
}

#[tokio::test]
async fn case_77_without_nvml_it_runs_and_says_so() {
    let node = Node::new("h100x1");
    let server = FakeServer::start(&node.server_files).await;
    std::fs::write(node.library(), "no library").unwrap();
    let agent = node.start(server.address, "");
    server
        .until("the state", |book| {
            let facts = book.applied.last().and_then(|report| report.facts.as_ref());
            facts.is_some_and(|facts| facts.nvml == "broken")
        })
        .await;
    let text = node.scrape(&agent).await;
    assert!(
        text.contains(r#"gpuquota_nvml_state{state="broken"} 1"#),
        "{text}"
    );
    assert!(
        text.contains("gpuquota_up 0") && !text.contains("gpuquota_gpus"),
        "{text}"
    );
}

#[tokio::test]
async fn a_restart_while_nvml_is_silent_keeps_the_holders_as_unknown() {
    let node = Node::new("h100x1");
    let server = FakeServer::start(&node.server_files).await;
    let agent = node.start(server.address, "");
    node.run_on("0", "blue");
    server
        .until("the holder", |book| {
            book.applied.iter().any(|r| holders(r) == ["blue"])
        })
        .await;
    agent.kill();
    let told = server.book().applied.len();
    std::fs::write(node.library(), "no library").unwrap();
    let _agent = node.start(server.address, "");
    server
        .until("the restart", |book| book.applied.len() > told)
        .await;
    let book = server.book();
    let last = book.applied.last().unwrap();
    assert_eq!(holders(last), ["blue"]);
    assert_eq!(
        (last.full, last.devices[0].health()),
        (true, DeviceHealth::Unknown)
    );
}

/// The driver is closed on request: the server hears that, and that nobody has left; a holder that leaves meanwhile leaves when the
/// driver is read again.
#[tokio::test]
async fn rule_13_quiesced_is_told_and_frees_nobody() {
    let node = Node::new("h100x1");
    let server = FakeServer::start(&node.server_files).await;
    let agent = node.start(server.address, "");
    let pid = node.run_on("0", "blue");
    server
        .until("the holder", |book| {
            book.applied.iter().any(|r| holders(r) == ["blue"])
        })
        .await;
    assert!(node.order(&["quiesce", "--reason", "driver 560"]).await);
    server
        .until("the state", |book| {
            let facts = book.applied.last().and_then(|r| r.facts.as_ref());
            facts.is_some_and(|facts| {
                facts.nvml == "quiesced" && facts.nvml_detail.starts_with("driver 560, until ")
            })
        })
        .await;
    node.kill(pid);
    {
        let book = server.book();
        let told = book.applied.last().unwrap();
        assert_eq!(holders(told), ["blue"], "{told:?}");
        assert_eq!(told.devices[0].health(), DeviceHealth::Unknown);
    }
    assert!(node.order(&["resume"]).await);
    server
        .until("its end", |book| {
            let last = book.applied.last().unwrap();
            last.devices.len() == 1 && holders(last).is_empty()
        })
        .await;
    let ever_freed_blind = server.book().applied.iter().any(|report| {
        let unknown = |d: &&gpuquota_proto::agent_v1::DeviceState| {
            d.health() == DeviceHealth::Unknown && d.tenants.is_empty()
        };
        report.devices.iter().any(|device| unknown(&device))
    });
    assert!(!ever_freed_blind);
    assert!(agent.terminate().await.success());
}
