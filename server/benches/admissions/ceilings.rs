//! What the same admission costs a program without a batcher: read the quota, check, count, add a row, commit.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::time::Instant;

use crate::Failure;
use crate::measured::Measured;
use crate::postgres::Cluster;
use crate::workload::Spread;

/// The row of a lease, about as long as the journal's.
const FILLER: usize = 300;

pub(crate) async fn sqlite_loop(
    path: &Path,
    spread: Spread,
    time: Duration,
) -> Result<Measured, Failure> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await?;
    for statement in [
        "CREATE TABLE quota (id INTEGER PRIMARY KEY, most INTEGER, used INTEGER)",
        "CREATE TABLE lease (seq INTEGER PRIMARY KEY, quota INTEGER, body TEXT)",
    ] {
        sqlx::query(statement).execute(&pool).await?;
    }
    for quota in 0..spread.quotas() {
        let insert = sqlx::query("INSERT INTO quota VALUES (?1, 2000000000, 0)");
        insert.bind(quota).execute(&pool).await?;
    }
    let (begin, mut latencies) = (Instant::now(), Vec::new());
    while begin.elapsed() < time {
        let quota = u32::try_from(latencies.len())? % spread.quotas();
        let asked = Instant::now();
        let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
        let (most, used): (i64, i64) = sqlx::query_as("SELECT most, used FROM quota WHERE id = ?1")
            .bind(quota)
            .fetch_one(&mut *transaction)
            .await?;
        assert!(used < most);
        sqlx::query("UPDATE quota SET used = used + 1 WHERE id = ?1")
            .bind(quota)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("INSERT INTO lease (quota, body) VALUES (?1, ?2)")
            .bind(quota)
            .bind("x".repeat(FILLER))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        latencies.push(asked.elapsed());
    }
    Ok(Measured::of(latencies, begin.elapsed()))
}

/// The smallest transaction that admits safely, by PostgreSQL's own load generator.
pub(crate) fn pgbench(
    cluster: &Cluster,
    spread: Spread,
    clients: usize,
    time: Duration,
) -> Result<Measured, Failure> {
    let url = cluster.database();
    let database = url.rsplit('/').next().ok_or("no database")?;
    let quotas = spread.quotas();
    cluster.psql(
        database,
        &format!(
            "CREATE TABLE quota (id int PRIMARY KEY, most bigint, used bigint);
             CREATE TABLE lease (seq bigserial PRIMARY KEY, quota int, body text);
             INSERT INTO quota SELECT id, 2000000000, 0 FROM generate_series(1, {quotas}) id;"
        ),
    )?;
    let dir = tempfile::tempdir()?;
    let script = dir.path().join("admission.sql");
    std::fs::write(
        &script,
        format!(
            "\\set quota random(1, {quotas})\n\
             BEGIN;\n\
             UPDATE quota SET used = used + 1 WHERE id = :quota AND used < most;\n\
             INSERT INTO lease (quota, body) VALUES (:quota, '{}');\n\
             COMMIT;\n",
            "x".repeat(FILLER)
        ),
    )?;
    let (clients, seconds) = (clients.to_string(), time.as_secs().to_string());
    let threads = if clients == "1" { "1" } else { "2" };
    let mut bench = std::process::Command::new(cluster.installed("pgbench"));
    bench.args(["-n", "-M", "prepared", "-c", &clients, "-j", threads]);
    bench.args(["-T", &seconds, "--log"]).arg("-f").arg(&script);
    bench.arg(&url).current_dir(dir.path());
    let done = bench.output()?;
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into_owned().into());
    }
    let mut latencies = Vec::new();
    for entry in std::fs::read_dir(dir.path())? {
        let path = entry?.path();
        if path == script {
            continue;
        }
        // Client, number, microseconds, ...
        for line in std::fs::read_to_string(path)?.lines() {
            let micros = line.split(' ').nth(2).ok_or("a line of pgbench's log")?;
            latencies.push(Duration::from_micros(micros.parse()?));
        }
    }
    Ok(Measured::of(latencies, time))
}
