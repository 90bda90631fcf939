//! Where a fold of the past may begin: the newest snapshot that is not later than what is asked for.
//!
//! It is trusted as at a start and no further: the journal has the row that it ends at with its hash, a later row of an
//! unbroken chain notes the digest of its bytes, and its state holds together.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use gpuquota_core::id::Seq;

use super::Committed;
use super::fold::{FoldError, read_record, stands};
use super::history::Moment;
use super::snapshot::{self, Candidate, Snapshots};
use crate::store::Store;

/// Rows looked through at a time.
const PAGE: u32 = 1000;

/// The snapshots of this server, and which of them the journal was seen to vouch for.
pub(super) struct Beginnings {
    store: Arc<dyn Store>,
    snapshots: Option<Snapshots>,
    vouched: Mutex<BTreeSet<(Seq, String)>>,
}

impl Beginnings {
    pub(super) fn new(store: Arc<dyn Store>, snapshots: Option<Snapshots>) -> Self {
        Self {
            store,
            snapshots,
            vouched: Mutex::default(),
        }
    }

    /// The newest one from which `moment` can be reached, later than row `after`; `None`: there is none.
    ///
    /// # Errors
    /// When the journal cannot be read, or its chain is broken.
    pub(super) async fn newest(
        &self,
        moment: Moment,
        after: Seq,
        now: &Committed,
    ) -> Result<Option<Committed>, FoldError> {
        let Some(snapshots) = &self.snapshots else {
            return Ok(None);
        };
        // What comes after the last one that was noted is not noted.
        let last = now.state.snapshot().unwrap_or(Seq(0));
        for path in snapshots.files() {
            let in_time = named(&path).is_some_and(|seq| {
                seq > after && seq <= last && !matches!(moment, Moment::Seq(end) if end < seq)
            });
            if !in_time {
                continue;
            }
            if let Some(candidate) = read(path).await
                && moment.follows(&candidate.committed)
                && self.vouches(&candidate).await?
            {
                return Ok(Some(candidate.committed));
            }
        }
        Ok(None)
    }

    async fn vouches(&self, candidate: &Candidate) -> Result<bool, FoldError> {
        if !stands(&*self.store, &candidate.committed).await? {
            return Ok(false);
        }
        let name = (candidate.committed.state.seq(), candidate.digest.clone());
        if self.known(|vouched| vouched.contains(&name)) {
            return Ok(true);
        }
        let noted = self.noted(candidate).await? && candidate.committed.state.verify().is_ok();
        if noted {
            self.known(|vouched| vouched.insert(name));
        } else {
            tracing::warn!(
                snapshot.path = %candidate.path.display(),
                "the journal does not vouch for this snapshot; it is left aside"
            );
        }
        Ok(noted)
    }

    // The note comes soon after what it notes, so mostly this reads few rows.
    async fn noted(&self, candidate: &Candidate) -> Result<bool, FoldError> {
        let (mut seq, mut head) = (candidate.committed.state.seq(), candidate.committed.head);
        loop {
            let rows = self.store.rows_after(seq, PAGE).await?;
            for row in &rows {
                row.check(seq, head)?;
                // No other row is worth reading.
                if row.body.contains(&candidate.digest) && candidate.noted_by(&read_record(row)?) {
                    return Ok(true);
                }
                (seq, head) = (row.seq, row.hash);
            }
            if rows.is_empty() {
                return Ok(false);
            }
            tokio::task::yield_now().await;
        }
    }

    // A set is whole whatever panics beside it.
    fn known<T>(&self, with: impl FnOnce(&mut BTreeSet<(Seq, String)>) -> T) -> T {
        with(&mut self.vouched.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn named(path: &Path) -> Option<Seq> {
    path.file_stem()?.to_str()?.parse().ok().map(Seq)
}

// It may be large, so others work meanwhile.
async fn read(path: PathBuf) -> Option<Candidate> {
    let name = path.clone();
    let read = tokio::task::spawn_blocking(move || snapshot::read(&path)).await;
    match read.ok()? {
        Ok(candidate) => Some(candidate),
        Err(error) => {
            tracing::warn!(
                snapshot.path = %name.display(), error = %error,
                "a snapshot cannot be read; it is left aside"
            );
            None
        }
    }
}
