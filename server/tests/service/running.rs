//! A ledger on a file, with a clock that a test sets.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use gpuquota_core::Command;
use gpuquota_core::command::{OnExcess, QuotaName, SetQuota};
use gpuquota_core::id::{GpuModel, OpId, Region, TenantName, Timestamp};
use gpuquota_core::limit::Limit;
use gpuquota_core::quota::QuotaSource;
use gpuquota_server::clock::{Clock, ClockJump};
use gpuquota_server::service::{self, BatcherSettings, Ledger, Origin, Snapshots};
use gpuquota_server::store::Store;
use gpuquota_server::store::sqlite::SqliteStore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const START: i64 = 1_800_000_000_000;
pub(crate) const HOUR: i64 = 3_600_000;

/// Says what it was told; a negative time is a jump.
#[derive(Debug)]
pub(crate) struct SetClock(AtomicI64);

impl SetClock {
    pub(crate) fn new(ms: i64) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(ms)))
    }

    pub(crate) fn set(&self, ms: i64) {
        self.0.store(ms, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Result<Timestamp, ClockJump> {
        match self.0.load(Ordering::SeqCst) {
            ms if ms < 0 => Err(ClockJump(ms)),
            ms => Ok(Timestamp(ms)),
        }
    }

    fn wall(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }

    fn boot_ms(&self) -> u64 {
        0
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
        Self::with(dir, clock, |store| store, 1_000_000).await
    }

    pub(crate) async fn with(
        dir: &Path,
        clock: Arc<SetClock>,
        wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
        snapshot_every: u64,
    ) -> Self {
        let store = SqliteStore::open(&dir.join("ledger.db")).await.unwrap();
        let store = wrap(Arc::new(store));
        let snapshots = Snapshots::new(dir.join("snapshots"), snapshot_every);
        let committed = service::fold(&*store, Some(&snapshots)).await.unwrap();
        let stop = CancellationToken::new();
        let settings = BatcherSettings {
            queue: 1024,
            batch: 64,
            writer: "test".into(),
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
