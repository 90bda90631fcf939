//! Whether a library named on the command line may be loaded: by root only what nobody but root can change.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why a library is refused.
#[derive(Debug, thiserror::Error)]
pub enum LibraryRefused {
    /// The file or a folder above it cannot be looked at.
    #[error("{path}: {source}", path = .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a file.
    #[error("{path} is no regular file", path = .0.display())]
    NotAFile(PathBuf),
    /// Somebody other than root could change what root would load.
    #[error("as root only a library that root alone can change is loaded; {path} belongs to uid {uid} with mode {mode:o}",
        path = .path.display())]
    Foreign {
        /// The file, or a folder above it.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its permission bits.
        mode: u32,
    },
}

impl LibraryRefused {
    /// There is no such file, so nothing was refused that could have been loaded.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Checks a path given as `--nvml-library` and returns it absolute, without links, as it must be loaded.
///
/// # Errors
/// When it is no file, or when this process is root and the file or a folder above it is not root's alone.
pub fn check_library(path: &Path) -> Result<PathBuf, LibraryRefused> {
    check_for(path, rustix::process::geteuid().is_root())
}

fn check_for(path: &Path, root: bool) -> Result<PathBuf, LibraryRefused> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| LibraryRefused::Unreadable { path, source }
    };
    let real = fs::canonicalize(path).map_err(unreadable(path))?;
    let facts = fs::metadata(&real).map_err(unreadable(&real))?;
    if !facts.is_file() {
        return Err(LibraryRefused::NotAFile(real));
    }
    if root {
        for part in real.ancestors() {
            let facts = fs::metadata(part).map_err(unreadable(part))?;
            let writable = facts.mode() & 0o022 != 0;
            // In a folder with the sticky bit, such as /tmp, nobody can replace what root owns.
            let sticky = facts.is_dir() && facts.mode() & 0o1000 != 0;
            if facts.uid() != 0 || (writable && !sticky) {
                return Err(LibraryRefused::Foreign {
                    path: part.to_owned(),
                    uid: facts.uid(),
                    mode: facts.mode() & 0o7777,
                });
            }
        }
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn root_loads_only_what_root_alone_can_change() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libnvidia-ml.so.1");
        fs::write(&library, "").unwrap();
        set_mode(&library, 0o644);
        set_mode(folder.path(), 0o755);
        assert!(check_for(&library, false).is_ok());
        if !rustix::process::geteuid().is_root() {
            // Whoever runs this test is not root, so the file is not root's.
            assert!(matches!(
                check_for(&library, true),
                Err(LibraryRefused::Foreign { .. })
            ));
            return;
        }
        assert_eq!(
            check_for(&library, true).unwrap(),
            fs::canonicalize(&library).unwrap()
        );
        set_mode(folder.path(), 0o777);
        assert!(matches!(
            check_for(&library, true),
            Err(LibraryRefused::Foreign { mode: 0o777, .. })
        ));
        set_mode(folder.path(), 0o755);
        set_mode(&library, 0o664);
        assert!(matches!(
            check_for(&library, true),
            Err(LibraryRefused::Foreign { mode: 0o664, .. })
        ));
        set_mode(&library, 0o644);
        chown(&library, Some(65_534), None).unwrap();
        assert!(matches!(
            check_for(&library, true),
            Err(LibraryRefused::Foreign { uid: 65_534, .. })
        ));
        assert!(check_for(&library, false).is_ok());
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            check_for(folder.path(), false),
            Err(LibraryRefused::NotAFile(_))
        ));
        assert!(matches!(
            check_for(&folder.path().join("none"), false),
            Err(LibraryRefused::Unreadable { .. })
        ));
    }
}
