//! The journal in an SQLite file: WAL with synchronous=FULL, so what was answered survives kill -9 and power loss.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use gpuquota_core::id::{OpId, Seq, Timestamp};
use sqlx::Row as _;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};

use super::{Appended, Base, Row, Store, StoreError};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

// One statement, one transaction, one fsync. The guard makes it do nothing when another writer was first.
const APPEND: &str = "\
INSERT INTO journal (seq, at, writer, op, body, hash)
SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4, r.value ->> 5
FROM json_each(?1) AS r
WHERE (SELECT coalesce(max(seq), 0) FROM journal) = ?2";

const ROWS_AFTER: &str = "\
SELECT seq, at, writer, op, body, hash FROM journal WHERE seq > ?1 ORDER BY seq LIMIT ?2";

const LAST: &str = "\
SELECT seq, at, writer, op, body, hash FROM journal ORDER BY seq DESC LIMIT 1";

// A journal without rows has its newest base, if any: it began somewhere, and whoever folds it must notice.
const BASE: &str = "\
SELECT seq, at, head, format, digest, state FROM base
WHERE seq = coalesce((SELECT min(seq) FROM journal) - 1, (SELECT max(seq) FROM base))";

const PUT_BASE: &str = "\
INSERT INTO base (seq, at, head, format, digest, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (seq) DO UPDATE SET
    at = excluded.at, head = excluded.head, format = excluded.format,
    digest = excluded.digest, state = excluded.state";

const DROP_ROWS: &str = "\
DELETE FROM journal
WHERE seq <= ?1 AND EXISTS (SELECT 1 FROM base WHERE seq = ?1 AND digest = ?2)";

const DROP_BASES: &str = "\
DELETE FROM base
WHERE seq < ?1 AND EXISTS (SELECT 1 FROM base AS kept WHERE kept.seq = ?1 AND kept.digest = ?2)";

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
        MIGRATIONS.run(&writer).await.map_err(|e| {
            open(format!(
                "{e}; a ledger of a newer program needs that program or a newer one"
            ))
        })?;
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
        let rows = sqlx::query(ROWS_AFTER)
            .bind(signed(seq)?)
            .bind(most)
            .fetch_all(&self.readers)
            .await
            .map_err(classify)?;
        rows.iter().map(|row| read(row).map_err(classify)).collect()
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

    async fn last(&self) -> Result<Option<Row>, StoreError> {
        let row = sqlx::query(LAST)
            .fetch_optional(&self.readers)
            .await
            .map_err(classify)?;
        row.map(|row| read(&row).map_err(classify)).transpose()
    }

    async fn base(&self) -> Result<Option<Base>, StoreError> {
        let tables: i64 = sqlx::query_scalar(HAS_BASES)
            .fetch_one(&self.readers)
            .await
            .map_err(classify)?;
        if tables == 0 {
            return Ok(None);
        }
        let row = sqlx::query(BASE)
            .fetch_optional(&self.readers)
            .await
            .map_err(classify)?;
        row.map(|row| read_base(&row).map_err(classify)).transpose()
    }

    async fn put_base(&self, base: &Base) -> Result<(), StoreError> {
        sqlx::query(PUT_BASE)
            .bind(signed(base.seq)?)
            .bind(base.at.0)
            .bind(base.head.to_string())
            .bind(base.format)
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

fn signed(seq: Seq) -> Result<i64, StoreError> {
    i64::try_from(seq.0).map_err(|e| StoreError::Fatal(sqlx::Error::Encode(e.into())))
}

fn read(row: &SqliteRow) -> Result<Row, sqlx::Error> {
    let decode = |e: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(e);
    let seq: i64 = row.try_get(0)?;
    let op: Option<String> = row.try_get(3)?;
    let hash: String = row.try_get(5)?;
    Ok(Row {
        seq: Seq(u64::try_from(seq).map_err(|e| decode(e.into()))?),
        at: Timestamp(row.try_get(1)?),
        writer: row.try_get(2)?,
        op: match op {
            Some(op) => Some(OpId::new(&op).map_err(|e| decode(e.into()))?),
            None => None,
        },
        body: row.try_get(4)?,
        hash: hash
            .parse()
            .map_err(|e: super::row::InvalidHash| decode(e.into()))?,
    })
}

fn read_base(row: &SqliteRow) -> Result<Base, sqlx::Error> {
    let decode = |e: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(e);
    let seq: i64 = row.try_get(0)?;
    let hash = |column: usize| {
        let text: String = row.try_get(column)?;
        text.parse()
            .map_err(|e: super::row::InvalidHash| decode(e.into()))
    };
    Ok(Base {
        seq: Seq(u64::try_from(seq).map_err(|e| decode(e.into()))?),
        at: Timestamp(row.try_get(1)?),
        head: hash(2)?,
        format: row.try_get(3)?,
        digest: hash(4)?,
        state: row.try_get(5)?,
    })
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

    #[tokio::test]
    async fn rows_come_back_byte_for_byte_and_only_the_first_writer_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let body = r#"{"text":"\u0000 \" ä \n","n":1}"#;
        let first = row(Hash::EMPTY, 1, Some("op ä\"1"), body);
        let second = row(first.hash, 2, None, "{}");
        let both = [first.clone(), second.clone()];
        assert_eq!(store.append(&both).await.unwrap(), Appended::Written);
        assert_eq!(store.append(&both).await.unwrap(), Appended::Behind);
        assert_eq!(
            store
                .append(&[row(Hash::EMPTY, 9, None, "{}")])
                .await
                .unwrap(),
            Appended::Behind
        );
        store.close().await;
        let again = SqliteStore::open(&path).await.unwrap();
        assert_eq!(again.rows_after(Seq(0), 10).await.unwrap(), both);
        assert_eq!(
            again.rows_after(Seq(1), 10).await.unwrap(),
            std::slice::from_ref(&second)
        );
        assert_eq!(again.rows_after(Seq(0), 1).await.unwrap(), [first]);
        // One operation id, one effect: the index says so even if a decision were wrong.
        let doubled = row(second.hash, 3, Some("op ä\"1"), "{}");
        assert!(matches!(
            again.append(&[doubled]).await,
            Err(StoreError::Fatal(_))
        ));
        assert_eq!(again.rows_after(Seq(0), 10).await.unwrap().len(), 2);
    }
}
