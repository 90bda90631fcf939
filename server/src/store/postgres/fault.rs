//! What an error of PostgreSQL means for the journal, by its SQLSTATE
//! (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).

use std::io;
use std::time::Duration;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::store::{Appended, StoreError};

const UNIQUE_VIOLATION: &str = "23505";
const READ_ONLY: &str = "25006";
const SERIALIZATION_FAILURE: &str = "40001";
const DEADLOCK: &str = "40P01";
const DISK_FULL: &str = "53100";
const OUT_OF_MEMORY: &str = "53200";
const LOCK_NOT_AVAILABLE: &str = "55P03";
const QUERY_CANCELED: &str = "57014";

/// Runs a call with a deadline, after which its connection must be dropped: it may be in the middle of anything.
pub(super) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
        let text = format!("no answer within {} s", limit.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, text).into())
    })
}

/// Whether the connection is as good as before: the server refused the statement and said so.
pub(super) fn keeps_connection(error: &sqlx::Error) -> bool {
    refused(error).is_some_and(|code| code != READ_ONLY)
}

/// What became of an append that ended with this error.
pub(super) fn of_append(error: sqlx::Error) -> Result<Appended, StoreError> {
    let Some(code) = refused(&error) else {
        return Err(match error {
            sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
                StoreError::Fatal(error)
            }
            // Lost after sending, or ended by the server: a commit may have come through all the same.
            _ => StoreError::Unknown(error),
        });
    };
    match code.as_str() {
        UNIQUE_VIOLATION => Ok(Appended::Behind),
        _ => Err(of_refusal(&code, error)),
    }
}

/// Why a statement that writes nothing to the journal did not work.
pub(super) fn of_read(error: sqlx::Error) -> StoreError {
    match refused(&error) {
        Some(code) => of_refusal(&code, error),
        None => match error {
            sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
                StoreError::Fatal(error)
            }
            _ => StoreError::Unavailable(error),
        },
    }
}

fn of_refusal(code: &str, error: sqlx::Error) -> StoreError {
    match code {
        DISK_FULL => StoreError::Full(error),
        QUERY_CANCELED | LOCK_NOT_AVAILABLE | SERIALIZATION_FAILURE | DEADLOCK => {
            StoreError::Busy(error)
        }
        READ_ONLY | OUT_OF_MEMORY => StoreError::Unavailable(error),
        _ => StoreError::Fatal(error),
    }
}

// The code of a statement that the server refused and rolled back while the connection lives on.
fn refused(error: &sqlx::Error) -> Option<String> {
    let database = error.as_database_error()?;
    let postgres = database.try_downcast_ref::<PgDatabaseError>()?;
    let lives = matches!(postgres.severity(), PgSeverity::Error);
    lives.then(|| postgres.code().to_owned())
}
