//! Many at once: nodes that all come back in the same moment, connections that take all file descriptors, and a disk that
//! cannot be written.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use gpuquota_tests::disk::SmallDisk;
use gpuquota_tests::journal::verified;
use gpuquota_tests::mtls::{Authority, Papers};
use gpuquota_tests::program::succeed;
use gpuquota_tests::quota::purchase;
use gpuquota_tests::raw::Raw;
use gpuquota_tests::server::Server;
use gpuquota_tests::session::{Session, full, gpu, hello};
use gpuquota_tests::skip::{measured, root, skipped};
use gpuquota_tests::wait::{SOON, now, until};
use rand::Rng as _;
use tokio::task::JoinSet;

const NODES: usize = 500;
const ALL_BACK: Duration = Duration::from_secs(60);
const MOST_KIB: u64 = 256 * 1024;

// Opens a session of every node at once, each again until it is let in.
async fn all_in(server: &Arc<Server>, papers: &[Papers]) -> Vec<Session> {
    let mut opening = JoinSet::new();
    for (number, papers) in papers.iter().enumerate() {
        let (server, papers, node) = (server.clone(), papers.clone(), format!("n{number}"));
        opening.spawn(async move {
            let begun = now();
            // As agents do: anything up to a bound that doubles.
            let mut bound = Duration::from_millis(100);
            loop {
                match Session::open(&server, &papers, hello(&node)).await {
                    Ok(session) => return session,
                    Err(status) => assert!(begun.elapsed() < ALL_BACK, "{node}: {status}"),
                }
                let wait = bound.mul_f64(rand::rng().random());
                tokio::time::sleep(wait).await;
                bound = (bound * 2).min(Duration::from_secs(15));
            }
        });
    }
    opening.join_all().await
}

#[tokio::test]
async fn case_54_five_hundred_nodes_come_back_at_once_after_a_restart() {
    let mut server = Arc::new(Server::start().await);
    let own = Authority::of_server(&server.dir);
    let papers: Vec<Papers> = (0..NODES)
        .map(|number| {
            let uri = format!("spiffe://gpuquota/node/n{number}");
            own.issue(&[&uri], &format!("n{number}"), (2020, 2090))
        })
        .collect();
    let mut sessions = all_in(&server, &papers).await;
    for (number, session) in sessions.iter_mut().enumerate() {
        let devices = vec![gpu(&format!("GPU-{number}"), &["a"])];
        session.acked(full(1, devices)).await;
    }
    let running = Arc::get_mut(&mut server).unwrap();
    running.kill9();
    running.serve().await;
    let begun = now();
    let again = all_in(&server, &papers).await;
    let took = begun.elapsed();
    assert!(again.iter().all(|session| session.number == 2));
    assert!(took < ALL_BACK, "{took:?}");
    let server = Arc::get_mut(&mut server).unwrap();
    let peak = server.process().memory_kib("VmHWM");
    measured(
        "case 54",
        format!("{NODES} nodes back in {took:?}, {peak} KiB"),
    );
    assert!(peak < MOST_KIB, "{peak} KiB");
    let up = server
        .scrape()
        .await
        .value("gpuquota_nodes", &[("state", "up")]);
    assert_eq!(up, Some(NODES as f64));
}

#[tokio::test]
async fn case_58_without_file_descriptors_writes_go_on_and_new_callers_come_in_again() {
    let mut server = Server::start().await;
    let admin = server.admin();
    admin.put("a", purchase("default", 1)).await.expect_done();
    let pid = server.process().pid();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count();
    let limit = format!("--nofile={}", open + 4);
    succeed(Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]));
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(Raw::connect(server.rest).await);
    }
    server
        .process()
        .line_with("cannot accept a connection")
        .await;
    // A caller that was there before is served.
    for num in 2..10 {
        admin.put("a", purchase("default", num)).await.expect_done();
    }
    drop(held);
    until("a new caller is served", SOON, async || {
        let answer = server
            .admin()
            .try_send("GET", "/api/v1/leases", &[], "")
            .await;
        answer.map(|answer| assert_eq!(answer.status, 200))
    })
    .await;
    server.kill9();
    server.serve().await;
    assert_eq!(server.admin().quotas().await.total("a"), 9);
    verified(&server.dir);
}

#[tokio::test]
async fn case_58_on_a_disk_that_cannot_be_written_it_says_so_and_changes_nothing() {
    let what = "case 58: a read-only disk";
    if !root() {
        return skipped(what, "it needs root to mount one");
    }
    let home = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&home.path().join("disk"), 16) else {
        return skipped(what, "tmpfs cannot be mounted here");
    };
    let dir = disk.path().join("server");
    let mut server = Server::in_dir(home, dir, &[]).await;
    server
        .admin()
        .put("a", purchase("default", 7))
        .await
        .expect_done();
    server.kill9();
    let remount = |how: &str| {
        let mut mount = Command::new("mount");
        succeed(mount.args(["-o", how]).arg(disk.path()));
    };
    remount("remount,ro");
    let before = gpuquota_tests::journal::bytes_of(&server.dir);
    let said = server.refused_start().await;
    assert!(said.contains("Read-only file system"), "{said}");
    assert_eq!(gpuquota_tests::journal::bytes_of(&server.dir), before);
    remount("remount,rw");
    server.serve().await;
    assert_eq!(server.admin().quotas().await.total("a"), 7);
}
