//! Disks that are full and syncs that fail under load.

use std::process::ExitStatus;

use gpuquota_tests::disk::SmallDisk;
use gpuquota_tests::failing_sync::{FailingSync, Then};
use gpuquota_tests::postgres::Cluster;
use gpuquota_tests::seed::random;
use gpuquota_tests::server::{Place, Server};
use gpuquota_tests::skip::{root, skipped, slow};
use gpuquota_tests::wait::{SOON, until};

use super::kills::{HELD, told, work};
use super::world::{PATIENT, World, server};

fn rounds() -> u32 {
    if slow() { 100 } else { 3 }
}

#[tokio::test]
async fn case_56_a_full_disk_under_load_refuses_writes_serves_reads_and_loses_nothing() {
    let what = "a full disk, SQLite";
    if !root() {
        return skipped(what, "a small disk needs root to mount it");
    }
    let home = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&home.path().join("disk"), 16) else {
        return skipped(what, "tmpfs cannot be mounted here");
    };
    let mut random = random(what);
    let dir = disk.path().join("server");
    let mut server = Server::in_dir(home, dir, &[PATIENT]).await;
    let mut world = World::begin(&[&server], &mut random).await;
    for _ in 0..rounds() {
        work(&mut random).await;
        disk.fill();
        world.note("the disk is full");
        world.refused().await;
        let read = server.admin().get("/api/v1/leases").await;
        assert_eq!(read.status, 200, "{read:?}");
        assert!(server.process().lives());
        disk.free();
        world.note("the disk has room");
        world.served().await;
    }
    world.unfollow().await;
    server.kill9();
    server.serve().await;
    let tally = world.judged(&[&server]).await;
    told(what, &format!("{} times full", rounds()), tally);
    drop(server);
}

async fn ended(server: &mut Server) -> ExitStatus {
    let status = server.process().ended().await;
    server.process = None;
    status
}

#[tokio::test]
async fn case_57_a_failed_fsync_under_load_ends_the_server_and_loses_no_answer() {
    let what = "a failed fsync, SQLite";
    let dir = tempfile::tempdir().unwrap();
    let Some(syncs) = FailingSync::build(dir.path(), "ledger.db-wal") else {
        return skipped(what, "there is no C compiler");
    };
    let mut random = random(what);
    let mut server = server(&Place::File, &[]).await;
    server.stop().await;
    server.environment = syncs.environment();
    server.serve().await;
    let mut world = World::begin(&[&server], &mut random).await;
    for round in 0..2 * rounds() {
        work(&mut random).await;
        world.unfollow().await;
        // It ends by itself; or it is killed first, and then the rows of the failed sync may well be there.
        let then = match round % 2 {
            0 => Then::Lives,
            _ => Then::Dies,
        };
        syncs.fail_next(then);
        world.note(format!("the next sync fails: {then:?}"));
        let status = ended(&mut server).await;
        assert!(syncs.failed() && !status.success(), "{status}");
        server.serve().await;
        world.follow(&server);
        world.served().await;
    }
    let tally = world.judged(&[&server]).await;
    told(what, &format!("{} failed syncs", 2 * rounds()), tally);
    assert!(tally.lost > 0, "no sync met a write");
}

#[tokio::test]
async fn case_57_a_failed_fsync_of_postgresql_under_load_loses_no_answer() {
    let what = "a failed fsync, PostgreSQL";
    let dir = tempfile::tempdir().unwrap();
    let Some(syncs) = FailingSync::build(dir.path(), "/wal/0") else {
        return skipped(what, "there is no C compiler");
    };
    let cluster = match Cluster::start_with(&syncs.environment(), |_| ()) {
        Ok(cluster) => cluster,
        Err(why) => return skipped(what, &why),
    };
    let mut random = random(what);
    let mut server = server(&Place::Database(cluster.database()), &[]).await;
    let world = World::begin(&[&server], &mut random).await;
    for _ in 0..rounds() {
        work(&mut random).await;
        syncs.fail_next(Then::Lives);
        world.note("the next sync of PostgreSQL fails");
        until("a sync failed", SOON, async || match syncs.failed() {
            true => Ok(()),
            false => Err("none".to_owned()),
        })
        .await;
        world.served().await;
        assert!(server.process().lives());
    }
    let tally = world.judged(&[&server]).await;
    told(what, &format!("{} failed syncs", rounds()), tally);
    let log = server.process().log();
    assert!(log.iter().any(|line| line.contains(HELD)), "{log:?}");
}

#[tokio::test]
async fn case_56_a_full_disk_of_postgresql_under_load_refuses_writes_and_loses_nothing() {
    let what = "a full disk, PostgreSQL";
    if !root() {
        return skipped(what, "a small disk needs root to mount it");
    }
    let mut disk = None;
    let cluster = Cluster::start_with(&[], |data| disk = SmallDisk::mount(data, 56));
    // The one that ends first stands last.
    let (disk, cluster) = match (disk, cluster) {
        (Some(disk), Ok(cluster)) => (disk, cluster),
        (_, Err(why)) => return skipped(what, &why),
        (None, _) => return skipped(what, "tmpfs cannot be mounted here"),
    };
    let mut random = random(what);
    let mut server = server(&Place::Database(cluster.database()), &[]).await;
    let world = World::begin(&[&server], &mut random).await;
    for _ in 0..rounds() {
        work(&mut random).await;
        disk.fill();
        world.note("the disk of PostgreSQL is full");
        world.refused().await;
        let read = server.admin().get("/api/v1/leases").await;
        assert_eq!(read.status, 200, "{read:?}");
        assert!(server.process().lives());
        disk.free();
        world.note("the disk of PostgreSQL has room");
        world.served().await;
    }
    let tally = world.judged(&[&server]).await;
    told(what, &format!("{} times full", rounds()), tally);
    drop((server, cluster));
    let folder = disk.path().parent().unwrap().to_owned();
    drop(disk);
    std::fs::remove_dir_all(folder).unwrap();
}
