//! Which database a journal is on.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::postgres::{Address, PostgresStore};
use super::sqlite::SqliteStore;
use super::{Store, StoreError};

/// Where a journal is.
#[derive(Clone, Debug)]
pub enum Place {
    /// An SQLite file.
    File(PathBuf),
    /// A PostgreSQL database.
    Database(Address),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Database(address) => write!(f, "{address}"),
        }
    }
}

/// Opens a journal, making its tables where they are missing.
///
/// # Errors
/// When it cannot be opened, or its schema is newer than this program.
pub async fn open(place: &Place) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match place {
        Place::File(path) => Arc::new(SqliteStore::open(path).await?),
        Place::Database(address) => Arc::new(PostgresStore::open(address).await?),
    })
}

/// Opens a journal for reading only; nothing is made and nothing changed.
///
/// # Errors
/// When there is no journal that can be read.
pub async fn open_read_only(place: &Place) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match place {
        Place::File(path) => Arc::new(SqliteStore::open_read_only(path).await?),
        Place::Database(address) => Arc::new(PostgresStore::open_read_only(address).await?),
    })
}
