//! kill -9 at random moments under load: of the server on both databases, and of PostgreSQL under one and two servers.

use std::sync::Arc;
use std::time::Duration;

use gpuquota_tests::postgres::Cluster;
use gpuquota_tests::program::Running;
use gpuquota_tests::seed::random;
use gpuquota_tests::server::{Place, Server};
use gpuquota_tests::skip::{measured, skipped, slow};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::load::Tally;
use super::world::{World, server};

/// A ledger of its own for so many, so that it and its history stay small.
const KILLS_A_LEDGER: u32 = 25;

/// What a server says that keeps answers until it knows what became of their rows.
pub(super) const HELD: &str = "the database was lost while it wrote";

/// How many: `GPUQUOTA_KILLS`, or 1,000 in a long run.
fn kills() -> u32 {
    let given = std::env::var("GPUQUOTA_KILLS").ok();
    given.map_or(if slow() { 1000 } else { 5 }, |text| text.parse().unwrap())
}

// Lets clients work for a random while.
pub(super) async fn work(random: &mut StdRng) {
    let moment = random.random_range(20..500);
    sleep(Duration::from_millis(moment)).await;
}

pub(super) fn told(what: &str, faults: &str, tally: Tally) {
    let Tally {
        granted,
        denied,
        lost,
        refused,
    } = tally;
    measured(
        what,
        format!(
            "{faults}: {granted} writes granted, {denied} denied, {lost} answers lost, {refused} refused; no rule broken"
        ),
    );
    assert!(granted > 0 && denied > 0, "nothing was proved: {tally:?}");
}

// Kills a server and starts it again, sometimes only at the second try.
async fn kill(server: &mut Server, world: &mut World, random: &mut StdRng) {
    world.unfollow().await;
    server.kill9();
    world.note("kill -9 of the server");
    if random.random_bool(0.25) {
        let mut process = Running::start("server", &mut server.command());
        let moment = random.random_range(0..150);
        sleep(Duration::from_millis(moment)).await;
        process.kill9();
        world.note("kill -9 of the server that starts");
    }
    server.serve().await;
    world.follow(server);
}

async fn of_the_server(what: &str, place: impl Fn() -> Place) {
    let (mut random, kills) = (random(what), kills());
    let (mut done, mut tally) = (0, Tally::default());
    while done < kills {
        let snapshots = ("snapshot_every_rows = 50000", "snapshot_every_rows = 100");
        let mut server = server(&place(), &[snapshots]).await;
        let mut world = World::begin(&[&server], &mut random).await;
        let turn = KILLS_A_LEDGER.min(kills - done);
        for _ in 0..turn {
            work(&mut random).await;
            kill(&mut server, &mut world, &mut random).await;
        }
        done += turn;
        work(&mut random).await;
        tally += world.judged(&[&server]).await;
    }
    told(what, &format!("{kills} kills"), tally);
    assert!(tally.lost > 0 && tally.refused > 0, "no kill met a write");
}

#[tokio::test]
async fn case_42_and_49_kill_9_of_the_server_on_sqlite_loses_no_answer_and_doubles_nothing() {
    of_the_server("kill -9 of the server, SQLite", || Place::File).await;
}

#[tokio::test]
async fn case_42_and_49_kill_9_of_the_server_on_postgresql_loses_no_answer_and_doubles_nothing() {
    let what = "kill -9 of the server, PostgreSQL";
    let cluster = match Cluster::shared() {
        Ok(cluster) => cluster,
        Err(why) => return skipped(what, &why),
    };
    of_the_server(what, || Place::Database(cluster.database())).await;
}

async fn of_postgresql(what: &str, servers: usize) {
    let cluster = match Cluster::start() {
        Ok(cluster) => Arc::new(cluster),
        Err(why) => return skipped(what, &why),
    };
    let (mut random, kills) = (random(what), kills());
    let (mut done, mut held, mut tally) = (0, 0, Tally::default());
    // Few kills may all fall between two writes.
    while done < kills || held == 0 && done < kills.max(10) * 4 {
        let place = Place::Database(cluster.database());
        let mut all = Vec::new();
        for _ in 0..servers {
            all.push(server(&place, &[]).await);
        }
        let world = World::begin(&all.iter().collect::<Vec<_>>(), &mut random).await;
        let turn = KILLS_A_LEDGER.min(kills.saturating_sub(done).max(1));
        for _ in 0..turn {
            work(&mut random).await;
            let killed = cluster.clone();
            world.note("kill -9 of PostgreSQL");
            let again = tokio::task::spawn_blocking(move || {
                killed.end("-KILL");
                killed.up();
            });
            again.await.unwrap();
            world.served().await;
        }
        done += turn;
        tally += world.judged(&all.iter().collect::<Vec<_>>()).await;
        for server in &mut all {
            let log = server.process().log();
            held += log.iter().filter(|line| line.contains(HELD)).count();
        }
    }
    told(what, &format!("{done} kills"), tally);
    measured(
        what,
        format!("{held} times answers were held until their rows were known"),
    );
    assert!(held > 0, "no kill met a write");
}

#[tokio::test]
async fn case_42_and_49_kill_9_of_postgresql_under_one_server_loses_no_answer_and_doubles_nothing()
{
    of_postgresql("kill -9 of PostgreSQL, one server", 1).await;
}

#[tokio::test]
async fn case_42_and_49_kill_9_of_postgresql_under_two_servers_loses_no_answer_and_doubles_nothing()
{
    of_postgresql("kill -9 of PostgreSQL, two servers", 2).await;
}
