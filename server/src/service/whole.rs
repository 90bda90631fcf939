//! Folding all that the journal has, without snapshots: from its first row, or from the base that stands for what was
//! archived.
//!
//! A base counts only when a later row notes its digest, so whoever changes it must change the chain of hashes too.

use gpuquota_core::event::Event;
use gpuquota_core::{Record, State};

use super::fold::{FoldError, fold_rows};
use super::{Committed, snapshot};
use crate::store::{Base, Hash, Store};

/// The fold of all that there is.
#[derive(Clone, Debug)]
pub struct Whole {
    /// After the last row.
    pub committed: Committed,
    /// What the oldest row follows; `None` when that is row 1.
    pub base: Option<Base>,
}

/// Folds everything and checks what must always hold. `after` sees each row's record and the ledger after it.
///
/// # Errors
/// When the journal or its base is damaged, or newer than this program.
pub async fn whole(
    store: &dyn Store,
    mut after: impl FnMut(&Committed, &Record) + Send,
) -> Result<Whole, FoldError> {
    let (from, base) = beginning(store).await?;
    let mut vouched = base.is_none();
    let committed = fold_rows(store, from, |committed, record| {
        vouched |= base.as_ref().is_some_and(|base| noted_by(base, record));
        after(committed, record);
    })
    .await?;
    if let Some(base) = base.as_ref().filter(|_| !vouched) {
        return Err(wrong(
            base,
            "is noted by no row after it: the rows or the base were changed; restore the ledger from a backup",
        ));
    }
    committed.state.verify()?;
    Ok(Whole { committed, base })
}

/// The ledger before the oldest row that there is, and the base that it was read from.
///
/// # Errors
/// When the base does not hold together, or a newer program wrote it.
pub(super) async fn beginning(store: &dyn Store) -> Result<(Committed, Option<Base>), FoldError> {
    let base = store.base().await?;
    let from = match &base {
        Some(base) => begin(base)?,
        None => Committed::empty(),
    };
    Ok((from, base))
}

/// The base that stands for everything up to this row.
///
/// # Errors
/// Never in practice: a state is plain data with text keys.
pub fn base_of(committed: &Committed) -> Result<Base, serde_json::Error> {
    let state = serde_json::to_string(&committed.state)?;
    Ok(Base {
        seq: committed.state.seq(),
        at: committed.state.at(),
        head: committed.head,
        format: snapshot::FORMAT,
        digest: Hash::of(state.as_bytes()),
        state,
    })
}

/// The ledger that a base holds.
///
/// # Errors
/// When it does not hold together, or a newer program wrote it.
pub(crate) fn begin(base: &Base) -> Result<Committed, FoldError> {
    if base.format > snapshot::FORMAT {
        return Err(wrong(
            base,
            "was written by a newer program; start that one or a newer one",
        ));
    }
    let damaged = |what: &str| {
        wrong(
            base,
            &format!("{what}; restore the ledger from a backup, or keep it for the investigation"),
        )
    };
    if Hash::of(base.state.as_bytes()) != base.digest {
        return Err(damaged("does not match its digest"));
    }
    let state: State = serde_json::from_str(&base.state)
        .map_err(|error| damaged(&format!("cannot be read ({error})")))?;
    if (state.seq(), state.at()) != (base.seq, base.at) {
        return Err(damaged("holds the state after another row"));
    }
    Ok(Committed {
        state,
        head: base.head,
    })
}

fn noted_by(base: &Base, record: &Record) -> bool {
    record.events.iter().any(|event| match event {
        Event::Archived(archive) => {
            archive.through == base.seq
                && archive.head == base.head.to_string()
                && archive.base == base.digest.to_string()
        }
        _ => false,
    })
}

fn wrong(base: &Base, reason: &str) -> FoldError {
    FoldError::Base {
        seq: base.seq,
        reason: reason.to_owned(),
    }
}
