//! The node's files below a root.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// More of a file is not read.
const MOST_BYTES: u64 = 1 << 20;

/// Where the node's `/` is.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
}

impl Root {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// An absolute path without its first slash, below the root.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }

    pub(super) fn text(&self, path: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        fs::File::open(self.at(path))?
            .take(MOST_BYTES)
            .read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    /// What a path leads to; `None` when nothing is there.
    ///
    /// # Errors
    /// When it cannot be told whether something is.
    pub(super) fn about(&self, path: &str) -> io::Result<Option<fs::Metadata>> {
        match fs::metadata(self.at(path)) {
            Ok(about) => Ok(Some(about)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A file's text; `None` when it is not there.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(super) fn text_if_there(&self, path: &str) -> io::Result<Option<String>> {
        match self.text(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether this is the machine that runs, so that its own databases can be asked.
    pub(super) fn is_running(&self) -> bool {
        self.path == Path::new("/")
    }

    /// User and group of the node's root: those of its topmost folder.
    pub(super) fn owner(&self) -> (u32, u32) {
        fs::metadata(&self.path).map_or((0, 0), |about| (about.uid(), about.gid()))
    }

    /// Permission bits, of what a link points to.
    pub(super) fn mode(&self, path: &str) -> Option<u32> {
        Some(fs::metadata(self.at(path)).ok()?.mode() & 0o7777)
    }

    /// Names in a folder, in order.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }
}
