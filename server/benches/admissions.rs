//! Durable decisions per second on SQLite: the batcher at 1, 8 and 32 clients, beside a plain loop of one transaction
//! each on the same disk in the same run. Only the ratio means something; the disk's fsync rate moves within hours.
//!
//! `cargo bench -p gpuquota-server --bench admissions [-- --seconds 3]`

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gpuquota_core::Command;
use gpuquota_core::command::{OnExcess, QuotaName, SetQuota};
use gpuquota_core::id::{GpuModel, Region, TenantName};
use gpuquota_core::limit::Limit;
use gpuquota_core::quota::QuotaSource;
use gpuquota_server::clock::SystemClock;
use gpuquota_server::service::{self, BatcherSettings, Committed, Ledger, Origin};
use gpuquota_server::store::Store;
use gpuquota_server::store::sqlite::SqliteStore;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let seconds = std::env::args().skip_while(|arg| arg != "--seconds").nth(1);
    let time = Duration::from_secs(seconds.map_or(Ok(3), |text| text.parse())?);
    // On the disk of the build, not on a memory file system.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut latencies = plain_loop(&dir.path().join("plain.db"), time).await?;
    let plain = report(
        "one transaction each, plain loop",
        &mut latencies,
        time,
        None,
    );
    for clients in [1, 8, 32] {
        let path = dir.path().join(format!("{clients}.db"));
        let mut latencies = batcher(&path, clients, time).await?;
        let what = format!("batcher, {clients} clients, one hot quota");
        report(&what, &mut latencies, time, Some(plain));
    }
    Ok(())
}

/// What a program without a batcher does: read, check, count, add a row, commit.
async fn plain_loop(path: &Path, time: Duration) -> Result<Vec<Duration>, Failure> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await?;
    sqlx::query("CREATE TABLE quota (id INTEGER PRIMARY KEY, most INTEGER, used INTEGER)")
        .execute(&pool)
        .await?;
    sqlx::query("CREATE TABLE lease (seq INTEGER PRIMARY KEY, quota INTEGER, body TEXT)")
        .execute(&pool)
        .await?;
    sqlx::query("INSERT INTO quota VALUES (1, 2000000000, 0)")
        .execute(&pool)
        .await?;
    let mut latencies = Vec::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let begin = Instant::now();
        let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
        let (most, used): (i64, i64) = sqlx::query_as("SELECT most, used FROM quota WHERE id = 1")
            .fetch_one(&mut *transaction)
            .await?;
        assert!(used < most);
        sqlx::query("UPDATE quota SET used = used + 1 WHERE id = 1")
            .execute(&mut *transaction)
            .await?;
        sqlx::query("INSERT INTO lease (quota, body) VALUES (1, ?1)")
            .bind(format!(
                "{{\"admission\":{used},\"filler\":\"{}\"}}",
                "x".repeat(300)
            ))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        latencies.push(begin.elapsed());
    }
    Ok(latencies)
}

async fn batcher(path: &Path, clients: u32, time: Duration) -> Result<Vec<Duration>, Failure> {
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(path).await?);
    let stop = CancellationToken::new();
    let settings = BatcherSettings {
        queue: 4096,
        batch: 512,
        writer: "bench".into(),
    };
    let clock = Arc::new(SystemClock::default());
    let (ledger, task) = service::start(
        store,
        clock,
        None,
        Committed::empty(),
        settings,
        stop.clone(),
    );
    let next = Arc::new(AtomicU32::new(1));
    let end = Instant::now() + time;
    let clients: Vec<_> = (0..clients)
        .map(|_| tokio::spawn(client(ledger.clone(), next.clone(), end)))
        .collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await??);
    }
    let rows = ledger.read().state.seq().0;
    assert_eq!(
        rows,
        latencies.len() as u64,
        "every answer is one durable row"
    );
    stop.cancel();
    task.await?;
    Ok(latencies)
}

async fn client(
    ledger: Ledger,
    next: Arc<AtomicU32>,
    end: Instant,
) -> Result<Vec<Duration>, String> {
    let text = |e: gpuquota_core::id::InvalidName| e.to_string();
    let name = QuotaName {
        tenant: TenantName::new("bench").map_err(text)?,
        region: Region::new("US").map_err(text)?,
        source: QuotaSource::Purchase,
        gpu_model: GpuModel::new("nvidia.com/gpu").map_err(text)?,
        quota_type: None,
        reference: None,
    };
    let mut latencies = Vec::new();
    while Instant::now() < end {
        // Never the limit that it has, so that each call is a change.
        let limit = Limit::Finite(next.fetch_add(1, Ordering::Relaxed));
        let command = Command::SetQuota(SetQuota {
            name: name.clone(),
            limit,
            expires_at: None,
            nodes: None,
            on_excess: OnExcess::Deny,
        });
        let begin = Instant::now();
        let answer = ledger.submit(command, Origin::server()).await;
        answer.map_err(|e| e.to_string())?;
        latencies.push(begin.elapsed());
    }
    Ok(latencies)
}

fn report(what: &str, latencies: &mut [Duration], time: Duration, plain: Option<f64>) -> f64 {
    latencies.sort_unstable();
    let rate = latencies.len() as f64 / time.as_secs_f64();
    let p99 = latencies
        .get(latencies.len() * 99 / 100)
        .copied()
        .unwrap_or_default();
    let ratio = plain.map_or_else(String::new, |plain| {
        format!(", {:.1} x the plain loop", rate / plain)
    });
    println!(
        "{what}: {rate:.0}/s, p99 {:.2} ms{ratio}",
        p99.as_secs_f64() * 1000.0
    );
    rate
}
