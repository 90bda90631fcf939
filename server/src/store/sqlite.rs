//! The journal in an SQLite file: WAL with synchronous=FULL, so what was answered survives kill -9 and power loss.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use gpuquota_core::id::Seq;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::sql::{Columns, ROWS_AFTER, migration_refused, row, signed};
use super::{Appended, Row, Store, StoreError};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

// One statement, one transaction, one fsync. The guard makes it do nothing when another writer was first.
const APPEND: &str = "\
INSERT INTO journal (seq, at, writer, op, body, hash)
SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4, r.value ->> 5
FROM json_each(?1) AS r
WHERE (SELECT coalesce(max(seq), 0) FROM journal) = ?2";

// SQLite result codes, https://www.sqlite.org/rescode.html
const SQLITE_BUSY: i32 = 5;
const SQLITE_FULL: i32 = 13;

/// How long another program may hold the file before it counts as busy.
const BUSY: Duration = Duration::from_secs(5);

/// A journal in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteStore {
    /// Opens the journal at `path`, making the file and its tables where they are missing.
    ///
    /// # Errors
    /// When the file cannot be opened or its schema is newer than this program.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let open = |reason: String| StoreError::Open {
            path: path.display().to_string(),
            reason,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options.clone())
            .await
            .map_err(|e| open(e.to_string()))?;
        let migrated = MIGRATIONS.run(&writer).await;
        migrated.map_err(|e| open(migration_refused(&e)))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(2)
            .connect_with(options)
            .await
            .map_err(|e| open(e.to_string()))?;
        Ok(Self { writer, readers })
    }

    /// Opens the journal at `path` for reading only; nothing is made and nothing changed.
    ///
    /// # Errors
    /// When there is no journal that can be read.
    pub async fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(BUSY);
        let readers = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .map_err(|e| StoreError::Open {
                path: path.display().to_string(),
                reason: e.to_string(),
            })?;
        Ok(Self {
            writer: readers.clone(),
            readers,
        })
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn rows_after(&self, seq: Seq, most: u32) -> Result<Vec<Row>, StoreError> {
        let rows: Vec<Columns> = sqlx::query_as(ROWS_AFTER)
            .bind(signed(seq)?)
            .bind(i64::from(most))
            .fetch_all(&self.readers)
            .await
            .map_err(classify)?;
        rows.into_iter().map(row).collect()
    }

    async fn append(&self, rows: &[Row]) -> Result<Appended, StoreError> {
        let Some(first) = rows.first() else {
            return Ok(Appended::Written);
        };
        let values: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    row.seq,
                    row.at,
                    &row.writer,
                    &row.op,
                    &row.body,
                    row.hash.to_string(),
                )
            })
            .collect();
        let values = serde_json::to_string(&values)
            .map_err(|e| StoreError::Fatal(sqlx::Error::Encode(e.into())))?;
        let done = sqlx::query(APPEND)
            .bind(values)
            .bind(signed(first.seq)? - 1)
            .execute(&self.writer)
            .await
            .map_err(classify)?;
        match done.rows_affected() {
            0 => Ok(Appended::Behind),
            _ => Ok(Appended::Written),
        }
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

fn classify(error: sqlx::Error) -> StoreError {
    let code = error
        .as_database_error()
        .and_then(|database| database.code()?.parse::<i32>().ok());
    // The low byte is the primary code.
    match code.map(|code| code & 0xff) {
        Some(SQLITE_BUSY) => StoreError::Busy(error),
        Some(SQLITE_FULL) => StoreError::Full(error),
        _ => StoreError::Fatal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Hash;
    use gpuquota_core::id::{OpId, Timestamp};

    fn row(previous: Hash, seq: u64, op: Option<&str>, body: &str) -> Row {
        let op = op.map(|op| OpId::new(op).unwrap());
        Row::new(previous, Seq(seq), Timestamp(1), "w", op, body.into())
    }

    #[tokio::test]
    async fn a_lock_of_another_program_is_waited_out_and_no_failure_of_the_storage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let options = SqliteConnectOptions::new().filename(&path);
        let other = SqlitePool::connect_with(options).await.unwrap();
        let mut other = other.acquire().await.unwrap();
        let begin = sqlx::query("BEGIN IMMEDIATE").execute(&mut *other);
        begin.await.unwrap();
        // As in the store, but without its patience.
        let impatient = SqliteConnectOptions::new()
            .filename(&path)
            .busy_timeout(Duration::ZERO);
        let impatient = SqlitePool::connect_with(impatient).await.unwrap();
        let error = sqlx::query("DELETE FROM journal").execute(&impatient).await;
        let error = classify(error.unwrap_err());
        assert!(matches!(error, StoreError::Busy(_)), "{error:?}");
        sqlx::query("ROLLBACK").execute(&mut *other).await.unwrap();
        let row = row(Hash::EMPTY, 1, None, "{}");
        assert_eq!(store.append(&[row]).await.unwrap(), Appended::Written);
    }
}
