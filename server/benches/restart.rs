//! What a start costs: a journal of 1,000,000 rows that leaves 100,000 leases, folded whole and from a snapshot, each in a
//! process of its own, beside reading the same rows and doing nothing with them.
//!
//! `cargo bench -p gpuquota-server --bench restart [-- --rows 1000000]`

#[path = "admissions/asked.rs"]
mod asked;

use std::path::Path;
use std::process::Command as Process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gpuquota_core::id::{LeaseId, Seq};
use gpuquota_core::{Command, Outcome};
use gpuquota_server::clock::SystemClock;
use gpuquota_server::service::{self, BatcherSettings, Committed, Ledger, Origin, Snapshots};
use gpuquota_server::store::Store;
use gpuquota_server::store::sqlite::SqliteStore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use asked::{lease, memory, quota};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const TENANTS: u32 = 1000;
const CLIENTS: u32 = 256;
/// Of so many leases one is kept.
const KEPT: u32 = 6;
const PAGE: u32 = 10_000;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let after = |flag: &str| std::env::args().skip_while(|arg| arg != flag).nth(1);
    if let (Some(dir), Some(how)) = (after("--dir"), after("--start")) {
        return start(Path::new(&dir), &how).await;
    }
    let rows = after("--rows").map_or(Ok(1_000_000), |text| text.parse())?;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    fill(dir.path(), rows).await?;
    for how in ["read", "fold", "snapshot"] {
        let mut child = Process::new(std::env::current_exe()?);
        child.arg("--dir").arg(dir.path()).args(["--start", how]);
        if !child.status()?.success() {
            return Err(how.into());
        }
    }
    Ok(())
}

async fn fill(dir: &Path, rows: u64) -> Result<(), Failure> {
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&dir.join("ledger.db")).await?);
    let settings = BatcherSettings {
        queue: 4096,
        batch: 512,
        writer: "bench".into(),
    };
    let folder = dir.join("snapshots");
    std::fs::create_dir(&folder)?;
    let stop = CancellationToken::new();
    let (ledger, task) = service::start(
        store,
        Arc::new(SystemClock::default()),
        Some(Snapshots::new(folder.clone(), rows)),
        Committed::empty(),
        settings,
        stop.clone(),
    );
    for number in 0..TENANTS {
        ledger.submit(quota(number)?, Origin::server()).await?;
    }
    let (begin, next) = (Instant::now(), Arc::new(AtomicU32::new(0)));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(ledger.clone(), next.clone(), rows));
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    println!("{rows} rows in {:.1} s", begin.elapsed().as_secs_f64());
    while std::fs::read_dir(&folder)?.next().is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What a start finds after its newest snapshot.
    for number in 0..TENANTS {
        let command = Command::RequestLease(lease(number)?);
        ledger.submit(command, Origin::server()).await?;
    }
    stop.cancel();
    Ok(task.await?)
}

async fn client(ledger: Ledger, next: Arc<AtomicU32>, rows: u64) -> Result<(), Failure> {
    while ledger.read().state.seq().0 < rows {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let command = Command::RequestLease(lease(number % TENANTS)?);
        let granted = ledger.submit(command, Origin::server()).await?;
        let Outcome::Lease(lease) = granted.outcome else {
            return Err("no lease".into());
        };
        if !number.is_multiple_of(KEPT) {
            ledger.submit(release(lease.id), Origin::server()).await?;
        }
    }
    Ok(())
}

fn release(lease: LeaseId) -> Command {
    Command::ReleaseLease {
        lease,
        forced: false,
        expected: None,
    }
}

async fn start(dir: &Path, how: &str) -> Result<(), Failure> {
    let before = memory()?;
    let begin = Instant::now();
    let store = SqliteStore::open(&dir.join("ledger.db")).await?;
    if how == "read" {
        let mut seq = Seq(0);
        loop {
            let rows = store.rows_after(seq, PAGE).await?;
            let Some(last) = rows.last() else { break };
            seq = last.seq;
        }
        println!(
            "read, {} rows: {:.2} s",
            seq.0,
            begin.elapsed().as_secs_f64()
        );
        return Ok(());
    }
    let snapshots = Snapshots::new(dir.join("snapshots"), u64::MAX);
    let snapshots = (how == "snapshot").then_some(&snapshots);
    let committed = service::fold(&store, snapshots).await?;
    let took = begin.elapsed().as_secs_f64();
    let live = committed.state.live_leases_after(LeaseId(0)).count();
    println!(
        "{how}, {} rows, {live} leases: {took:.2} s, {} MiB",
        committed.state.seq().0,
        memory()?.saturating_sub(before) >> 10
    );
    Ok(())
}
