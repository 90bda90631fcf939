//! An acknowledged write is there for ever, once, whatever happens to the process or the disk (V2, V3).

use std::collections::BTreeMap;
use std::time::Duration;

use gpuquota_tests::disk::SmallDisk;
use gpuquota_tests::journal::{sql, verified};
use gpuquota_tests::program::free_address;
use gpuquota_tests::quota::{GPU, purchase, quota};
use gpuquota_tests::rest::Rest;
use gpuquota_tests::seed::random;
use gpuquota_tests::server::Server;
use gpuquota_tests::session::Session;
use gpuquota_tests::skip::{measured, root, skipped};
use gpuquota_tests::wait::{SOON, until};
use rand::Rng as _;

const ACKNOWLEDGED: usize = 200;
const KILLS: usize = 5;

#[tokio::test]
async fn case_42_no_acknowledged_put_is_lost_or_doubled_by_kill_9() {
    let mut random = random("case 42");
    let mut server =
        Server::with(&[("snapshot_every_rows = 50000", "snapshot_every_rows = 20")]).await;
    // What each tenant must have: the last acknowledged number, or the one whose answer never came.
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    let (mut acks, mut kills, mut number) = (0, 0, 0);
    while acks < ACKNOWLEDGED || kills < KILLS {
        let admin = server.admin();
        let moment = Duration::from_micros(random.random_range(500..60_000));
        let mut open: BTreeMap<String, u64>;
        {
            let killing = tokio::time::sleep(moment);
            tokio::pin!(killing);
            loop {
                // Three at a time, so that batches hold more than one.
                number += 1;
                let wave: Vec<(String, u64)> = (0..3)
                    .map(|k| (format!("t{}", (number + k * 7) % 40), number))
                    .collect();
                open = wave.iter().cloned().collect();
                let puts = wave.iter().map(|(tenant, num)| put(&admin, tenant, *num));
                let [a, b, c]: [_; 3] = puts.collect::<Vec<_>>().try_into().ok().unwrap();
                let answers = tokio::select! {
                    () = &mut killing => break,
                    answers = async { tokio::join!(a, b, c) } => answers,
                };
                for ((tenant, num), done) in wave.into_iter().zip([answers.0, answers.1, answers.2])
                {
                    assert!(done, "a PUT was refused");
                    acknowledged.insert(tenant, num);
                    acks += 1;
                }
                open.clear();
            }
        }
        server.kill9();
        kills += 1;
        server.serve().await;
        let quotas = server.admin().quotas().await;
        for (tenant, num) in &acknowledged {
            let rows: Vec<u64> = quotas
                .0
                .iter()
                .filter(|row| row.tenant == *tenant)
                .map(|row| row.total)
                .collect();
            let maybe = open.get(tenant);
            assert!(
                rows == [*num] || maybe.is_some_and(|num| rows == [*num]),
                "{tenant}: acknowledged {num}, open {maybe:?}, there {rows:?}"
            );
        }
        let known = |tenant: &str| acknowledged.contains_key(tenant) || open.contains_key(tenant);
        assert!(quotas.0.iter().all(|row| known(&row.tenant)), "{quotas:?}");
        // From now on what was open is known.
        for row in &quotas.0 {
            acknowledged.insert(row.tenant.clone(), row.total);
        }
    }
    measured(
        "case 42",
        format!("{acks} acknowledged PUTs over {kills} kills"),
    );

    verified(&server.dir);
    server.stop().await;
    let report = verified(&server.dir);
    assert!(
        report.contains(&format!("{} quotas", acknowledged.len())),
        "{report}"
    );
    assert_eq!(sql(&server.ledger(), "PRAGMA integrity_check"), "ok");
}

async fn put(admin: &Rest, tenant: &str, num: u64) -> bool {
    let path = format!("/api/v1/quotas/{tenant}");
    let answer = admin
        .try_send("PUT", &path, &[], purchase("TW", num).to_string())
        .await;
    answer.is_ok_and(|answer| answer.status == 200)
}

#[tokio::test]
async fn case_44_a_second_server_on_the_same_directory_does_not_come_up() {
    let mut server = Server::start().await;
    server
        .admin()
        .put("a", purchase("TW", 1))
        .await
        .expect_done();
    let ports = (server.rest, server.agents, server.metrics);
    (server.rest, server.agents, server.metrics) = (free_address(), free_address(), free_address());
    let reason = server.refused_start().await;
    (server.rest, server.agents, server.metrics) = ports;
    assert!(reason.contains("another server runs"), "{reason}");
    server
        .admin()
        .put("a", purchase("TW", 2))
        .await
        .expect_done();
    // The place is free again as soon as the first is gone, however it went.
    server.kill9();
    server.serve().await;
    assert_eq!(server.admin().quotas().await.total("a"), 2);
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_ends_well_every_time() {
    let mut server = Server::start().await;
    for round in 1..=12 {
        let node = Session::of(&server, "n1").await;
        server
            .admin()
            .put("a", purchase("TW", round))
            .await
            .expect_done();
        server.stop().await;
        drop(node);
        server.serve().await;
        assert_eq!(server.admin().quotas().await.total("a"), round);
    }
}

#[tokio::test]
async fn case_56_on_a_full_disk_reads_go_on_and_writes_come_back_with_space() {
    if !root() {
        return skipped("case 56", "a small disk needs root to mount it");
    }
    let home = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&home.path().join("disk"), 3) else {
        return skipped("case 56", "tmpfs cannot be mounted here");
    };
    let dir = disk.path().join("server");
    let mut server = Server::in_dir(home, dir, &[]).await;
    let admin = server.admin();
    admin.put("a", purchase("TW", 1)).await.expect_done();
    disk.fill();
    // The log of the database may still have room for some.
    let mut last = 1;
    let refused = until("writes are refused", SOON, async || {
        let model = format!("{}{}", "m".repeat(200), last);
        let answer = admin.put("a", quota("TW", "assign", &model, 1)).await;
        if answer.status != 200 {
            return Ok(answer);
        }
        last += 1;
        Err(format!("{last} were taken"))
    })
    .await;
    refused.expect_code(500, 2);
    let taken = admin.quotas().await;
    assert_eq!(taken.0.len(), last, "one row for each acknowledged PUT");
    for _ in 0..3 {
        admin.put("a", purchase("TW", 9)).await.expect_code(500, 2);
        assert_eq!(admin.quotas().await, taken);
        assert!(server.process().lives());
    }
    let failed = server
        .scrape()
        .await
        .sum("gpuquota_commands_total", &[("result", "failed")]);
    assert!(failed >= 4.0, "{failed}");
    disk.free();
    until("writes are taken again", SOON, async || {
        let answer = admin.put("a", purchase("TW", 3)).await;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer.text)
        }
    })
    .await;
    let quotas = admin.quotas().await;
    assert_eq!(quotas.row("a", "flexible", GPU).unwrap().total, 3);
    server.kill9();
    server.serve().await;
    assert_eq!(server.admin().quotas().await, quotas);
    verified(&server.dir);
}
