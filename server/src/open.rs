//! Opening a server directory's ledger, by one process at a time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::service::{self, BatcherSettings, Ledger, Origin, Snapshots};
use crate::store::{self, Store};

const BATCH: usize = 512;

/// Another process has the directory.
#[derive(Debug, thiserror::Error)]
#[error("another server runs on {0}; stop it first")]
pub struct InUse(String);

/// A ledger that is written to here and nowhere else.
pub struct Opened {
    /// Held as long as it is open.
    pub lock: File,
    /// The journal.
    pub store: Arc<dyn Store>,
    /// The handle to ask.
    pub ledger: Ledger,
    /// The one writer.
    pub batcher: JoinHandle<()>,
    /// Ends the writer.
    pub stop: CancellationToken,
}

impl Opened {
    /// Takes the directory's lock, folds the journal and applies what the configuration declares.
    ///
    /// # Errors
    /// [`InUse`] when another process has it; else when it cannot be read, or refuses a declaration.
    pub async fn open(dir: &Path, config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let lock = lock(dir)?;
        let place = config.ledger.place().map_err(anyhow::Error::msg)?;
        let store = store::open(&place).await?;
        let snapshots = snapshots(dir, config);
        let committed = service::fold(&*store, Some(&snapshots)).await?;
        tracing::info!(ledger.place = %place, ledger.seq = committed.state.seq().0, ledger.head = %committed.head, "the journal is folded");
        let settings = BatcherSettings {
            queue: config.ledger.queue,
            batch: BATCH,
            writer: uuid::Uuid::new_v4().to_string(),
        };
        let stop = CancellationToken::new();
        let (ledger, batcher) = service::start(
            store.clone(),
            clock,
            Some(snapshots),
            committed,
            settings,
            stop.clone(),
        );
        declare(&ledger, config).await?;
        Ok(Self {
            lock,
            store,
            ledger,
            batcher,
            stop,
        })
    }

    /// Ends the writer and closes the journal.
    pub async fn close(self) {
        self.stop.cancel();
        if !self.batcher.is_finished() {
            let _ = self.batcher.await;
        }
        self.store.close().await;
    }
}

/// The snapshots of a directory.
pub(crate) fn snapshots(dir: &Path, config: &Config) -> Snapshots {
    Snapshots::new(snapshot_folder(dir), config.ledger.snapshot_every_rows)
}

/// Where they are.
pub(crate) fn snapshot_folder(dir: &Path) -> PathBuf {
    dir.join("snapshots")
}

// Held for the life of the process: two writers on one directory would not corrupt it, but neither is meant.
pub(crate) fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("ledger.lock");
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(InUse(dir.display().to_string()).into());
    }
    Ok(file)
}

async fn declare(ledger: &Ledger, config: &Config) -> anyhow::Result<()> {
    for declared in config.declarations() {
        let command = declared.command();
        let what = format!("{command:?}");
        ledger
            .submit(command, Origin::server())
            .await
            .with_context(|| format!("server.toml declares what the ledger refuses: {what}"))?;
    }
    Ok(())
}
