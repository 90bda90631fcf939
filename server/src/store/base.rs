//! A base: the state that stands for rows which were moved into an archive.

use gpuquota_core::id::{Seq, Timestamp};

use super::sql::{decoding, number};
use super::{Hash, StoreError};

// A journal without rows has its newest base, if any: it began somewhere, and whoever folds it must notice.
pub(super) const BASE: &str = "\
SELECT seq, at, head, format, digest, state FROM base
WHERE seq = coalesce((SELECT min(seq) FROM journal) - 1, (SELECT max(seq) FROM base))";

pub(super) const PUT_BASE: &str = "\
INSERT INTO base (seq, at, head, format, digest, state) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (seq) DO UPDATE SET
    at = excluded.at, head = excluded.head, format = excluded.format,
    digest = excluded.digest, state = excluded.state";

pub(super) const DROP_ROWS: &str = "\
DELETE FROM journal
WHERE seq <= $1 AND EXISTS (SELECT 1 FROM base WHERE base.seq = $1 AND base.digest = $2)";

pub(super) const DROP_BASES: &str = "\
DELETE FROM base
WHERE seq < $1 AND EXISTS (SELECT 1 FROM base AS kept WHERE kept.seq = $1 AND kept.digest = $2)";

/// The columns of `base`, in order.
pub(super) type BaseColumns = (i64, i64, String, i64, String, String);

pub(super) fn base(columns: BaseColumns) -> Result<Base, StoreError> {
    let (seq, at, head, format, digest, state) = columns;
    Ok(Base {
        seq: number(seq)?,
        at: Timestamp(at),
        head: head.parse().map_err(decoding)?,
        format: u32::try_from(format).map_err(decoding)?,
        digest: digest.parse().map_err(decoding)?,
        state,
    })
}

/// The state after some row, as text; what it means is the service's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Last row in it.
    pub seq: Seq,
    /// Time of that row.
    pub at: Timestamp,
    /// Hash of that row.
    pub head: Hash,
    /// Which version of the state's JSON.
    pub format: u32,
    /// Of `state`.
    pub digest: Hash,
    /// The state as JSON.
    pub state: String,
}
