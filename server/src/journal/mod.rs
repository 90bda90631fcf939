//! Looking after the journal: what the operator's commands `journal`, `backup` and `restore` do.
//!
//! Commands that change something take the directory's lock, so they refuse while a server runs; the others only read.
//! What they write gets its name when it is complete and on the disk. Each says what it did; an error says what to do.

pub mod archive;
pub mod backup;
mod difference;
mod draft;
pub mod export;
pub mod file;
pub mod files;
pub mod rebuild;
pub mod restore;
pub mod verify;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gpuquota_core::Command;
use gpuquota_core::id::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::open;
use crate::service::{self, BatcherSettings, Committed, FoldError, Origin};
use crate::store::{self, ChainError, Place, Store};

/// A check found that the journal, or a copy of it, is not what it must be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Damage(pub String);

/// The program ends with this when something is damaged or differs, and with 1 when a command could not do its work.
pub const DAMAGED: u8 = 3;

/// The exit status for an error.
#[must_use]
pub fn exit_status(error: &anyhow::Error) -> u8 {
    let damaged = error.chain().any(|cause| {
        let fold = cause.downcast_ref::<FoldError>();
        cause.is::<Damage>()
            || cause.is::<ChainError>()
            || fold.is_some_and(|fold| !matches!(fold, FoldError::Store(_)))
    });
    if damaged { DAMAGED } else { 1 }
}

/// A server directory that no server runs on while this lives.
pub(crate) struct Held {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    _lock: File,
}

impl Held {
    pub(crate) async fn take(dir: &Path) -> anyhow::Result<Self> {
        let config = Config::read(dir)?;
        let lock = open::lock(dir)?;
        let store = store::open(&place(&config)?).await?;
        Ok(Self {
            config,
            store,
            _lock: lock,
        })
    }
}

/// The journal of a directory, to look at; a server may run on it.
pub(crate) async fn look(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    Ok(store::open_read_only(&place(config)?).await?)
}

// Where a journal is already; none is made here.
fn place(config: &Config) -> anyhow::Result<Place> {
    let place = config.ledger.place().map_err(anyhow::Error::msg)?;
    if let Place::File(path) = &place {
        anyhow::ensure!(path.exists(), "there is no journal at {}", path.display());
    }
    Ok(place)
}

/// The file of a journal on SQLite; backups of a database are the database's own business.
pub(crate) fn ledger_file(config: &Config) -> anyhow::Result<PathBuf> {
    match config.ledger.place().map_err(anyhow::Error::msg)? {
        Place::File(path) => Ok(path),
        Place::Database(address) => anyhow::bail!(
            "the ledger is in {address}: back it up and restore it with PostgreSQL's own tools, and see the manual"
        ),
    }
}

/// Journals one command without a server, as a server would.
pub(crate) async fn submit(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    committed: Committed,
    command: Command,
    by: Origin,
) -> anyhow::Result<()> {
    let settings = BatcherSettings {
        queue: 1,
        batch: 1,
        writer: uuid::Uuid::new_v4().to_string(),
    };
    let stop = CancellationToken::new();
    let (ledger, batcher) = service::start(store, clock, None, committed, settings, stop.clone());
    let submitted = ledger.submit(command, by).await;
    stop.cancel();
    batcher.await?;
    submitted?;
    Ok(())
}

/// A time in the name of a file: `20261122T113000Z`.
pub(crate) fn stamp(now: Timestamp) -> String {
    let time = jiff::Timestamp::from_millisecond(now.0).unwrap_or(jiff::Timestamp::MAX);
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}
