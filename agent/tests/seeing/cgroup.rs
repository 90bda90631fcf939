//! Real groups of the unified hierarchy, as a manager that runs as root makes them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::skip::skipped;

/// A folder of the unified hierarchy and those above it that were not there before.
#[derive(Debug)]
pub(crate) struct Cgroup {
    folder: PathBuf,
    made: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes `/path`; `None`, said aloud, where this machine does not allow it.
    pub(crate) fn new(path: &str) -> Option<Self> {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let unified = |root: &&Path| root.join("cgroup.controllers").exists();
        let at_root = fs::read_to_string("/proc/self/cgroup")
            .unwrap()
            .lines()
            .any(|line| line.starts_with("0::/"));
        let Some(root) = roots.into_iter().find(unified).filter(|_| at_root) else {
            skipped(path, "no unified cgroup hierarchy is mounted");
            return None;
        };
        let mut cgroup = Self {
            folder: root.to_owned(),
            made: Vec::new(),
        };
        for part in path.split('/').filter(|part| !part.is_empty()) {
            cgroup.folder.push(part);
            if cgroup.folder.exists() {
                continue;
            }
            if let Err(error) = fs::create_dir(&cgroup.folder) {
                skipped(path, format_args!("groups cannot be made here: {error}"));
                return None;
            }
            cgroup.made.push(cgroup.folder.clone());
        }
        Some(cgroup)
    }

    /// Moves a process into it.
    pub(crate) fn take(&self, pid: u32) {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes that still run go back to the root, else the folder stays.
        let root = self.made.first().and_then(|first| first.parent());
        let pids = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines() {
            let _ = root.map(|root| fs::write(root.join("cgroup.procs"), pid));
        }
        for folder in self.made.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}
