//! A ledger on a file, with a clock that a test sets.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use gpuquota_core::Command;
use gpuquota_core::command::{OnExcess, QuotaName, SetQuota};
use gpuquota_core::id::{GpuModel, OpId, Region, Seq, TenantName, Timestamp};
use gpuquota_core::limit::Limit;
use gpuquota_core::quota::QuotaSource;
use gpuquota_server::clock::{Clock, ClockJump};
use gpuquota_server::service::{self, BatcherSettings, Ledger, Origin, Snapshots};
use gpuquota_server::store::Store;
use gpuquota_server::store::sqlite::SqliteStore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::databases::Base;

pub(crate) const START: i64 = 1_800_000_000_000;
pub(crate) const HOUR: i64 = 3_600_000;

static WRITERS: AtomicU32 = AtomicU32::new(0);

/// Says what it was told; a negative time is a jump.
#[derive(Debug)]
pub(crate) struct SetClock {
    wall_ms: AtomicI64,
    boot_ms: AtomicU64,
}

impl SetClock {
    pub(crate) fn new(ms: i64) -> Arc<Self> {
        Arc::new(Self {
            wall_ms: AtomicI64::new(ms),
            boot_ms: AtomicU64::new(0),
        })
    }

    /// Lets time pass on the boot clock only.
    pub(crate) fn pass(&self, ms: u64) {
        self.boot_ms.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn set(&self, ms: i64) {
        self.wall_ms.store(ms, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Result<Timestamp, ClockJump> {
        match self.wall_ms.load(Ordering::SeqCst) {
            ms if ms < 0 => Err(ClockJump(ms)),
            ms => Ok(Timestamp(ms)),
        }
    }

    fn wall(&self) -> Timestamp {
        Timestamp(self.wall_ms.load(Ordering::SeqCst))
    }

    fn boot_ms(&self) -> u64 {
        self.boot_ms.load(Ordering::SeqCst)
    }
}

/// A running ledger.
pub(crate) struct Running {
    pub(crate) ledger: Ledger,
    pub(crate) clock: Arc<SetClock>,
    pub(crate) store: Arc<dyn Store>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn on(dir: &Path, clock: Arc<SetClock>) -> Self {
        let store = SqliteStore::open(&dir.join("ledger.db")).await.unwrap();
        Self::opened(Arc::new(store), dir, clock, 1_000_000).await
    }

    pub(crate) async fn of(base: &Base, clock: Arc<SetClock>) -> Self {
        Self::with(base, clock, |store| store, 1_000_000).await
    }

    pub(crate) async fn with(
        base: &Base,
        clock: Arc<SetClock>,
        wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
        snapshot_every: u64,
    ) -> Self {
        let store = wrap(base.store().await);
        Self::opened(store, base.dir.path(), clock, snapshot_every).await
    }

    pub(crate) async fn opened(
        store: Arc<dyn Store>,
        dir: &Path,
        clock: Arc<SetClock>,
        snapshot_every: u64,
    ) -> Self {
        let snapshots = Snapshots::new(dir.join("snapshots"), snapshot_every);
        let committed = service::fold(&*store, Some(&snapshots)).await.unwrap();
        let stop = CancellationToken::new();
        let settings = BatcherSettings {
            queue: 1024,
            batch: 64,
            writer: format!("test-{}", WRITERS.fetch_add(1, Ordering::Relaxed)),
        };
        let (ledger, task) = service::start(
            store.clone(),
            clock.clone(),
            Some(snapshots),
            committed,
            settings,
            stop.clone(),
        );
        Self {
            ledger,
            clock,
            store,
            stop,
            task,
        }
    }

    /// Waits until it has folded a row.
    pub(crate) async fn reaches(&self, seq: u64) {
        let reached = self.ledger.shared().reached(Seq(seq));
        let reached = tokio::time::timeout(Duration::from_secs(10), reached).await;
        assert!(reached.is_ok(), "row {seq} is not followed");
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.store.close().await;
    }

    /// Bytes of the state, to compare two folds.
    pub(crate) fn bytes(&self) -> String {
        serde_json::to_string(&self.ledger.read().state).unwrap()
    }
}

pub(crate) fn set(tenant: &str, limit: u32) -> Command {
    set_until(tenant, limit, None)
}

pub(crate) fn set_until(tenant: &str, limit: u32, end: Option<i64>) -> Command {
    Command::SetQuota(SetQuota {
        name: QuotaName {
            tenant: TenantName::new(tenant).unwrap(),
            region: Region::new("US").unwrap(),
            source: QuotaSource::Purchase,
            gpu_model: GpuModel::new("nvidia.com/gpu").unwrap(),
            quota_type: None,
            reference: None,
        },
        limit: Limit::Finite(limit),
        expires_at: end.map(Timestamp),
        nodes: None,
        on_excess: OnExcess::Deny,
    })
}

pub(crate) fn keyed(key: &str, fingerprint: &str) -> Origin {
    Origin {
        op: Some(OpId::new(key).unwrap()),
        fingerprint: Some(fingerprint.to_owned()),
        ..Origin::server()
    }
}

pub(crate) fn limit_of(ledger: &Ledger, tenant: &str) -> Option<Limit> {
    let tenant = TenantName::new(tenant).unwrap();
    let committed = ledger.read();
    committed.state.quotas_of(&tenant).map(|q| q.limit).next()
}
