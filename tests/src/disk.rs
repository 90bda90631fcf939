//! A disk that can be filled: a small file system in memory. To mount it takes root.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mounted disk, gone with this value.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of so many MiB; `None` where that cannot be done.
    #[must_use]
    pub fn mount(path: &Path, mib: u32) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]);
        let mounted = mount.arg(path).stderr(Stdio::null()).status();
        let mounted = mounted.is_ok_and(|status| status.success());
        mounted.then(|| Self(path.to_owned()))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves no room on it.
    pub fn fill(&self) {
        let mut fill = Command::new("dd");
        let to = format!("of={}", self.ballast().display());
        fill.args(["if=/dev/zero", "bs=4k", &to]);
        let filled = fill.stderr(Stdio::null()).status().unwrap();
        assert!(!filled.success(), "the disk is not full");
    }

    /// Makes room again.
    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        let umount = umount.arg("-l").arg(&self.0).stderr(Stdio::null());
        let _ = umount.status();
    }
}
