//! The rotation's own files, and those that the server reads in each phase. What was interrupted is completed from the state
//! file: everything else follows from it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use gpuquota_proto::pinned::Pin;
use gpuquota_proto::tls::HttpsFiles;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::kept::{Kept, VERSION};
use super::phase::{Phase, Which};
use crate::config::Config;

/// Folder of the rotation in the server's directory.
pub const FOLDER: &str = "ca-rotation";
const STATE: &str = "state.json";
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
        let at = |error: io::Error| FilesError::Io(self.folder.clone(), error);
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(error)),
            _ => {}
        }
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&self.folder, how, Mode::empty());
        let folder = File::from(folder.map_err(|error| at(error.into()))?);
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

    /// Makes the files that the server reads those of its phase. What is right already is not touched. Of a rotation that is over the
    /// material may be gone, or already be that of the next one, which was interrupted before it was noted: then the files stay.
    ///
    /// # Errors
    /// When the file system says no, and what is left to do is done the next time; or when the material of a rotation under way is not
    /// what the state says.
    pub fn apply(&self, kept: &Kept) -> Result<(), FilesError> {
        let phase = kept.phase;
        let over = matches!(phase, Phase::Standby | Phase::Finished);
        match self.is_material_of(kept) {
            Ok(true) => self.put_all(phase),
            Ok(false) | Err(_) if over => Ok(()),
            Ok(false) => Err(FilesError::State(
                self.state(),
                "the authorities beside it are others than it says".into(),
            )),
            Err(error) => Err(error),
        }
    }

    // Whether all that this phase needs is there, and of the keys that the state names.
    fn is_material_of(&self, kept: &Kept) -> Result<bool, FilesError> {
        let Some((old, new)) = kept.pins() else {
            return Ok(false);
        };
        let signing = kept.phase.signing();
        for which in kept.phase.trusted().iter().chain([&signing]) {
            let wanted = match which {
                Which::Old => old,
                Which::New => new,
            };
            let path = self.authority(*which).certificate;
            let pem = text(&path)?;
            let pin = CertificateDer::from_pem_slice(pem.as_bytes())
                .ok()
                .and_then(|leaf| Pin::of(&leaf).ok());
            if pin != Some(wanted) {
                return Ok(false);
            }
        }
        let shown = self.server(signing);
        for path in [&self.authority(signing).key, &shown.key, &shown.certificate] {
            let _ = text(path)?;
        }
        Ok(true)
    }

    fn put_all(&self, phase: Phase) -> Result<(), FilesError> {
        let signing = self.authority(phase.signing());
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

// In place at once and for good. A link stays one: what it leads to is replaced.
fn put(path: &Path, text: &str, mode: u32) -> Result<(), FilesError> {
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

#[cfg(test)]
mod tests {
    use gpuquota_core::id::Timestamp;

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
        let now = Timestamp(1_800_000_000_000);
        let [old, new] = [0; 2].map(|_| crate::pki::authority(now).unwrap());
        let pin = |pair: &crate::pki::Pair| {
            let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
            Pin::of(&der).unwrap()
        };
        for (which, age, pair) in [(Which::Old, "O", &old), (Which::New, "N", &new)] {
            let ca = places.authority(which);
            Places::put_pair(&ca, &pair.certificate, &format!("{age}k")).unwrap();
            let server = places.server(which);
            Places::put_pair(&server, &format!("{age}s"), &format!("{age}sk")).unwrap();
        }
        let (o, n) = (old.certificate.as_str(), new.certificate.as_str());
        let wanted = |phase| {
            let [ca, rest @ ..] = match phase {
                Phase::Standby | Phase::Prepared => {
                    [o.to_owned(), "Ok".into(), "Os".into(), "Osk".into()]
                }
                Phase::Trusted => [format!("{o}{n}"), "Ok".into(), "Os".into(), "Osk".into()],
                Phase::Issuing => [format!("{n}{o}"), "Nk".into(), "Ns".into(), "Nsk".into()],
                Phase::Finished => [n.to_owned(), "Nk".into(), "Ns".into(), "Nsk".into()],
            };
            let [key, shown, shown_key]: [String; 3] = rest;
            [ca, key, shown, shown_key]
        };
        let of = |phase| Kept {
            phase,
            ..Kept::new(pin(&old), pin(&new), 1)
        };
        for from in Phase::ALL {
            for to in Phase::ALL {
                // Ended before the first file, and after each one: any mixture of the two becomes the phase that is kept.
                for done in 0..=4 {
                    places.apply(&of(from)).unwrap();
                    let files = [&places.ca, &places.ca_key, &places.key, &places.certificate];
                    let halfway = [0, 1, 3, 2].map(|at| wanted(to)[at].clone());
                    for (path, text) in files.iter().zip(&halfway).take(done) {
                        fs::write(path, text).unwrap();
                    }
                    places.apply(&of(to)).unwrap();
                    assert_eq!(active(&places), wanted(to), "{from} {to} {done}");
                }
            }
        }
        // Material of others than the state names is used for nothing.
        for phase in Phase::ALL {
            let stranger = Kept {
                phase,
                ..Kept::new(Pin::of_key(b"o"), Pin::of_key(b"n"), 1)
            };
            let over = matches!(phase, Phase::Standby | Phase::Finished);
            assert_eq!(places.apply(&stranger).is_ok(), over, "{phase}");
            assert_eq!(active(&places), wanted(Phase::Finished), "{phase}");
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
        places.apply(&of(Phase::Standby)).unwrap();
        assert_eq!(active(&places), wanted(Phase::Finished));
    }
}
