//! The folder for what outlives a restart, held by one agent at a time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// The folder, locked for as long as this lives.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    _lock: Option<File>,
}

/// Another agent works in the folder.
#[derive(Debug, thiserror::Error)]
#[error("another agent is running with {0}")]
pub struct InUse(PathBuf);

impl StateFolder {
    /// Makes the folder when it is not there (mode 0700) and locks it. A folder that cannot be written is logged and
    /// used as far as it goes: the agent must not stay silent for want of a disk.
    ///
    /// # Errors
    /// When another agent holds it.
    pub fn open(path: &Path) -> Result<Self, InUse> {
        let lock = match lock_file(path) {
            Ok(file) => match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Some(file),
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(InUse(path.to_owned())),
                Err(error) => {
                    tracing::error!(%error, state.dir = %path.display(), "state folder cannot be locked");
                    None
                }
            },
            Err(error) => {
                tracing::error!(%error, state.dir = %path.display(), "state folder cannot be written");
                None
            }
        };
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Whether an agent holds the folder now.
    #[must_use]
    pub fn is_held(path: &Path) -> bool {
        let Ok(file) = File::open(path.join("lock")) else {
            return false;
        };
        flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK)
    }

    /// Unacknowledged reports.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }

    /// The last reported view.
    #[must_use]
    pub fn last_view(&self) -> PathBuf {
        self.path.join("last-view")
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the folder if it is not there, for nobody but its owner.
///
/// # Errors
/// When the file system says no.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let permissions = fs::metadata(path)?.permissions();
    if permissions.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn lock_file(path: &Path) -> io::Result<File> {
    make_folder(path)?;
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join("lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_at_a_time_and_nobody_else_looks_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let first = StateFolder::open(&path).unwrap();
        assert!(StateFolder::open(&path).is_err() && StateFolder::is_held(&path));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        drop(first);
        assert!(!StateFolder::is_held(&path));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let again = StateFolder::open(&path).unwrap();
        assert_eq!(mode(again.path()), 0o700);
    }

    #[test]
    fn case_60_a_folder_that_cannot_be_made_is_no_reason_to_stop() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "in the way").unwrap();
        assert!(StateFolder::open(&file.join("state")).is_ok());
    }
}
