//! The table `[ledger]`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::service::UsageKeeping;
use crate::store::Place;
use crate::store::postgres::Address;

/// The journal.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerSettings {
    /// The SQLite file; not looked at where a database is named.
    pub path: PathBuf,
    /// URL of a PostgreSQL database, without a password.
    #[serde(default)]
    pub database: Option<String>,
    /// File that holds such a URL, password included.
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    /// Rows between snapshots.
    pub snapshot_every_rows: u64,
    /// Commands that may wait.
    pub queue: usize,
    /// Days for which usage is kept by device.
    #[serde(default = "usage_days")]
    usage_by_device_days: u32,
}

// Files of earlier versions do not say.
fn usage_days() -> u32 {
    400
}

impl LedgerSettings {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.snapshot_every_rows == 0 || self.queue == 0 {
            return Err("ledger.snapshot_every_rows and ledger.queue must be at least 1".into());
        }
        if !(1..=36_500).contains(&self.usage_by_device_days) {
            return Err("ledger.usage_by_device_days must be 1 to 36500".into());
        }
        match (&self.database, &self.url_file) {
            (Some(_), Some(_)) => {
                Err("ledger.database and ledger.url_file exclude each other".into())
            }
            (Some(url), None) => {
                if Address::names_password(url) {
                    return Err("ledger.database holds a password, and this file is readable by others; \
                                put the URL into a file that is not, and name that by ledger.url_file"
                        .into());
                }
                self.place().map(|_| ())
            }
            (None, _) => Ok(()),
        }
    }

    /// For how long usage is kept.
    #[must_use]
    pub fn usage_keeping(&self) -> UsageKeeping {
        UsageKeeping {
            days: self.usage_by_device_days,
        }
    }

    /// Where the journal is.
    ///
    /// # Errors
    /// When the URL's file cannot be read or holds none, with what to do.
    pub fn place(&self) -> Result<Place, String> {
        match (&self.database, &self.url_file) {
            (Some(url), _) => Address::parse(url)
                .map(Place::Database)
                .map_err(|e| format!("ledger.database: {e}")),
            (None, Some(file)) => read_url(file).map(Place::Database),
            (None, None) => Ok(Place::File(self.path.clone())),
        }
    }
}

/// The database whose URL stands in a file.
///
/// # Errors
/// When it cannot be read or holds no URL; nothing of its content is in the text.
pub fn read_url(file: &Path) -> Result<Address, String> {
    let cannot = |e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
    let text = fs::read_to_string(file).map_err(|e| cannot(&e))?;
    let mode = fs::metadata(file).map_err(|e| cannot(&e))?.permissions();
    if mode.mode() & 0o004 != 0 && Address::names_password(text.trim()) {
        tracing::warn!(file = %file.display(), "everybody on this machine can read the database's password; chmod 600");
    }
    Address::parse(text.trim()).map_err(|e| cannot(&e))
}
