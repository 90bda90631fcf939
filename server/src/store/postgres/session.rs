//! The one connection that writes. A lost one is replaced; before the new one is used, the old one has ended at the server
//! too, so that nothing it sent can still take effect.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::fault::within;

/// To connect and log in.
const CONNECT: Duration = Duration::from_secs(3);
/// To prepare a connection, waiting for the end of the one before included.
const PREPARE: Duration = Duration::from_secs(6);

// Settings of a session. The server gives up a statement before we do, so that we hear what became of it, and notices
// within half a minute that a peer is gone, which frees its locks. A stronger `synchronous_commit` than ours is kept.
const SETTINGS: &str = "\
SELECT current_setting('server_encoding'), current_setting('fsync'), pg_is_in_recovery(),
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('statement_timeout', '5s', false),
       set_config('lock_timeout', '4s', false),
       set_config('tcp_keepalives_idle', '10', false),
       set_config('tcp_keepalives_interval', '5', false),
       set_config('tcp_keepalives_count', '3', false),
       set_config('tcp_user_timeout', '25s', false),
       set_config('synchronous_commit', CASE current_setting('synchronous_commit')
           WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)";

// Whoever has our own lock is a connection of ours that we gave up.
const END_OLDER: &str = "\
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 1 AND (classid::bigint << 32) | objid::bigint = $1
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()";
const OWN_LOCK: &str = "SELECT pg_advisory_lock($1)";
// Committed like any write, so it waits for a synchronous standby: what the older connection had committed and was still
// waiting for is not taken for durable before it is.
const DURABLE_SO_FAR: &str = "SELECT pg_logical_emit_message(true, 'gpuquota', '')::text";

/// The connection that writes, or what is needed to make it.
pub(super) struct Session {
    options: PgConnectOptions,
    /// Number of the advisory lock that only connections of this session take.
    key: i64,
    connection: Option<PgConnection>,
}

/// What the server says of itself.
pub(super) struct Server {
    pub(super) encoding: String,
    pub(super) fsync: bool,
    pub(super) standby: bool,
}

impl Session {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self {
            options,
            key: rand::random_range(1..i64::MAX),
            connection: None,
        }
    }

    /// Takes the connection out, made first if there is none; whoever finds it whole afterwards puts it back. One that
    /// is dropped half way, by an error or a deadline, is not used again.
    ///
    /// # Errors
    /// When the server cannot be reached or takes no writes; nothing was sent to the journal.
    pub(super) async fn take(&mut self) -> Result<PgConnection, sqlx::Error> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let mut connection = within(CONNECT, self.options.connect()).await?;
        within(PREPARE, async {
            let server = prepare(&mut connection).await?;
            if server.standby {
                let text = "the server is a standby; the URL must lead to the primary";
                return Err(sqlx::Error::Configuration(text.into()));
            }
            let end = sqlx::query(END_OLDER).bind(self.key);
            end.execute(&mut connection).await?;
            let lock = sqlx::query(OWN_LOCK).bind(self.key);
            lock.execute(&mut connection).await?;
            let mark = sqlx::query(DURABLE_SO_FAR);
            mark.execute(&mut connection).await?;
            Ok(())
        })
        .await?;
        Ok(connection)
    }

    pub(super) fn put_back(&mut self, connection: PgConnection) {
        self.connection = Some(connection);
    }

    pub(super) fn connected(&self) -> bool {
        self.connection.is_some()
    }

    pub(super) async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = within(CONNECT, connection.close()).await;
        }
    }
}

/// Brings a fresh connection to our settings.
///
/// # Errors
/// When the server does not answer.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<Server, sqlx::Error> {
    let query = sqlx::query_as::<_, (String, String, bool)>(SETTINGS);
    let (encoding, fsync, standby) = query.fetch_one(connection).await?;
    Ok(Server {
        encoding,
        fsync: fsync == "on",
        standby,
    })
}
