//! Agent and server lose each other: nothing is lost, doubled or freed (cases 48, 49, 51, 55, 60).

use std::time::Duration;

use gpuquota_tests::journal::{sql, verified};
use gpuquota_tests::node::{Node, Place};
use gpuquota_tests::pair::{server, used, uses};
use gpuquota_tests::server::{QUICK, Server};
use gpuquota_tests::session::{Session, full, gpu};
use gpuquota_tests::skip::{measured, slow};
use gpuquota_tests::wait::{SOON, now, throughout, until};

async fn state(server: &Server, node: &str, expected: &str) {
    until(&format!("{node} is {expected}"), SOON, async || {
        let known = server.admin().node(node).await;
        if known["state"] == expected {
            Ok(())
        } else {
            Err(known.to_string())
        }
    })
    .await;
}

// Reports in the journal: one row for each number of each spool, whatever was sent again.
fn reports(server: &Server) -> Vec<String> {
    let rows = sql(
        &server.ledger(),
        "SELECT op FROM journal WHERE op LIKE 'agent/%' ORDER BY seq",
    );
    let rows: Vec<String> = rows.lines().map(ToOwned::to_owned).collect();
    let mut once = rows.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), rows.len(), "a report stands twice: {rows:?}");
    rows
}

#[tokio::test]
async fn case_48_the_server_is_away_while_holders_change() {
    let away = if slow() {
        Duration::from_secs(30)
    } else {
        Duration::from_secs(4)
    };
    let mut server = server(QUICK).await;
    let mut node = Node::start(&server, "n1", "h100x8").await;
    let kept = node.workload("a", Place::Gpu("0"));
    let ending = node.workload("b", Place::Gpu("1"));
    uses(&server, [1, 1]).await;
    let before = reports(&server).len();
    server.kill9();
    node.seen("the agent is cut off", |scrape| {
        scrape.value("gpuquota_uplink_connected", &[]) == Some(0.0)
    })
    .await;
    let begin = now();
    // Each change is waited for at the node, so that each becomes a report of its own.
    ending.end();
    node.seen("b holds nothing", |scrape| {
        scrape.sum("gpuquota_tenant_devices", &[("tenant", "b")]) == 0.0
    })
    .await;
    let passing = node.workload("b", Place::Gpu("2"));
    node.seen("b holds one", |scrape| {
        scrape.sum("gpuquota_tenant_devices", &[("tenant", "b")]) == 1.0
    })
    .await;
    passing.end();
    node.seen("b holds nothing again", |scrape| {
        scrape.sum("gpuquota_tenant_devices", &[("tenant", "b")]) == 0.0
    })
    .await;
    let more = [
        node.workload("a", Place::Gpu("3")),
        node.workload("b", Place::Gpu("4")),
    ];
    node.seen("changes are spooled", |scrape| {
        scrape.value("gpuquota_spool_records", &[]) >= Some(3.0)
            && scrape.sum("gpuquota_tenant_devices", &[]) == 3.0
    })
    .await;
    let waited = begin.elapsed();
    tokio::time::sleep(away.saturating_sub(waited)).await;
    server.serve().await;
    let back = now();
    uses(&server, [2, 1]).await;
    measured(
        "case 48",
        format!(
            "away {:?}, all told {:?} after the return",
            begin.elapsed(),
            back.elapsed()
        ),
    );
    state(&server, "n1", "up").await;
    node.seen("the spool is empty", |scrape| {
        scrape.value("gpuquota_spool_records", &[]) == Some(0.0)
    })
    .await;
    // The history is whole: what came and went while nobody listened stands in the journal, in order.
    let told = reports(&server);
    assert!(told.len() >= before + 3, "{told:?}");
    let of_two = sql(
        &server.ledger(),
        &format!(
            "SELECT count(*) FROM journal WHERE op LIKE 'agent/%' AND body LIKE '%{}%' AND body LIKE '%\"b\"%'",
            node.uuid(2)
        ),
    );
    assert_ne!(of_two, "0", "the passing holder is not in the journal");
    drop((kept, more));
    uses(&server, [0, 0]).await;
    verified(&server.dir);
}

#[tokio::test]
async fn case_55_a_restarted_server_knows_the_holders_before_any_agent_speaks() {
    let mut server = server(QUICK).await;
    let mut node = Session::of(&server, "n1").await;
    node.acked(full(
        1,
        vec![gpu("GPU-1", &["a"]), gpu("GPU-2", &["a", "b"])],
    ))
    .await;
    server.kill9();
    drop(node);
    server.serve().await;
    assert_eq!(used(&server).await, [2, 1]);
    state(&server, "n1", "silent").await;
    assert_eq!(used(&server).await, [2, 1]);
}

#[tokio::test]
async fn case_49_an_answer_that_never_arrives_is_asked_for_again_and_counts_once() {
    let mut server = server(QUICK).await;
    let node = Session::of(&server, "n1").await;
    let report = full(1, vec![gpu("GPU-1", &["a"])]);
    node.send(gpuquota_proto::agent_v1::agent_message::Body::Report(
        report.clone(),
    ))
    .await;
    uses(&server, [1, 0]).await;
    // Committed, but the ack is never read.
    server.kill9();
    drop(node);
    server.serve().await;
    let mut again = Session::of(&server, "n1").await;
    again.acked(report).await;
    assert_eq!((used(&server).await, reports(&server).len()), ([1, 0], 1));
}

#[tokio::test]
async fn case_51_a_killed_agent_leaves_a_silent_node_whose_holders_stay_charged() {
    let server = server(QUICK).await;
    let mut node = Node::start(&server, "n1", "h100x4").await;
    let held = [
        node.workload("a", Place::Gpu("0")),
        node.workload("b", Place::Gpu("0")),
    ];
    uses(&server, [1, 1]).await;
    let workers = node.workers();
    node.kill9();
    state(&server, "n1", "silent").await;
    let gone = |worker: &u32| !std::path::Path::new(&format!("/proc/{worker}/root")).exists();
    until("the worker ends with its agent", SOON, async || {
        if workers.iter().all(gone) {
            Ok(())
        } else {
            Err(format!("{workers:?}"))
        }
    })
    .await;
    let scrape = server.scrape().await;
    assert_eq!(
        scrape.value("gpuquota_nodes", &[("state", "silent")]),
        Some(1.0)
    );
    throughout(
        "holders stay charged",
        Duration::from_millis(1500),
        async || {
            let seen = used(&server).await;
            if seen == [1, 1] {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        },
    )
    .await;
    let age = scrape.value("gpuquota_node_report_age_seconds", &[("node", "n1")]);
    assert!(age >= Some(2.0), "{age:?}");
    // Back again it counts nothing twice, and knows what ended meanwhile.
    let [first, second] = held;
    second.end();
    node.run().await;
    state(&server, "n1", "up").await;
    uses(&server, [1, 0]).await;
    assert_eq!(
        server.scrape().await.value("gpuquota_agent_sessions", &[]),
        Some(1.0)
    );
    first.end();
    uses(&server, [0, 0]).await;
    reports(&server);
}

#[tokio::test]
async fn an_agent_that_is_told_to_stop_says_so_and_its_use_stays_charged() {
    // Silence by time is far away here: only the goodbye can make the node silent.
    let server = server(&[("silent_after_seconds = 10", "silent_after_seconds = 600")]).await;
    let mut node = Node::start(&server, "n1", "h100x4").await;
    let held = node.workload("a", Place::Gpu("0"));
    uses(&server, [1, 0]).await;
    node.stop().await;
    state(&server, "n1", "silent").await;
    assert_eq!(used(&server).await, [1, 0]);
    node.run().await;
    state(&server, "n1", "up").await;
    held.end();
    uses(&server, [0, 0]).await;
}

#[tokio::test]
async fn case_60_a_spool_that_is_gone_or_damaged_heals_by_itself() {
    let server = server(QUICK).await;
    let mut node = Node::start(&server, "n1", "h100x4").await;
    let held = node.workload("a", Place::Gpu("0"));
    uses(&server, [1, 0]).await;
    for damage in ["gone", "junk", "read-only"] {
        node.kill9();
        let state_folder = node.dir.join("state");
        let registered = std::fs::read(state_folder.join("registered.jsonl")).unwrap();
        match damage {
            "gone" => std::fs::remove_dir_all(&state_folder).unwrap(),
            "junk" => spoil(&state_folder),
            // A file where the folder should be: nothing can be written, also by root.
            _ => {
                std::fs::remove_dir_all(state_folder.join("spool")).unwrap();
                std::fs::write(state_folder.join("spool"), "no folder").unwrap();
            }
        }
        std::fs::create_dir_all(&state_folder).unwrap();
        let table = state_folder.join("registered.jsonl");
        std::fs::write(&table, registered).unwrap();
        std::fs::set_permissions(&table, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        std::fs::set_permissions(
            &state_folder,
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        )
        .unwrap();
        node.run().await;
        state(&server, "n1", "up").await;
        let other = node.workload("b", Place::Gpu("1"));
        uses(&server, [1, 1]).await;
        other.end();
        uses(&server, [1, 0]).await;
        if damage == "read-only" {
            node.seen("it says that a restart would lose reports", |scrape| {
                scrape.value("gpuquota_spool_in_memory_only", &[]) == Some(1.0)
            })
            .await;
        }
    }
    held.end();
    uses(&server, [0, 0]).await;
    reports(&server);
}

fn spoil(folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            spoil(&entry.path());
        } else if entry.path().is_file() && entry.file_name() != "registered.jsonl" {
            std::fs::write(entry.path(), b"\x00\xffjunk\n{\"number\": 1e999").unwrap();
        }
    }
}
