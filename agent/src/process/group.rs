//! Which cgroup a path stands for now: the folder by its inode, which the kernel gives to no other group of this boot.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::workload::JobFolder;

/// Processes, and groups, that are looked at in one group, at most.
const MOST: usize = 4096;
/// Where cgroups are (cgroups(7)).
const ROOT: &str = "/sys/fs/cgroup";

/// One life of a cgroup. Another group that is later made under the same path has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupId {
    device: u64,
    inode: u64,
}

impl GroupId {
    /// The group of this path, written as in `/proc/PID/cgroup`, below the mount of its hierarchy; `None`: there is none.
    #[must_use]
    pub fn of_folder(root: &Path, group: &str) -> Option<Self> {
        let folder = root.join(group.trim_start_matches('/'));
        fs::symlink_metadata(folder).ok().as_ref().map(Self::of)
    }

    fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
        }
    }

    #[cfg(test)]
    pub(crate) fn of_test(inode: u64) -> Self {
        Self { device: 0, inode }
    }
}

/// The group of a job; `None` when it is not there, or its hierarchy is not mounted where it usually is.
#[must_use]
pub fn group_of(job: &JobFolder) -> Option<GroupId> {
    group_below(Path::new(ROOT), job)
}

fn group_below(root: &Path, job: &JobFolder) -> Option<GroupId> {
    let hierarchies = job.controllers.split(',');
    let named = |name: &str| root.join(name.strip_prefix("name=").unwrap_or(name));
    let candidates: Vec<PathBuf> = if job.controllers.is_empty() {
        vec![root.join("unified"), root.to_owned()]
    } else {
        let all = std::iter::once(named(&job.controllers));
        all.chain(hierarchies.map(named)).collect()
    };
    let relative = job.path.trim_start_matches('/');
    let found = candidates
        .into_iter()
        .find_map(|hierarchy| fs::symlink_metadata(hierarchy.join(relative)).ok())?;
    Some(GroupId::of(&found))
}

/// Processes in a group of version 2, given by its folder, and below it. Empty where it is no more; `None` where it cannot be read, or there
/// are more than 4,096 processes or groups.
pub(crate) fn pids_below(folder: &Path) -> Option<Vec<u32>> {
    let mut pids = Vec::new();
    let mut left = vec![folder.to_owned()];
    let mut looked_at = 0;
    while let Some(folder) = left.pop() {
        looked_at += 1;
        if looked_at > MOST {
            return None;
        }
        let text = match fs::read_to_string(folder.join("cgroup.procs")) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            // A threaded group (cgroup-v2.rst, "Threads"): its processes stand in the one above.
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) =>
            {
                continue;
            }
            Err(_) => return None,
        };
        for line in text.lines() {
            pids.push(line.parse().ok()?);
        }
        if pids.len() > MOST {
            return None;
        }
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(entry.path());
            }
        }
    }
    Some(pids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::workload::job_folder;

    #[test]
    fn a_group_is_found_in_each_layout() {
        let root = tempfile::tempdir().unwrap();
        let group = |text: &str| group_below(root.path(), &job_folder(text.as_bytes())?);
        let make = |path: &str| std::fs::create_dir_all(root.path().join(path)).unwrap();
        let v1 = "4:memory,cpu:/slurm/uid_7/job_1/step_0\n";
        let v2 = "0::/system.slice/slurmstepd.scope/job_1/step_0\n";
        assert_eq!((group(v1), group(v2)), (None, None));
        make("cpu/slurm/uid_7/job_1");
        make("system.slice/slurmstepd.scope/job_1/step_0");
        assert!(group(v1).is_some() && group(v2).is_some() && group(v1) != group(v2));
        let before = group(v2);
        make("unified/system.slice/slurmstepd.scope/job_1");
        assert_ne!(group(v2), before, "beside version 1");
    }
}
