//! `journal verify`: every hash, every row, every invariant, without changing anything.

use std::path::Path;

use crate::config::Config;
use crate::service;
use crate::store::Store as _;
use crate::store::sqlite::SqliteStore;

/// Checks the journal of a server directory and says what it found.
///
/// # Errors
/// When the journal cannot be read, a hash does not fit, a row does not fold, or an invariant does not hold.
pub async fn verify(dir: &Path) -> anyhow::Result<String> {
    let config = Config::read(dir)?;
    anyhow::ensure!(
        config.ledger.path.exists(),
        "there is no journal at {}",
        config.ledger.path.display()
    );
    let store = SqliteStore::open_read_only(&config.ledger.path).await?;
    // Without a snapshot, so that every row is looked at.
    let committed = service::fold(&store, None).await;
    store.close().await;
    let committed = committed?;
    let state = &committed.state;
    Ok(format!(
        "journal is whole: {} rows, head {}; {} quotas, {} nodes, {} devices",
        state.seq(),
        committed.head,
        state.quotas().count(),
        state.nodes().count(),
        state.devices().count(),
    ))
}
