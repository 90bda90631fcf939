//! Where the journal is kept. The rest of the program knows only this trait, not which database is behind it.

mod base;
mod place;
pub mod postgres;
mod row;
mod sql;
pub mod sqlite;
mod sqlite_append;
mod sqlite_usage;
mod usage;
mod usage_sql;

use async_trait::async_trait;
use gpuquota_core::id::Seq;
use gpuquota_core::meter::Hour;
use tokio::sync::watch;

pub use base::Base;
pub use place::{Place, open, open_read_only};
pub use row::{ChainError, Hash, InvalidHash, Row};
pub use usage::{UsageBy, UsageHours, UsageKept, UsageQuery, UsageSum, WALL};

/// A journal on some database.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Up to `most` rows after `seq`, in order. For everybody who reads.
    async fn rows_after(&self, seq: Seq, most: u32) -> Result<Vec<Row>, StoreError>;

    /// As [`Store::rows_after`], for the one who appends: after [`StoreError::Unknown`] it answers only when nothing of
    /// that append is still under way, so that the rows are either there or never will be.
    async fn catch_up(&self, seq: Seq, most: u32) -> Result<Vec<Row>, StoreError> {
        self.rows_after(seq, most).await
    }

    /// Adds rows, all or none, if the highest row is still the one right before the first of them. Durable on return.
    async fn append(&self, rows: &[Row]) -> Result<Appended, StoreError>;

    /// Keeps what was metered in whole hours. Storing the same again changes nothing.
    async fn put_usage(&self, _hours: &UsageHours) -> Result<UsageKept, StoreError> {
        Err(StoreError::NoUsage)
    }

    /// Adds stored usage up, in the order of period and group.
    async fn usage(&self, _query: &UsageQuery) -> Result<Vec<UsageSum>, StoreError> {
        Err(StoreError::NoUsage)
    }

    /// Drops a piece of the oldest usage by device of before `before`; how many rows, 0 when nothing of it is left. That it
    /// is not known any more is written down first. Sums by tenant, region and model stay.
    async fn drop_usage_by_device(&self, _before: Hour) -> Result<u64, StoreError> {
        Err(StoreError::NoUsage)
    }

    /// Since when usage by device is known; `None`: since there is any.
    async fn usage_by_device_from(&self) -> Result<Option<Hour>, StoreError> {
        Err(StoreError::NoUsage)
    }

    /// The last row; `None` while there is none.
    async fn last(&self) -> Result<Option<Row>, StoreError>;

    /// The base that the oldest row follows; `None` while the journal begins with its first row.
    async fn base(&self) -> Result<Option<Base>, StoreError>;

    /// Puts a base beside the rows, in place of one that ends at the same row.
    async fn put_base(&self, base: &Base) -> Result<(), StoreError>;

    /// Deletes the rows that this base stands for, and every base before it, in one transaction; how many rows there
    /// were. Nothing is deleted when the base is not there.
    async fn drop_archived(&self, base: &Base) -> Result<u64, StoreError>;

    /// For a database that other servers write to as well: the highest row that somebody is heard to have written. Only a
    /// hint; it may be late or missing. `None`: nobody else writes.
    fn hints(&self) -> Option<watch::Receiver<Seq>> {
        None
    }

    /// Waits, for a bounded time, until no other server has the turn, and takes it. Spares lost races; the guard of
    /// [`Store::append`] is what keeps the journal whole.
    async fn take_turn(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Gives the turn back.
    async fn end_turn(&self) {}

    /// Says that the server `writer` lives; all servers that ever said so lately, this one too. Where nobody else writes
    /// nothing is kept and nobody named.
    async fn beat(&self, _writer: &str) -> Result<Vec<Beat>, StoreError> {
        Ok(Vec::new())
    }

    /// Ends all connections.
    async fn close(&self);
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// All rows are durable.
    Written,
    /// Another writer was first; nothing was written. Catch up and decide again.
    Behind,
}

/// One server's sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The name that its journal rows carry.
    pub writer: String,
    /// How long ago it was, by the database's clock.
    pub age_ms: u64,
}

/// Why the database did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space is left. Nothing was written; it may work again later.
    #[error("the ledger's disk is full")]
    Full(#[source] sqlx::Error),
    /// Another program holds the database locked. Nothing was written; it may work again later.
    #[error("another program holds the ledger locked")]
    Busy(#[source] sqlx::Error),
    /// The database cannot be reached, or takes no writes now. Nothing was written; it may work again later.
    #[error("the ledger's database cannot be reached or takes no writes")]
    Unavailable(#[source] sqlx::Error),
    /// The connection was lost after rows were sent: they may be there or not.
    #[error("the ledger's database did not say whether it wrote")]
    Unknown(#[source] sqlx::Error),
    /// The database cannot be trusted any more, such as after a failed fsync: stop, restart, replay. Rows that were being
    /// written may be there or not.
    #[error("the ledger's storage failed")]
    Fatal(#[source] sqlx::Error),
    /// This kind of store has no place for usage.
    #[error("this store keeps no usage")]
    NoUsage,
    /// The database cannot be opened or brought to this program's schema.
    #[error("cannot open the ledger at {path}: {reason}")]
    Open {
        /// Which file or server.
        path: String,
        /// Why, with what to do.
        reason: String,
    },
}
