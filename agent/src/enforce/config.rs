//! `/etc/gpuquota/enforcer.toml`: what only root may say.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Executables that are never signalled: the driver's daemons, display servers, and who tells of GPUs.
const PROTECTED: [&str; 10] = [
    "nvidia-persistenced",
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
    "nv-fabricmanager",
    "nvidia-gridd",
    "nvidia-vgpu-mgr",
    "nv-hostengine",
    "dcgm-exporter",
    "Xorg",
    "Xwayland",
];
/// With this begin the names of our own programs, which are never signalled either.
const OURS: &str = "gpuquota-";

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnforcerConfig {
    /// Executables' names that are never signalled, besides those that never are.
    pub protected: BTreeSet<String>,
    /// User ids up to this one are the system's: only their processes are protected by a name.
    pub highest_system_uid: u32,
}

impl Default for EnforcerConfig {
    fn default() -> Self {
        Self {
            protected: BTreeSet::new(),
            highest_system_uid: 999,
        }
    }
}

/// Why the file cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum EnforcerConfigError {
    /// It is there and cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody but root could have written it.
    #[error("{0} must belong to root and be writable by nobody else (chown root, chmod 644)")]
    Exposed(PathBuf),
    /// It is not what it should be.
    #[error("{path}: {source}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
}

impl EnforcerConfig {
    /// Reads it; one that is not there says nothing.
    ///
    /// # Errors
    /// When it is there and cannot be followed: then nothing is obeyed.
    pub fn load(path: &Path) -> Result<Self, EnforcerConfigError> {
        let read = |source| EnforcerConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text.map_err(read)?,
        };
        let about = fs::metadata(path).map_err(read)?;
        if about.uid() != 0 || about.mode() & 0o022 != 0 {
            return Err(EnforcerConfigError::Exposed(path.to_owned()));
        }
        toml::from_str(&text).map_err(|source| EnforcerConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    /// Whether an executable of this name is never signalled.
    #[must_use]
    pub fn protects(&self, name: &str) -> bool {
        PROTECTED.contains(&name) || name.starts_with(OURS) || self.protected.contains(name)
    }
}
