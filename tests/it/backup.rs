//! A ledger restored from a backup under running agents: what nodes hold comes back by itself.

use gpuquota_tests::journal::{sql, verified};
use gpuquota_tests::node::{Node, Place};
use gpuquota_tests::quota::{GPU, purchase};
use gpuquota_tests::server::{QUICK, Server};
use gpuquota_tests::wait::{SOON, until};

#[tokio::test]
async fn a_restored_ledger_learns_from_an_idle_agent_what_it_missed() {
    let mut server = Server::with(QUICK).await;
    server
        .admin()
        .put("a", purchase("default", 4))
        .await
        .expect_done();
    let node = Node::start(&server, "n1", "h100x4").await;
    let first = node.workload("a", Place::Gpu("0"));
    uses(&server, 1).await;
    let copy = server.home().join("backup.db");
    sql(&server.ledger(), &format!(".backup '{}'", copy.display()));

    let _second = node.workload("a", Place::Gpu("1"));
    uses(&server, 2).await;
    first.end();
    let _third = node.workload("a", Place::Gpu("2"));
    let _fourth = node.workload("a", Place::Gpu("3"));
    uses(&server, 3).await;

    server.stop().await;
    for end in ["", "-wal", "-shm"] {
        let file = format!("{}{end}", server.ledger().display());
        let _ = std::fs::remove_file(file);
    }
    std::fs::copy(&copy, server.ledger()).unwrap();
    let _ = std::fs::remove_dir_all(server.dir.join("snapshots"));
    server.serve().await;
    // Nothing changes on the node; only its heartbeats tell that the ledger is behind.
    uses(&server, 3).await;
    server.stop().await;
    verified(&server.dir);
}

async fn uses(server: &Server, expected: u64) {
    until(&format!("a uses {expected}"), SOON, async || {
        let quotas = server.admin().quotas().await;
        let seen = quotas.used("a", "flexible", GPU);
        if seen == expected {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    })
    .await;
}
