//! The rotation's own files, and those that the server reads in each phase. What was interrupted is completed from the state
//! file: everything else follows from it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use gpuquota_core::id::Timestamp;
use gpuquota_proto::pinned::Pin;
use gpuquota_proto::tls::HttpsFiles;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::phase::{Phase, Which};
use crate::config::Config;

/// Folder of the rotation in the server's directory.
pub const FOLDER: &str = "ca-rotation";
const STATE: &str = "state.json";
const VERSION: u32 = 1;
const PUBLIC: u32 = 0o644;
const SECRET: u32 = 0o600;

/// The rotation's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The file system says no.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// The state is none.
    #[error("{0} cannot be read: {1}; put it back from a backup")]
    State(PathBuf, String),
    /// Another command is at work.
    #[error("another `ca` command is at work on {0}")]
    InUse(PathBuf),
}

/// The state, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Of this form.
    pub version: u32,
    /// How far it is.
    pub phase: Phase,
    /// Of the old authority's key.
    pub old: String,
    /// Of the new one's.
    pub new: String,
    /// Within this time agents ask for a certificate of whoever signs, milliseconds.
    pub renew_within_ms: u64,
    /// What was done, the oldest first.
    pub steps: Vec<Told>,
}

/// One step that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// When, milliseconds since 1970 (UTC).
    pub at_ms: i64,
    /// What it led to.
    pub phase: Phase,
    /// The user id of whoever did it.
    pub uid: u32,
    /// Although nodes would be left behind.
    pub forced: bool,
    /// Why.
    pub reason: Option<String>,
}

impl Kept {
    /// Of a rotation that begins.
    #[must_use]
    pub fn new(old: Pin, new: Pin, renew_within_ms: u64) -> Self {
        Self {
            version: VERSION,
            phase: Phase::Prepared,
            old: old.to_string(),
            new: new.to_string(),
            renew_within_ms,
            steps: Vec::new(),
        }
    }

    /// Both keys.
    #[must_use]
    pub fn pins(&self) -> Option<(Pin, Pin)> {
        Some((self.old.parse().ok()?, self.new.parse().ok()?))
    }

    /// Notes a step.
    pub fn told(&mut self, now: Timestamp, phase: Phase, forced: bool, reason: Option<String>) {
        self.phase = phase;
        self.steps.push(Told {
            at_ms: now.0,
            phase,
            uid: rustix::process::getuid().as_raw(),
            forced,
            reason,
        });
    }
}

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Places {
    folder: PathBuf,
    /// What the server trusts.
    pub ca: PathBuf,
    /// What it signs with.
    pub ca_key: PathBuf,
    /// What it shows.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Places {
    /// Of this server.
    #[must_use]
    pub fn of(dir: &Path, config: &Config) -> Self {
        Self {
            folder: dir.join(FOLDER),
            ca: config.agents.ca.clone(),
            ca_key: config.agents.ca_key.clone(),
            certificate: config.agents.certificate.clone(),
            key: config.agents.key.clone(),
        }
    }

    /// The state file.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.join(STATE)
    }

    /// An authority's certificate and key.
    #[must_use]
    pub fn authority(&self, which: Which) -> HttpsFiles {
        self.pair(which, "ca")
    }

    /// A server's certificate of it, and its key.
    #[must_use]
    pub fn server(&self, which: Which) -> HttpsFiles {
        self.pair(which, "server")
    }

    fn pair(&self, which: Which, of: &str) -> HttpsFiles {
        let age = match which {
            Which::Old => "old",
            Which::New => "new",
        };
        HttpsFiles {
            certificate: self.folder.join(format!("{age}-{of}.crt")),
            key: self.folder.join(format!("{age}-{of}.key")),
        }
    }

    /// Makes the folder and keeps other commands out while the answer lives.
    ///
    /// # Errors
    /// When another command is at work, or the file system says no.
    pub fn enter(&self) -> Result<File, FilesError> {
        let made = DirBuilder::new().mode(0o700).create(&self.folder);
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(FilesError::Io(self.folder.clone(), error));
            }
            _ => {}
        }
        let folder = File::open(&self.folder);
        let folder = folder.map_err(|error| FilesError::Io(self.folder.clone(), error))?;
        inherit(&folder, &self.folder).map_err(|e| FilesError::Io(self.folder.clone(), e))?;
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(folder),
            Err(_) => Err(FilesError::InUse(self.folder.clone())),
        }
    }

    /// The state; `None` where no rotation was ever begun.
    ///
    /// # Errors
    /// When it cannot be read, or a newer program wrote it.
    pub fn read(&self) -> Result<Option<Kept>, FilesError> {
        let path = self.state();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FilesError::Io(path, error)),
        };
        let kept: Kept = match serde_json::from_str(&text) {
            Ok(kept) => kept,
            Err(error) => return Err(FilesError::State(path, error.to_string())),
        };
        match kept.version == VERSION && kept.pins().is_some() {
            true => Ok(Some(kept)),
            false => Err(FilesError::State(path, "it is of another version".into())),
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// When the file system says no; what was there stays.
    pub fn keep(&self, kept: &Kept) -> Result<(), FilesError> {
        let path = self.state();
        let text = serde_json::to_string_pretty(kept);
        let text = text.map_err(|error| FilesError::State(path.clone(), error.to_string()))?;
        put(&path, &(text + "\n"), SECRET)
    }

    /// Writes a certificate and its key, the key first.
    ///
    /// # Errors
    /// When the file system says no.
    pub fn put_pair(files: &HttpsFiles, certificate: &str, key: &str) -> Result<(), FilesError> {
        put(&files.key, key, SECRET)?;
        put(&files.certificate, certificate, PUBLIC)
    }

    /// Makes the files that the server reads those of this phase. What is right already is not touched; a phase whose material is
    /// gone is over, and its files stay.
    ///
    /// # Errors
    /// When the file system says no; what is left to do is done the next time.
    pub fn apply(&self, phase: Phase) -> Result<(), FilesError> {
        let signing = self.authority(phase.signing());
        if !signing.key.exists() {
            return Ok(());
        }
        let mut bundle = String::new();
        for which in phase.trusted() {
            bundle += &text(&self.authority(*which).certificate)?;
        }
        let shown = self.server(phase.signing());
        // Trust before use: whoever reads in between finds an authority for every certificate.
        self.become_one(&self.ca, &bundle, PUBLIC)?;
        self.become_one(&self.ca_key, &text(&signing.key)?, SECRET)?;
        self.become_one(&self.key, &text(&shown.key)?, SECRET)?;
        self.become_one(&self.certificate, &text(&shown.certificate)?, PUBLIC)
    }

    fn become_one(&self, path: &Path, wanted: &str, mode: u32) -> Result<(), FilesError> {
        match fs::read_to_string(path) {
            Ok(there) if there == wanted => Ok(()),
            _ => put(path, wanted, mode),
        }
    }

    /// Takes away what is used no more: keys first.
    ///
    /// # Errors
    /// When the file system says no.
    pub fn forget(&self) -> Result<(), FilesError> {
        let both = [Which::Old, Which::New];
        let all = both.map(|which| [self.authority(which), self.server(which)]);
        let all = all.as_flattened();
        let keys = all.iter().map(|files| &files.key);
        for path in keys.chain(all.iter().map(|files| &files.certificate)) {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(FilesError::Io(path.clone(), error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

pub(super) fn text(path: &Path) -> Result<String, FilesError> {
    fs::read_to_string(path).map_err(|error| FilesError::Io(path.to_owned(), error))
}

// In place at once and for good; what root writes belongs to whom the folder belongs.
fn put(path: &Path, text: &str, mode: u32) -> Result<(), FilesError> {
    // A link stays one: what it leads to is replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = path.clone().into_os_string();
    name.push(".new");
    let fresh = PathBuf::from(name);
    let written = || -> io::Result<()> {
        let _ = fs::remove_file(&fresh);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&fresh)?;
        inherit(&file, path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    written().map_err(|error| FilesError::Io(path.clone(), error))
}

fn inherit(file: &File, path: &Path) -> io::Result<()> {
    let Some(folder) = path
        .parent()
        .filter(|_| rustix::process::geteuid().is_root())
    else {
        return Ok(());
    };
    let owner = fs::metadata(folder)?;
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(dir: &Path) -> Places {
        Places {
            folder: dir.join(FOLDER),
            ca: dir.join("ca.crt"),
            ca_key: dir.join("ca.key"),
            certificate: dir.join("server.crt"),
            key: dir.join("server.key"),
        }
    }

    fn active(places: &Places) -> [String; 4] {
        [&places.ca, &places.ca_key, &places.certificate, &places.key]
            .map(|path| fs::read_to_string(path).unwrap_or_default())
    }

    #[test]
    fn a_phase_that_was_interrupted_anywhere_is_completed_from_the_state() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let _lock = places.enter().unwrap();
        assert!(matches!(places.enter(), Err(FilesError::InUse(_))));
        assert_eq!(places.read().unwrap(), None);
        for (which, age) in [(Which::Old, "O"), (Which::New, "N")] {
            let ca = places.authority(which);
            Places::put_pair(&ca, age, &format!("{age}k")).unwrap();
            let server = places.server(which);
            Places::put_pair(&server, &format!("{age}s"), &format!("{age}sk")).unwrap();
        }
        let wanted = |phase| match phase {
            Phase::Standby | Phase::Prepared => ["O", "Ok", "Os", "Osk"],
            Phase::Trusted => ["ON", "Ok", "Os", "Osk"],
            Phase::Issuing => ["NO", "Nk", "Ns", "Nsk"],
            Phase::Finished => ["N", "Nk", "Ns", "Nsk"],
        };
        for from in Phase::ALL {
            for to in Phase::ALL {
                // Ended before the first file, and after each one: any mixture of the two becomes the phase that is kept.
                for done in 0..=4 {
                    places.apply(from).unwrap();
                    let files = [&places.ca, &places.ca_key, &places.key, &places.certificate];
                    let halfway = [0, 1, 3, 2].map(|at| wanted(to)[at]);
                    for (path, text) in files.iter().zip(halfway).take(done) {
                        fs::write(path, text).unwrap();
                    }
                    places.apply(to).unwrap();
                    assert_eq!(active(&places), wanted(to), "{from} {to} {done}");
                }
            }
        }
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(&places.ca_key), mode(&places.key)], [0o600, 0o600]);
        let mut kept = Kept::new(Pin::of_key(b"o"), Pin::of_key(b"n"), 1);
        kept.told(Timestamp(5), Phase::Trusted, false, None);
        places.keep(&kept).unwrap();
        assert_eq!(mode(&places.state()), 0o600);
        assert_eq!(places.read().unwrap(), Some(kept.clone()));
        kept.version = 2;
        places.keep(&kept).unwrap();
        assert!(matches!(places.read(), Err(FilesError::State(..))));
        // With its material gone a phase changes nothing.
        places.forget().unwrap();
        places.apply(Phase::Standby).unwrap();
        assert_eq!(active(&places), wanted(Phase::Finished));
    }
}
