//! Durable decisions per second on PostgreSQL: one server alone, then three on one database that all write, in one run.
//! Only their ratio means something.
//!
//! `cargo bench -p gpuquota-server --bench replicas [-- --seconds 3]`

#[path = "../../tests/src/postgres.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "the tests' own PostgreSQL"
)]
mod postgres;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gpuquota_core::Command;
use gpuquota_core::command::{OnExcess, QuotaName, SetQuota};
use gpuquota_core::id::{GpuModel, Region, TenantName};
use gpuquota_core::limit::Limit;
use gpuquota_core::quota::QuotaSource;
use gpuquota_server::clock::SystemClock;
use gpuquota_server::service::{self, BatcherSettings, Ledger, Origin};
use gpuquota_server::store::postgres::Address;
use gpuquota_server::store::{self, Place};
use postgres::Cluster;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error>;

/// Of each server.
const CLIENTS: usize = 32;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let seconds = std::env::args().skip_while(|arg| arg != "--seconds").nth(1);
    let time = Duration::from_secs(seconds.map_or(Ok(3), |text| text.parse())?);
    let cluster = Cluster::start()?;
    let alone = measured(&cluster, 1, time).await?;
    let three = measured(&cluster, 3, time).await?;
    println!("three / alone: {:.2}", three / alone);
    Ok(())
}

async fn measured(cluster: &Cluster, servers: usize, time: Duration) -> Result<f64, Failure> {
    let place = Place::Database(Address::parse(&cluster.database())?);
    let stop = CancellationToken::new();
    let mut running: Vec<(Ledger, JoinHandle<()>)> = Vec::new();
    for server in 0..servers {
        let store = store::open(&place).await?;
        let committed = service::fold(&*store, None).await?;
        let settings = BatcherSettings {
            queue: 4096,
            batch: 512,
            writer: format!("bench-{server}"),
        };
        let clock = Arc::new(SystemClock::default());
        let stop = stop.clone();
        running.push(service::start(
            store, clock, None, committed, settings, stop,
        ));
    }
    let next = Arc::new(AtomicU32::new(1));
    let end = Instant::now() + time;
    let clients: Vec<_> = running
        .iter()
        .cycle()
        .take(CLIENTS * servers)
        .map(|(ledger, _)| tokio::spawn(client(ledger.clone(), next.clone(), end)))
        .collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await??);
    }
    let appends: Vec<u64> = running
        .iter()
        .map(|(ledger, _)| ledger.counters().appends.load(Ordering::Relaxed))
        .collect();
    stop.cancel();
    for (_, task) in running {
        task.await?;
    }
    latencies.sort_unstable();
    let rate = latencies.len() as f64 / time.as_secs_f64();
    let p99 = latencies.get(latencies.len() * 99 / 100).copied();
    println!(
        "{servers} servers, {CLIENTS} clients each, one hot quota: {rate:.0}/s, p99 {:.2} ms, appends {appends:?}",
        p99.unwrap_or_default().as_secs_f64() * 1000.0
    );
    Ok(rate)
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
