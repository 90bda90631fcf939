//! The journal in a PostgreSQL database that several servers may share.

mod address;
mod fault;
mod listen;
mod session;
mod unreachable;
mod usage;

use std::time::Duration;

use async_trait::async_trait;
use gpuquota_core::id::Seq;
use gpuquota_core::meter::Hour;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use super::base::{BASE, BaseColumns, DROP_BASES, DROP_ROWS, PUT_BASE, base};
use super::sql::{Columns, LAST, ROWS_AFTER, migration_refused, row, signed};
use super::{
    Appended, Base, Beat, Row, Store, StoreError, UsageHours, UsageKept, UsageQuery, UsageSum,
};
use fault::{keeps_connection, of_append, of_read, within};
use session::Session;
use unreachable::unreachable_server;

pub use address::{Address, AddressError};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

// One statement, one transaction, one round trip. The guard makes it do nothing when another writer was first; of two that
// pass the guard together the primary key stops one. Whoever listens hears of it when it is committed.
const APPEND: &str = "\
WITH written AS (
    INSERT INTO journal (seq, at, writer, op, body, hash)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[])
    WHERE coalesce((SELECT max(seq) FROM journal), (SELECT max(seq) FROM base), 0) = $7
    RETURNING seq)
SELECT count(*), CASE WHEN count(*) > 0 THEN pg_notify('gpuquota_journal', max(seq)::text)::text END FROM written";

// Two statements in one message are one transaction: the patience ends with it, the lock lasts.
const TAKE_TURN: &str =
    "SET LOCAL lock_timeout = '250ms'; SELECT pg_advisory_lock(7454125437913227)";
const END_TURN: &str = "SELECT pg_advisory_unlock(7454125437913227)";

const BEAT: &str = "\
INSERT INTO replica (writer, seen_at) VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
ON CONFLICT (writer) DO UPDATE SET seen_at = excluded.seen_at";
const FORGET: &str = "\
DELETE FROM replica WHERE seen_at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - 86400000";
const BEATS: &str = "\
SELECT writer, greatest(0, (extract(epoch FROM clock_timestamp()) * 1000)::bigint - seen_at) FROM replica";

/// For an answer to a write; longer than the server's own limits, so that a server that lives has said what became of it.
const ANSWER: Duration = Duration::from_secs(8);
/// For an answer to a large read.
const READ: Duration = Duration::from_secs(30);
/// For the deletion of millions of rows.
const DROP: Duration = Duration::from_secs(601);
/// For a connection of the pool.
const ACQUIRE: Duration = Duration::from_secs(3);

/// A journal in a PostgreSQL database.
pub struct PostgresStore {
    session: Mutex<Session>,
    readers: PgPool,
    hints: watch::Receiver<Seq>,
    stop: CancellationToken,
}

impl PostgresStore {
    /// Opens the journal, making its tables where they are missing.
    ///
    /// # Errors
    /// When the database cannot be reached, or its schema is newer than this program.
    pub async fn open(address: &Address) -> Result<Self, StoreError> {
        let open = |reason: String| StoreError::Open {
            path: address.to_string(),
            reason,
        };
        let mut session = Session::new(address.options().clone());
        let connection = session.take().await;
        let mut connection = connection.map_err(|e| open(unreachable_server(&e, address)))?;
        check(&mut connection, address).await.map_err(open)?;
        // Takes a lock of its own, so that servers that start together do it one after the other.
        let migrated = MIGRATIONS.run(&mut connection).await;
        migrated.map_err(|e| open(migration_refused(&e)))?;
        session.put_back(connection);
        let store = Self::with(address, session);
        Ok(store)
    }

    /// Opens the journal for reading only; nothing is made and nothing changed.
    ///
    /// # Errors
    /// When there is no journal of this program's schema.
    pub async fn open_read_only(address: &Address) -> Result<Self, StoreError> {
        let open = |reason: String| StoreError::Open {
            path: address.to_string(),
            reason,
        };
        let store = Self::with(address, Session::new(address.options().clone()));
        let known = schema(&store.readers).await;
        let known = known.map_err(|e| open(unreachable_server(&e, address)))?;
        let own = MIGRATIONS.iter().map(|step| step.version).max();
        if known != own {
            store.close().await;
            return Err(open(match known {
                None => "there is no journal in it".into(),
                Some(known) => format!(
                    "its schema is at step {known}, this program's at {}; use the program that serves it",
                    own.unwrap_or(0)
                ),
            }));
        }
        Ok(store)
    }

    fn with(address: &Address, session: Session) -> Self {
        let readers = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(ACQUIRE)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    session::prepare(connection).await?;
                    let patience = sqlx::query("SET statement_timeout = '25s'");
                    patience.execute(connection).await.map(|_| ())
                })
            })
            .connect_lazy_with(address.options().clone());
        let (told, hints) = watch::channel(Seq(0));
        let stop = CancellationToken::new();
        tokio::spawn(listen::listen(readers.clone(), told, stop.clone()));
        Self {
            session: Mutex::new(session),
            readers,
            hints,
            stop,
        }
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn rows_after(&self, seq: Seq, most: u32) -> Result<Vec<Row>, StoreError> {
        let read = sqlx::query_as(ROWS_AFTER)
            .bind(signed(seq)?)
            .bind(i64::from(most))
            .fetch_all(&self.readers);
        let rows: Vec<Columns> = within(READ, read).await.map_err(of_read)?;
        rows.into_iter().map(row).collect()
    }

    async fn catch_up(&self, seq: Seq, most: u32) -> Result<Vec<Row>, StoreError> {
        let (seq, most) = (signed(seq)?, i64::from(most));
        let mut session = self.session.lock().await;
        let mut connection = session.take().await.map_err(StoreError::Unavailable)?;
        let read = sqlx::query_as(ROWS_AFTER).bind(seq).bind(most);
        let read: Result<Vec<Columns>, _> = within(ANSWER, read.fetch_all(&mut connection)).await;
        if read.as_ref().err().is_none_or(keeps_connection) {
            session.put_back(connection);
        }
        read.map_err(of_read)?.into_iter().map(row).collect()
    }

    async fn append(&self, rows: &[Row]) -> Result<Appended, StoreError> {
        let Some(first) = rows.first() else {
            return Ok(Appended::Written);
        };
        let seqs = rows.iter().map(|row| signed(row.seq));
        let seqs = seqs.collect::<Result<Vec<_>, _>>()?;
        let append = sqlx::query_as(APPEND)
            .bind(seqs)
            .bind(column(rows, |row| row.at.0))
            .bind(column(rows, |row| row.writer.clone()))
            .bind(column(rows, |row| row.op.as_ref().map(ToString::to_string)))
            .bind(column(rows, |row| row.body.clone()))
            .bind(column(rows, |row| row.hash.to_string()))
            .bind(signed(first.seq)? - 1);
        let mut session = self.session.lock().await;
        let mut connection = session.take().await.map_err(StoreError::Unavailable)?;
        let written: Result<(i64, Option<String>), _> =
            within(ANSWER, append.fetch_one(&mut connection)).await;
        if written.as_ref().err().is_none_or(keeps_connection) {
            session.put_back(connection);
        }
        match written {
            Ok((0, _)) => Ok(Appended::Behind),
            Ok(_) => Ok(Appended::Written),
            Err(error) => of_append(error),
        }
    }

    async fn last(&self) -> Result<Option<Row>, StoreError> {
        let read = sqlx::query_as(LAST).fetch_optional(&self.readers);
        let found: Option<Columns> = within(READ, read).await.map_err(of_read)?;
        found.map(row).transpose()
    }

    async fn base(&self) -> Result<Option<Base>, StoreError> {
        let read = sqlx::query_as(BASE).fetch_optional(&self.readers);
        let found: Option<BaseColumns> = within(READ, read).await.map_err(of_read)?;
        found.map(base).transpose()
    }

    async fn put_base(&self, base: &Base) -> Result<(), StoreError> {
        let put = sqlx::query(PUT_BASE)
            .bind(signed(base.seq)?)
            .bind(base.at.0)
            .bind(base.head.to_string())
            .bind(i64::from(base.format))
            .bind(base.digest.to_string())
            .bind(&base.state)
            .execute(&self.readers);
        within(READ, put).await.map(|_| ()).map_err(of_read)
    }

    async fn drop_archived(&self, base: &Base) -> Result<u64, StoreError> {
        let (seq, digest) = (signed(base.seq)?, base.digest.to_string());
        let dropped = within(DROP, async {
            let mut transaction = self.readers.begin().await?;
            let patience = sqlx::query("SET LOCAL statement_timeout = '10min'");
            patience.execute(&mut *transaction).await?;
            let mut deleted = [0; 2];
            for (statement, deleted) in [DROP_ROWS, DROP_BASES].into_iter().zip(&mut deleted) {
                let drop = sqlx::query(statement).bind(seq).bind(&digest);
                *deleted = drop.execute(&mut *transaction).await?.rows_affected();
            }
            transaction.commit().await?;
            let [rows, _bases] = deleted;
            Ok(rows)
        });
        dropped.await.map_err(of_read)
    }

    fn hints(&self) -> Option<watch::Receiver<Seq>> {
        Some(self.hints.clone())
    }

    async fn take_turn(&self) -> Result<(), StoreError> {
        let mut session = self.session.lock().await;
        let mut connection = session.take().await.map_err(StoreError::Unavailable)?;
        let taken = within(ANSWER, sqlx::raw_sql(TAKE_TURN).execute(&mut connection)).await;
        if taken.as_ref().err().is_none_or(keeps_connection) {
            session.put_back(connection);
        }
        taken.map(|_| ()).map_err(of_read)
    }

    async fn end_turn(&self) {
        let mut session = self.session.lock().await;
        // A connection that was lost took its turn with it.
        if !session.connected() {
            return;
        }
        if let Ok(mut connection) = session.take().await
            && within(ANSWER, sqlx::query(END_TURN).execute(&mut connection))
                .await
                .is_ok()
        {
            session.put_back(connection);
        }
    }

    async fn beat(&self, writer: &str) -> Result<Vec<Beat>, StoreError> {
        let beaten = within(ANSWER, async {
            let mut connection = self.readers.acquire().await?;
            sqlx::query(BEAT)
                .bind(writer)
                .execute(&mut *connection)
                .await?;
            sqlx::query(FORGET).execute(&mut *connection).await?;
            let beats = sqlx::query_as(BEATS);
            beats.fetch_all(&mut *connection).await
        });
        let beats: Vec<(String, i64)> = beaten.await.map_err(of_read)?;
        let beats = beats.into_iter().map(|(writer, age)| Beat {
            writer,
            age_ms: u64::try_from(age).unwrap_or(0),
        });
        Ok(beats.collect())
    }

    async fn put_usage(&self, hours: &UsageHours) -> Result<UsageKept, StoreError> {
        usage::put(&self.readers, hours).await.map_err(of_read)
    }

    async fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageSum>, StoreError> {
        let sums = within(READ, usage::sums(&self.readers, query)).await;
        sums.map_err(of_read)
    }

    async fn drop_usage_by_device(&self, before: Hour) -> Result<u64, StoreError> {
        let dropped = usage::drop_by_device(&self.readers, before).await;
        dropped.map_err(of_read)
    }

    async fn usage_by_device_from(&self) -> Result<Option<Hour>, StoreError> {
        let from = usage::by_device_from(&self.readers).await;
        from.map_err(of_read)
    }

    async fn close(&self) {
        self.stop.cancel();
        self.session.lock().await.close().await;
        // A server that does not answer is not waited for.
        let _ = tokio::time::timeout(ACQUIRE, self.readers.close()).await;
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn column<T>(rows: &[Row], of: impl Fn(&Row) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

// What must be right before anything is written.
async fn check(connection: &mut PgConnection, address: &Address) -> Result<(), String> {
    let server = session::prepare(connection).await;
    let server = server.map_err(|e| unreachable_server(&e, address))?;
    if server.encoding != "UTF8" {
        return Err(format!(
            "its encoding is {}; create the database with ENCODING 'UTF8'",
            server.encoding
        ));
    }
    if !server.fsync {
        tracing::warn!(
            "PostgreSQL runs with fsync off: a power failure can lose or damage the ledger"
        );
    }
    if address.unprotected() {
        tracing::warn!(
            "the connection to PostgreSQL goes over a network without sslmode=verify-full: others may read or alter the ledger"
        );
    }
    Ok(())
}

// The highest step of the schema, if there is one.
async fn schema(readers: &PgPool) -> Result<Option<i64>, sqlx::Error> {
    let there = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL");
    if !there.fetch_one(readers).await? {
        return Ok(None);
    }
    let last = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success");
    last.fetch_one(readers).await
}
