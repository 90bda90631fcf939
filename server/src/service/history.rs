//! What the journal holds of the past: its rows for the audit, and the ledger as it stood after any of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gpuquota_core::Record;
use gpuquota_core::id::{Seq, Timestamp};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::beginnings::Beginnings;
use super::fold::{FoldError, read_record, step};
use super::whole::beginning;
use super::{Committed, Snapshots};
use crate::store::{Row, Store};

/// Rows folded between two looks at whether others want to work.
const PAGE: u32 = 1000;
/// States that are kept to begin the next fold from.
const KEPT: usize = 4;
/// How long a caller waits for another's fold, and then for its own.
const PATIENCE: Duration = Duration::from_secs(20);

/// A moment of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// After this row.
    Seq(Seq),
    /// After the last row that is not later.
    Time(Timestamp),
}

impl Moment {
    fn includes(self, row: &Row) -> bool {
        match self {
            Self::Seq(seq) => row.seq <= seq,
            Self::Time(time) => row.at <= time,
        }
    }

    // Whether the state is one that this moment can be reached from.
    pub(super) fn follows(self, committed: &Committed) -> bool {
        match self {
            Self::Seq(seq) => committed.state.seq() <= seq,
            Self::Time(time) => committed.state.at() <= time,
        }
    }
}

/// Why the past is not told.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// It has not happened yet.
    #[error(
        "the journal ends at row {last}; ask for one up to that, or for a time that has passed"
    )]
    Future {
        /// Its last row.
        last: Seq,
    },
    /// The rows up to then are in archives.
    #[error(
        "the journal's rows before {first} are archived; ask for {first} or later, or look into the archives"
    )]
    Archived {
        /// The first row as of which can be asked.
        first: Seq,
    },
    /// Others ask for the past too, or it is long.
    #[error(
        "the ledger of that time could not be folded in time; ask again, for a later one if you can"
    )]
    Busy,
    /// The journal could not be read.
    #[error(transparent)]
    Fold(#[from] FoldError),
}

/// The journal's past.
pub struct History {
    store: Arc<dyn Store>,
    /// One fold at a time: each takes a core.
    folding: Semaphore,
    kept: Mutex<Vec<Arc<Committed>>>,
    beginnings: Beginnings,
    folded: AtomicU64,
}

impl History {
    /// Of this journal, with the snapshots that were made of it beside this server.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, snapshots: Option<Snapshots>) -> Self {
        Self {
            beginnings: Beginnings::new(store.clone(), snapshots),
            folded: AtomicU64::new(0),
            store,
            folding: Semaphore::new(1),
            kept: Mutex::default(),
        }
    }

    /// Rows folded so far to tell the past.
    #[must_use]
    pub fn folded(&self) -> u64 {
        self.folded.load(Ordering::Relaxed)
    }

    /// Up to `most` rows after `seq`, and what each says.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn rows(&self, seq: Seq, most: u32) -> Result<Vec<(Row, Record)>, FoldError> {
        let rows = self.store.rows_after(seq, most).await?;
        let rows = rows.into_iter().map(|row| {
            let record = read_record(&row)?;
            Ok((row, record))
        });
        rows.collect()
    }

    /// The ledger as it stood at `moment`; `now` is the newest state there is.
    ///
    /// # Errors
    /// When it has not happened yet, cannot be read, or takes too long.
    pub async fn at(
        &self,
        moment: Moment,
        now: &Arc<Committed>,
    ) -> Result<Arc<Committed>, HistoryError> {
        let last = now.state.seq();
        match moment {
            Moment::Seq(seq) if seq == last => return Ok(now.clone()),
            Moment::Seq(seq) if seq > last => return Err(HistoryError::Future { last }),
            Moment::Time(time) if time >= now.state.at() => return Ok(now.clone()),
            Moment::Seq(_) | Moment::Time(_) => {}
        }
        let permit = timeout(PATIENCE, self.folding.acquire()).await;
        let _permit = permit.ok().and_then(Result::ok).ok_or(HistoryError::Busy)?;
        let folded = timeout(PATIENCE, self.fold(moment, now)).await;
        let folded = folded.map_err(|_| HistoryError::Busy)??;
        self.keep(&folded);
        Ok(folded)
    }

    async fn fold(&self, moment: Moment, now: &Committed) -> Result<Arc<Committed>, HistoryError> {
        let kept = self.nearest(moment);
        let after = kept.as_ref().map_or(Seq(0), |kept| kept.state.seq());
        let newer = self.beginnings.newest(moment, after, now).await?;
        let mut committed = match (newer, kept) {
            (Some(newer), _) => newer,
            (None, Some(kept)) => Committed::clone(&kept),
            (None, None) => beginning(&*self.store).await?.0,
        };
        let first = committed.state.seq();
        if first > Seq(0) && !moment.follows(&committed) {
            return Err(HistoryError::Archived { first });
        }
        loop {
            let rows = self.store.rows_after(committed.state.seq(), PAGE).await;
            let rows = rows.map_err(FoldError::from)?;
            for row in &rows {
                if !moment.includes(row) {
                    return Ok(Arc::new(committed));
                }
                step(&mut committed, row)?;
                self.folded.fetch_add(1, Ordering::Relaxed);
            }
            if rows.is_empty() {
                return Ok(Arc::new(committed));
            }
            tokio::task::yield_now().await;
        }
    }

    fn nearest(&self, moment: Moment) -> Option<Arc<Committed>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let before = kept.iter().filter(|kept| moment.follows(kept));
        before.max_by_key(|kept| kept.state.seq()).cloned()
    }

    fn keep(&self, folded: &Arc<Committed>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|known| known.state.seq() != folded.state.seq());
        kept.insert(0, folded.clone());
        kept.truncate(KEPT);
    }
}
