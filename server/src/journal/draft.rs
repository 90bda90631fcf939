//! A file that gets its name when it is complete: written beside it, synced, renamed, and the folder synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::store::Hash;

/// A file that is being written; what is not finished goes away with it.
pub(super) struct Draft {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    digest: Sha256,
}

impl Draft {
    /// Begins a file that only its owner may read. What an interrupted run left under the temporary name is replaced.
    pub(super) fn begin(path: &Path) -> anyhow::Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".writing");
        let temporary = PathBuf::from(name);
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error)
                    .with_context(|| format!("cannot replace {}", temporary.display()));
            }
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .with_context(|| format!("cannot write {}", temporary.display()))?;
        Ok(Self {
            path: path.to_owned(),
            temporary,
            file: BufWriter::new(file),
            digest: Sha256::new(),
        })
    }

    /// Where it is while it has no name.
    pub(super) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Puts it on the disk, still without its name; SHA-256 of all of it.
    pub(super) fn sync(&mut self) -> anyhow::Result<Hash> {
        let synced = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all());
        synced.with_context(|| format!("cannot write {}", self.temporary.display()))?;
        Ok(Hash::from_digest(self.digest.clone()))
    }

    /// Gives it its name.
    pub(super) fn name(mut self) -> anyhow::Result<Hash> {
        let digest = self.sync()?;
        fs::rename(&self.temporary, &self.path)
            .with_context(|| format!("cannot name {}", self.path.display()))?;
        sync_parent(&self.path)?;
        Ok(digest)
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After it got its name there is nothing here.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Makes a rename in this file's folder durable.
pub(super) fn sync_parent(path: &Path) -> anyhow::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("cannot sync {}", folder.display()))
}
