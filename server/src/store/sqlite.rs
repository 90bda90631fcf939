//! The journal in an SQLite file: WAL with synchronous=FULL, so what was answered survives kill -9 and power loss.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use gpuquota_core::id::Seq;
use gpuquota_core::meter::Hour;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::base::{BASE, BaseColumns, DROP_BASES, DROP_ROWS, PUT_BASE, base};
use super::sql::{Columns, LAST, ROWS_AFTER, migration_refused, row, signed};
use super::{
    Appended, Base, Row, Store, StoreError, UsageHours, UsageKept, UsageQuery, UsageSum,
    sqlite_append, sqlite_usage,
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

// Rows that a process left in the log when its fsync failed may be in the page cache and not on the disk, and no later
// fsync would write them. Copied into the database they are.
const SETTLE: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

// A ledger that an earlier version made and that is only looked at has no such table.
const HAS_BASES: &str = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'base'";

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
        settle(&writer).await.map_err(|e| open(e.to_string()))?;
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

impl SqliteStore {
    /// Writes a copy of everything as it is at one moment to a new file, also while others write. The copy needs no other
    /// file beside it; it is on the disk when its caller syncs it.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub async fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let done = sqlx::query("VACUUM INTO ?1")
            .bind(path.to_string_lossy())
            .execute(&self.readers)
            .await;
        done.map(|_| ()).map_err(classify)
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
        sqlite_append::append(&self.writer, rows).await
    }

    async fn put_usage(&self, hours: &UsageHours) -> Result<UsageKept, StoreError> {
        let kept = sqlite_usage::put(&self.writer, hours).await;
        kept.map_err(classify)
    }

    async fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageSum>, StoreError> {
        let sums = sqlite_usage::sums(&self.readers, query).await;
        sums.map_err(classify)
    }

    async fn drop_usage_by_device(&self, before: Hour) -> Result<u64, StoreError> {
        let dropped = sqlite_usage::drop_by_device(&self.writer, before).await;
        dropped.map_err(classify)
    }

    async fn usage_by_device_from(&self) -> Result<Option<Hour>, StoreError> {
        let from = sqlite_usage::by_device_from(&self.readers).await;
        from.map_err(classify)
    }

    async fn last(&self) -> Result<Option<Row>, StoreError> {
        let found: Option<Columns> = sqlx::query_as(LAST)
            .fetch_optional(&self.readers)
            .await
            .map_err(classify)?;
        found.map(row).transpose()
    }

    async fn base(&self) -> Result<Option<Base>, StoreError> {
        let tables: i64 = sqlx::query_scalar(HAS_BASES)
            .fetch_one(&self.readers)
            .await
            .map_err(classify)?;
        if tables == 0 {
            return Ok(None);
        }
        let found: Option<BaseColumns> = sqlx::query_as(BASE)
            .fetch_optional(&self.readers)
            .await
            .map_err(classify)?;
        found.map(base).transpose()
    }

    async fn put_base(&self, base: &Base) -> Result<(), StoreError> {
        sqlx::query(PUT_BASE)
            .bind(signed(base.seq)?)
            .bind(base.at.0)
            .bind(base.head.to_string())
            .bind(i64::from(base.format))
            .bind(base.digest.to_string())
            .bind(&base.state)
            .execute(&self.writer)
            .await
            .map_err(classify)?;
        Ok(())
    }

    async fn drop_archived(&self, base: &Base) -> Result<u64, StoreError> {
        let mut transaction = self.writer.begin().await.map_err(classify)?;
        let mut deleted = [0; 2];
        for (statement, deleted) in [DROP_ROWS, DROP_BASES].into_iter().zip(&mut deleted) {
            let done = sqlx::query(statement)
                .bind(signed(base.seq)?)
                .bind(base.digest.to_string())
                .execute(&mut *transaction)
                .await
                .map_err(classify)?;
            *deleted = done.rows_affected();
        }
        transaction.commit().await.map_err(classify)?;
        let [rows, _bases] = deleted;
        Ok(rows)
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

// Brings all rows of the log to the disk before anything is answered from them.
async fn settle(writer: &SqlitePool) -> Result<(), sqlx::Error> {
    let settled = sqlx::query_as::<_, (bool, i64, i64)>(SETTLE);
    let reason = match settled.fetch_one(writer).await {
        Ok((false, _, _)) => return Ok(()),
        Ok((true, _, _)) => "another program reads it",
        Err(error) => match primary(&error) {
            Some(SQLITE_BUSY) => "another program reads it",
            // Reads are served all the same.
            Some(SQLITE_FULL) => "its disk is full",
            _ => return Err(error),
        },
    };
    tracing::warn!(reason, "the ledger's log stays as it is");
    Ok(())
}

pub(super) fn classify(error: sqlx::Error) -> StoreError {
    match primary(&error) {
        Some(SQLITE_BUSY) => StoreError::Busy(error),
        Some(SQLITE_FULL) => StoreError::Full(error),
        _ => StoreError::Fatal(error),
    }
}

// The low byte of a result code.
fn primary(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    Some(code.parse::<i32>().ok()? & 0xff)
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
    async fn case_57_what_a_killed_process_left_in_the_log_is_on_the_disk_before_it_counts() {
        let dir = tempfile::tempdir().unwrap();
        let [path, copy] = ["ledger.db", "copy.db"].map(|name| dir.path().join(name));
        let log = |path: &Path| path.with_extension("db-wal");
        let store = SqliteStore::open(&path).await.unwrap();
        let row = row(Hash::EMPTY, 1, None, "{}");
        store.append(std::slice::from_ref(&row)).await.unwrap();
        // As kill -9 leaves them.
        std::fs::copy(&path, &copy).unwrap();
        std::fs::copy(log(&path), log(&copy)).unwrap();
        assert!(std::fs::metadata(log(&copy)).unwrap().len() > 0);
        let again = SqliteStore::open(&copy).await.unwrap();
        assert_eq!(std::fs::metadata(log(&copy)).unwrap().len(), 0);
        assert_eq!(again.last().await.unwrap(), Some(row));
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
