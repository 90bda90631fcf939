//! `journal verify`: every hash, every row, every invariant, without changing anything.

use std::path::Path;

use crate::config::Config;
use crate::service;
use crate::store::{self, Place};

/// Checks the journal of a server directory and says what it found.
///
/// # Errors
/// When the journal cannot be read, a hash does not fit, a row does not fold, or an invariant does not hold.
pub async fn verify(dir: &Path) -> anyhow::Result<String> {
    let config = Config::read(dir)?;
    let place = config.ledger.place().map_err(anyhow::Error::msg)?;
    if let Place::File(path) = &place {
        anyhow::ensure!(path.exists(), "there is no journal at {}", path.display());
    }
    let store = store::open_read_only(&place).await?;
    // Without a snapshot, so that every row is looked at.
    let committed = service::fold(&*store, None).await;
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
