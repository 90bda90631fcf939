//! What both databases share: texts of statements, and a row between its columns and the journal's own type.

use gpuquota_core::id::{OpId, Seq, Timestamp};
use sqlx::migrate::MigrateError;

use super::{Row, StoreError};

pub(super) const ROWS_AFTER: &str = "\
SELECT seq, at, writer, op, body, hash FROM journal WHERE seq > $1 ORDER BY seq LIMIT $2";

pub(super) const LAST: &str = "\
SELECT seq, at, writer, op, body, hash FROM journal ORDER BY seq DESC LIMIT 1";

/// The columns of `journal`, in order.
pub(super) type Columns = (i64, i64, String, Option<String>, String, String);

pub(super) fn row((seq, at, writer, op, body, hash): Columns) -> Result<Row, StoreError> {
    Ok(Row {
        seq: number(seq)?,
        at: Timestamp(at),
        writer,
        op: match op {
            Some(op) => Some(OpId::new(&op).map_err(decoding)?),
            None => None,
        },
        body,
        hash: hash.parse().map_err(decoding)?,
    })
}

/// A row number as both databases keep it.
pub(super) fn signed(seq: Seq) -> Result<i64, StoreError> {
    i64::try_from(seq.0).map_err(|e| StoreError::Fatal(sqlx::Error::Encode(e.into())))
}

/// The row number that a database keeps.
pub(super) fn number(seq: i64) -> Result<Seq, StoreError> {
    u64::try_from(seq).map(Seq).map_err(decoding)
}

pub(super) fn decoding(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Fatal(sqlx::Error::Decode(error.into()))
}

/// Why a schema cannot be brought to this program's, with what to do.
pub(super) fn migration_refused(error: &MigrateError) -> String {
    match error {
        MigrateError::VersionMissing(version) => format!(
            "its schema has step {version}, which this program does not know; \
             a ledger of a newer program needs that program or a newer one"
        ),
        error => error.to_string(),
    }
}
