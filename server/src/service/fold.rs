//! Folding the journal into a state: at start from a snapshot or from nothing, and to catch up with another writer.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gpuquota_core::event::Event;
use gpuquota_core::id::{NodeName, Seq, SessionId};
use gpuquota_core::mutant::{Mutant, planted};
use gpuquota_core::{Broken, Record};

use super::Committed;
use super::batch::caller_op;
use super::snapshot::{Candidate, Snapshots};
use super::whole::whole;
use crate::store::{ChainError, Row, Store, StoreError};

const PAGE: u32 = 10_000;

/// Why the journal cannot be folded. Nothing is changed on disk.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The database did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row is missing or was changed.
    #[error("{0}; restore the ledger from a backup, or keep it for the investigation")]
    Chain(#[from] ChainError),
    /// A row's body is not one that this program knows.
    #[error(
        "journal row {seq} was written by a newer program ({source}); start that one or a newer one"
    )]
    Unknown {
        /// Which row.
        seq: Seq,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// The last row that was known is not there any more, or another one is.
    #[error(
        "journal row {seq} is gone or another one: the journal was replaced or cut while the server ran; \
         restart on the journal that is to count"
    )]
    WentBack {
        /// Which row.
        seq: Seq,
    },
    /// What stands for the archived rows is not what the journal says it is.
    #[error("the base that stands for the journal rows up to {seq} {reason}")]
    Base {
        /// Last row that it stands for.
        seq: Seq,
        /// What is wrong, with what to do.
        reason: String,
    },
    /// The rows fold, but not into a state that may be.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// Folds the whole journal, from the newest snapshot that the journal itself vouches for.
///
/// # Errors
/// When the journal is damaged or newer than this program.
pub async fn fold(
    store: &dyn Store,
    snapshots: Option<&Snapshots>,
) -> Result<Committed, FoldError> {
    if let Some(snapshots) = snapshots {
        for candidate in snapshots.candidates() {
            if let Some(committed) = fold_from(store, &candidate).await? {
                committed.state.verify()?;
                return Ok(committed);
            }
            tracing::warn!(
                snapshot.path = %candidate.path.display(),
                "the journal does not vouch for this snapshot; it is left aside"
            );
        }
    }
    Ok(whole(store, |_, _| {}).await?.committed)
}

/// By which connection rows are read.
#[derive(Clone, Copy)]
pub(super) enum Through {
    /// The one that writes: what it was about to write is settled.
    Writer,
    /// Any other.
    Readers,
}

impl Through {
    async fn rows(self, store: &dyn Store, seq: Seq, most: u32) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Writer => store.catch_up(seq, most).await,
            Self::Readers => store.rows_after(seq, most).await,
        }
    }
}

/// What other writers did since.
pub(super) struct Followed {
    pub(super) committed: Committed,
    /// Sessions that were opened.
    pub(super) opened: Vec<(NodeName, SessionId)>,
    /// Servers that wrote rows.
    pub(super) writers: BTreeSet<String>,
}

/// Folds what was appended after `from`; `None`: nothing was.
pub(super) async fn follow(
    store: &dyn Store,
    from: &Committed,
    through: Through,
) -> Result<Option<Followed>, FoldError> {
    let mut rows = rows_since(store, from, PAGE, through).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut followed = Followed {
        committed: from.clone(),
        opened: Vec::new(),
        writers: BTreeSet::new(),
    };
    loop {
        let opened = &mut followed.opened;
        fold_page(&mut followed.committed, &rows, |event| {
            if let Event::SessionOpened { node, session, .. } = event {
                opened.push((node.clone(), *session));
            }
        })?;
        let whole = u32::try_from(rows.len()).is_ok_and(|rows| rows >= PAGE);
        followed
            .writers
            .extend(rows.into_iter().map(|row| row.writer));
        if !whole {
            break;
        }
        rows = through
            .rows(store, followed.committed.state.seq(), PAGE)
            .await?;
    }
    if planted(Mutant::DecideOnStaleState) {
        followed.committed = misnamed(from, &followed.committed);
    }
    Ok(Some(followed))
}

// For `planted` only: the state of `old` under the name of `new`.
fn misnamed(old: &Committed, new: &Committed) -> Committed {
    let mut state = old.state.clone();
    let nothing = Record {
        actor: String::new(),
        request_id: None,
        from: None,
        reason: None,
        tenants: Default::default(),
        replay: None,
        events: Vec::new(),
    };
    state.apply(new.state.seq(), new.state.at(), None, &nothing);
    let head = new.head;
    Committed { state, head }
}

/// Up to `most` rows after `from`, whose own last row must still be there.
pub(super) async fn rows_since(
    store: &dyn Store,
    from: &Committed,
    most: u32,
    through: Through,
) -> Result<Vec<Row>, FoldError> {
    let seq = from.state.seq();
    let Some(before) = seq.0.checked_sub(1) else {
        return Ok(through.rows(store, seq, most).await?);
    };
    let most = most.saturating_add(1);
    let mut rows = through.rows(store, Seq(before), most).await?;
    if rows.first().map(|row| (row.seq, row.hash)) == Some((seq, from.head)) {
        rows.remove(0);
        return Ok(rows);
    }
    if archived(store, from).await? {
        return Ok(rows);
    }
    Err(FoldError::WentBack { seq })
}

// Whether the journal holds the last row of `committed`, and not another in its place.
pub(super) async fn stands(store: &dyn Store, committed: &Committed) -> Result<bool, FoldError> {
    let seq = committed.state.seq();
    let Some(before) = seq.0.checked_sub(1) else {
        return Ok(true);
    };
    let row = store.rows_after(Seq(before), 1).await?;
    if let Some(row) = row.first().filter(|row| row.seq == seq) {
        return Ok(row.hash == committed.head);
    }
    archived(store, committed).await
}

// Whether the last row of `committed` is the last of those that were archived.
async fn archived(store: &dyn Store, committed: &Committed) -> Result<bool, FoldError> {
    let base = store.base().await?;
    let end = (committed.state.seq(), committed.head);
    Ok(base.is_some_and(|base| (base.seq, base.head) == end))
}

// A snapshot counts only when the row that it ends at has its hash and a later row notes its digest.
async fn fold_from(
    store: &dyn Store,
    candidate: &Candidate,
) -> Result<Option<Committed>, FoldError> {
    if !stands(store, &candidate.committed).await? {
        return Ok(None);
    }
    let mut noted = false;
    let committed = fold_rows(store, candidate.committed.clone(), |_, record| {
        noted |= candidate.noted_by(record);
    })
    .await?;
    Ok((noted || planted(Mutant::TrustAnySnapshot)).then_some(committed))
}

pub(super) async fn fold_rows(
    store: &dyn Store,
    mut committed: Committed,
    mut seen: impl FnMut(&Committed, &Record) + Send,
) -> Result<Committed, FoldError> {
    loop {
        let rows = store.rows_after(committed.state.seq(), PAGE).await?;
        if rows.is_empty() {
            return Ok(committed);
        }
        for row in &rows {
            let record = step(&mut committed, row)?;
            seen(&committed, &record);
        }
    }
}

fn fold_page(
    committed: &mut Committed,
    rows: &[Row],
    mut seen: impl FnMut(&Event),
) -> Result<(), FoldError> {
    for row in rows {
        let record = step(committed, row)?;
        record.events.iter().for_each(&mut seen);
    }
    Ok(())
}

/// Folds the next row.
///
/// # Errors
/// When it is not the next one, cannot be read, or contradicts those before it.
pub(crate) fn step(committed: &mut Committed, row: &Row) -> Result<Record, FoldError> {
    row.check(committed.state.seq(), committed.head)?;
    let record = read_record(row)?;
    let op = caller_op(row, &record).filter(|_| !planted(Mutant::ForgetOperations));
    let state = &mut committed.state;
    catch_unwind(AssertUnwindSafe(|| {
        state.apply(row.seq, row.at, op.as_ref(), &record);
    }))
    .map_err(|_| {
        Broken(format!(
            "journal row {} contradicts those before it",
            row.seq
        ))
    })?;
    committed.head = row.hash;
    Ok(record)
}

/// What a row says.
///
/// # Errors
/// When a newer program wrote it.
pub(crate) fn read_record(row: &Row) -> Result<Record, FoldError> {
    serde_json::from_str(&row.body).map_err(|source| FoldError::Unknown {
        seq: row.seq,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Hash;
    use gpuquota_core::id::Timestamp;
    use serde_json::{Value, json};

    #[test]
    fn case_47_a_row_with_a_field_of_a_newer_program_is_refused() {
        let key = json!({"tenant": "a", "region": "r", "source": "assign", "type": "mig", "gpu_model": "m"});
        let denied = json!({"denied": {"rule": "reference_taken", "reference": 1, "key": key}});
        let device = json!({"key": "GPU-1", "health": "ok", "model": "m", "gpu_model": "m"});
        let body = json!({
            "actor": "server",
            "replay": {"fingerprint": "f", "answer": denied},
            "events": [
                {"type": "tenant_created", "tenant": "a"},
                {"type": "quota_set", "quota": 0, "key": key, "limit": {"finite": 1},
                 "expires_at": null, "reference": null},
                {"type": "node_reported", "node": "n", "spool": "s", "number": 1, "observed_at": 1,
                 "full": true, "facts": {"nvml": "ok"}, "devices": [device]},
            ],
        });
        let read = |body: &Value| {
            let body = body.to_string();
            read_record(&Row::new(
                Hash::EMPTY,
                Seq(1),
                Timestamp(1),
                "w",
                None,
                body,
            ))
        };
        assert!(read(&body).is_ok());
        for place in [
            "",
            "/replay",
            "/replay/answer/denied",
            "/replay/answer/denied/key",
            "/events/0",
            "/events/1",
            "/events/1/key",
            "/events/2",
            "/events/2/facts",
            "/events/2/devices/0",
        ] {
            let mut newer = body.clone();
            newer.pointer_mut(place).unwrap()["of_a_later_version"] = json!(1);
            let refused = read(&newer);
            assert!(matches!(refused, Err(FoldError::Unknown { .. })), "{place}");
        }
    }
}
