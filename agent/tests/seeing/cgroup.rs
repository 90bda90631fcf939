//! Real groups of the unified hierarchy, as a manager that runs as root makes them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::skip::skipped;

/// A folder of the unified hierarchy.
#[derive(Debug)]
pub(crate) struct Cgroup {
    root: PathBuf,
    folder: PathBuf,
}

impl Cgroup {
    /// Makes `/path`; `None`, said aloud, where this machine does not allow it.
    pub(crate) fn new(path: &str) -> Option<Self> {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let unified = |root: &&Path| root.join("cgroup.controllers").exists();
        let Some(root) = roots.into_iter().find(unified) else {
            skipped(path, "no unified cgroup hierarchy is mounted");
            return None;
        };
        let cgroup = Self {
            root: root.to_owned(),
            folder: root.join(path.trim_start_matches('/')),
        };
        // Another test may just be taking a common folder away.
        let made = (0..20).find_map(|_| fs::create_dir_all(&cgroup.folder).ok());
        if made.is_none() {
            skipped(path, "groups cannot be made here");
            return None;
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
        let pids = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines() {
            let _ = fs::write(self.root.join("cgroup.procs"), pid);
        }
        // What others use is not empty, and stays.
        let own = self
            .folder
            .ancestors()
            .take_while(|folder| **folder != self.root);
        for folder in own {
            let _ = fs::remove_dir(folder);
        }
    }
}
