//! The folder for what outlives a restart, held by one agent at a time.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

mod files;
pub mod gpus;

pub use files::{
    FolderError, enter_folder, make_folder, open_own, read_own, write_for_this_boot, write_whole,
};

const LOCK: &str = "lock";

/// The folder, locked for as long as this lives.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    _lock: Option<File>,
}

/// Why the agent must not work in the folder.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another agent does.
    #[error("another agent is running with {0}")]
    InUse(PathBuf),
    /// Whoever owns it decides what the agent believes.
    #[error(
        "{path} belongs to uid {owner}, not to the agent's uid {own} or root; give it to the agent (chown), or set `state` to a folder of its own",
        path = .path.display()
    )]
    Foreign {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who the agent is.
        own: u32,
    },
}

impl StateFolder {
    /// Makes the folder when it is not there (mode 0700) and locks it. A folder that cannot be written is logged and
    /// used as far as it goes: the agent must not stay silent for want of a disk.
    ///
    /// # Errors
    /// When another agent holds it, or it belongs to another user.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let lock = match lock_file(path) {
            Ok(file) => match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Some(file),
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(StateError::InUse(path.to_owned()));
                }
                Err(error) => {
                    tracing::error!(%error, state.dir = %path.display(), "state folder cannot be locked");
                    None
                }
            },
            Err(FolderError::Foreign { owner }) => {
                return Err(StateError::Foreign {
                    path: path.to_owned(),
                    owner,
                    own: rustix::process::geteuid().as_raw(),
                });
            }
            Err(FolderError::Io(error)) => {
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
        let Ok(file) = open_own(&path.join(LOCK), OFlags::RDONLY) else {
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

fn lock_file(path: &Path) -> Result<File, FolderError> {
    make_folder(path)?;
    let file = open_own(&path.join(LOCK), OFlags::WRONLY | OFlags::CREATE)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other("`lock` in it is no file").into())
}

#[cfg(test)]
mod tests;
