//! Real groups of the unified hierarchy, as a manager that runs as root makes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::skip::{left_out, skipped};

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
            without(path, "no unified cgroup hierarchy is mounted");
            return None;
        };
        let cgroup = Self {
            root: root.to_owned(),
            folder: root.join(path.trim_start_matches('/')),
        };
        // Another test may just be taking a common folder away.
        let made = (0..20).map(|_| fs::create_dir_all(&cgroup.folder));
        if let Some(Err(error)) = made.reduce(std::io::Result::or) {
            without(path, format!("groups cannot be made here: {error}"));
            return None;
        }
        // A group that can be made and not entered, as where it is delegated to somebody else.
        let mut probe = Command::new("sleep").arg("60").spawn().unwrap();
        let entered = fs::write(cgroup.folder.join("cgroup.procs"), probe.id().to_string());
        probe.kill().unwrap();
        probe.wait().unwrap();
        if let Err(error) = entered {
            without(
                path,
                format!("no process can be moved into a group here: {error}"),
            );
            return None;
        }
        Some(cgroup)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Marks it as systemd marks a group that it gave away; whether that is possible here.
    pub(crate) fn delegate(&self) -> bool {
        let flags = rustix::fs::XattrFlags::empty();
        let marked = rustix::fs::setxattr(&self.folder, "trusted.delegate", b"1", flags);
        if let Err(error) = marked {
            without(
                &self.folder.display().to_string(),
                format!("a group cannot be marked: {error}"),
            );
        }
        marked.is_ok()
    }

    /// Has this controller ready for it, as `Delegate=` with its name does; whether that is possible here.
    pub(crate) fn offer(&self, controller: &str) -> bool {
        let above: Vec<_> = self.folder.ancestors().skip(1).collect();
        let above = above
            .iter()
            .rev()
            .filter(|folder| folder.starts_with(&self.root));
        let shared = above.map(|folder| {
            fs::write(
                folder.join("cgroup.subtree_control"),
                format!("+{controller}"),
            )
        });
        let offered = shared.fold(Ok(()), std::io::Result::and);
        if let Err(error) = &offered {
            let what = format!("the {controller} controller in {}", self.folder.display());
            left_out(&what, format!("it cannot be had here: {error}"));
        }
        offered.is_ok()
    }

    /// Moves a process into it.
    pub(crate) fn take(&self, pid: u32) {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

/// Names the test, which is what the thread is called after.
fn without(path: &str, why: impl std::fmt::Display) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test of cgroups");
    skipped(&format!("{test} ({path})"), why);
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let pids = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines() {
            let _ = fs::write(self.root.join("cgroup.procs"), pid);
        }
        for leaf in ["agent", "worker"] {
            let leaf = self.folder.join(leaf);
            // Whoever was in it has just been killed.
            for _ in 0..100 {
                if !leaf.exists() || fs::remove_dir(&leaf).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
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
