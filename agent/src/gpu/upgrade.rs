//! Whether the library that this process has loaded is still the one on disk, and which kernel module is loaded.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::reading::NvmlState;

/// How the library's files are called, whatever their version.
const NAME: &str = "libnvidia-ml.so";
/// The name that programs ask for; a link to the file.
const LINK: &str = "libnvidia-ml.so.1";

/// The file behind the library in memory.
#[derive(Debug)]
pub(super) struct Loaded {
    path: PathBuf,
    stamp: Option<Stamp>,
}

#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

impl Loaded {
    /// Looks it up in `/proc/self/maps`; `None` when the kernel does not tell.
    pub(super) fn find(named: Option<&Path>) -> Option<Self> {
        let maps = fs::read_to_string("/proc/self/maps").ok()?;
        let path = mapped(&maps, named)?.to_owned();
        let stamp = stamp(&path);
        Some(Self { path, stamp })
    }

    /// What is different on disk now; `None` while nothing is.
    pub(super) fn replaced(&self) -> Option<String> {
        let now = stamp(&self.path);
        if now != self.stamp {
            let path = self.path.display();
            let what = if now.is_none() {
                "is gone"
            } else {
                "was replaced"
            };
            return Some(format!("{path} {what}"));
        }
        // Packages put the new file beside the old one and turn the link.
        let wanted = fs::canonicalize(self.path.parent()?.join(LINK)).ok()?;
        let moved = self.path.file_name()?.to_str()?.starts_with(NAME) && wanted != self.path;
        moved.then(|| format!("{LINK} is {} now", wanted.display()))
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let about = fs::metadata(path).ok()?;
    Some(Stamp {
        device: about.dev(),
        inode: about.ino(),
        modified: (about.mtime(), about.mtime_nsec()),
    })
}

/// The path of the mapped library, in the format of proc_pid_maps(5): the path is the sixth field.
fn mapped<'m>(maps: &'m str, named: Option<&Path>) -> Option<&'m Path> {
    maps.lines()
        .filter_map(|line| line.get(line.find('/')?..))
        .map(|path| Path::new(path.strip_suffix(" (deleted)").unwrap_or(path)))
        .find(|path| match named {
            Some(named) => *path == named,
            None => path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(NAME)),
        })
}

/// Version of the loaded kernel module, from `/proc/driver/nvidia/version`; `None` when none is loaded or it does not say.
#[must_use]
pub fn module_version(proc_root: &Path) -> Option<String> {
    let text = fs::read_to_string(proc_root.join("driver/nvidia/version")).ok()?;
    version_in(&text).map(str::to_owned)
}

/// The first word like 550.90.07 of the first line.
fn version_in(text: &str) -> Option<&str> {
    let version = |word: &&str| {
        let mut parts = word.split('.');
        let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        word.contains('.') && word.len() <= 32 && parts.all(number)
    };
    text.lines().next()?.split_whitespace().find(version)
}

/// Says beside a mismatch which module is loaded: what to reboot into, or to install.
pub(super) fn explained(state: NvmlState, proc_root: &Path) -> NvmlState {
    match (state, module_version(proc_root)) {
        (NvmlState::Mismatch(detail), Some(version)) => NvmlState::Mismatch(format!(
            "{detail}; the kernel module is {version}, the library another one"
        )),
        (state, _) => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_d_a_library_that_was_replaced_is_noticed() {
        let maps = "7f00-7f01 r--p 00000000 08:01 99 /usr/lib/libc.so.6\n\
                    7f02-7f03 r-xp 00000000 08:01 77                 /usr/lib/x y/libnvidia-ml.so.550.90.07 (deleted)\n\
                    7ffe-7fff rw-p 00000000 00:00 0 [stack]\n";
        let expected = Some(Path::new("/usr/lib/x y/libnvidia-ml.so.550.90.07"));
        assert_eq!(mapped(maps, None), expected);
        assert_eq!(mapped(maps, Some(Path::new("/usr/lib/libc.so"))), None);

        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        let file = |version: &str| dir.join(format!("{NAME}.{version}"));
        fs::write(file("550"), "old").unwrap();
        std::os::unix::fs::symlink(file("550"), dir.join(LINK)).unwrap();
        let loaded = Loaded {
            path: file("550"),
            stamp: stamp(&file("550")),
        };
        assert_eq!(loaded.replaced(), None);
        fs::write(file("560"), "new").unwrap();
        fs::remove_file(dir.join(LINK)).unwrap();
        std::os::unix::fs::symlink(file("560"), dir.join(LINK)).unwrap();
        assert!(loaded.replaced().unwrap().contains("560"));
        fs::remove_file(file("550")).unwrap();
        assert!(loaded.replaced().unwrap().contains("gone"));
        fs::write(file("550"), "other").unwrap();
        assert!(loaded.replaced().is_some());
    }

    #[test]
    fn rule_14_the_version_of_the_module_is_read_in_both_spellings() {
        for (text, expected) in [
            (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version:  gcc 12.3.0",
                Some("535.104.05"),
            ),
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build  (dvs)",
                Some("560.35.03"),
            ),
            ("GCC 12.", None),
            ("", None),
        ] {
            assert_eq!(version_in(text), expected);
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("driver/nvidia")).unwrap();
        fs::write(dir.path().join("driver/nvidia/version"), "x 1.2").unwrap();
        let told = explained(NvmlState::Mismatch("18".into()), dir.path());
        assert!(matches!(told, NvmlState::Mismatch(detail) if detail.contains("1.2")));
    }
}
