//! The demo's folder below the target directory: empty at start, and never anything but a demo's is wiped.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};

const MARKER: &str = ".gpuquota-demo";

/// A folder of one running demo.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    // Locked as long as the demo runs.
    _marker: File,
}

impl Folder {
    /// Makes `root`, or empties it where a demo that runs no more left it.
    pub(crate) fn create(root: &Path) -> Result<Self> {
        let marker = root.join(MARKER);
        if root.exists() && !marker.exists() && fs::read_dir(root)?.next().is_some() {
            bail!(
                "{} holds something that no demo made; move it away",
                root.display()
            );
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .with_context(|| format!("cannot make {}", root.display()))?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&marker)
            .with_context(|| format!("cannot open {}", marker.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another demo runs in {}; stop it first", root.display());
        }
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            if entry.file_name() != MARKER {
                remove(&entry.path())?;
            }
        }
        fs::create_dir(root.join("logs"))?;
        Ok(Self {
            root: root.to_owned(),
            _marker: file,
        })
    }

    /// A path in it.
    pub(crate) fn at(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Where the logs of all processes lie.
    pub(crate) fn logs(&self) -> PathBuf {
        self.at("logs")
    }

    /// Removes it with all that is in it.
    pub(crate) fn remove(self) -> Result<()> {
        remove(&self.root)
    }
}

fn remove(path: &Path) -> Result<()> {
    let facts = fs::symlink_metadata(path)?;
    let removed = if facts.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}

/// As a person would type it here: relative where that is shorter, quoted where a shell needs it.
pub(crate) fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    let text = relative.as_deref().unwrap_or(path).display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@=:,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_demos_folder_is_wiped_and_only_by_one_demo() {
        let parent = tempfile::tempdir().unwrap();
        let foreign = parent.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("thesis"), "").unwrap();
        assert!(Folder::create(&foreign).is_err());
        assert!(foreign.join("thesis").exists());

        let root = parent.path().join("demo");
        let first = Folder::create(&root).unwrap();
        fs::write(first.at("old"), "").unwrap();
        std::os::unix::fs::symlink(&foreign, first.at("link")).unwrap();
        assert!(Folder::create(&root).is_err(), "it is locked");
        assert!(root.join("old").exists());
        drop(first);
        let second = Folder::create(&root).unwrap();
        assert!(!root.join("old").exists() && !root.join("link").exists());
        assert!(foreign.join("thesis").exists());
        second.remove().unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn a_path_is_shown_as_a_shell_takes_it() {
        assert_eq!(shown(Path::new("/a/b-1.x")), "/a/b-1.x");
        assert_eq!(shown(Path::new("/a b/it's")), r"'/a b/it'\''s'");
        let here = std::env::current_dir().unwrap();
        assert_eq!(shown(&here.join("target/demo")), "target/demo");
    }
}
