//! The worker's own control group, below the one that the service manager delegated to the agent (systemd's `Delegate=`). There a
//! driver library that grows takes its worker along and not the agent, and what it spends shows apart.
//!
//! Nothing is made in a group that is not the agent's: other managers own those.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Most memory of the workers together, bytes: what the unit's `MemoryMax=` leaves beside the agent itself.
const MOST_BYTES: u64 = 112 << 20;

/// Where the workers live.
#[derive(Clone, Debug)]
pub struct Leaf {
    folder: PathBuf,
    /// Why their memory is not limited here.
    unlimited: Option<String>,
}

/// Why workers live in the agent's own group.
#[derive(Debug, thiserror::Error)]
pub enum NoLeaf {
    /// There is no unified hierarchy, or the agent's place in it is not seen.
    #[error("the agent's control group of version 2 is not seen")]
    Unseen,
    /// It belongs to the service manager.
    #[error("{0} is not delegated to the agent (Delegate= in its unit)")]
    NotDelegated(PathBuf),
    /// The kernel says no.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        source: io::Error,
    },
}

impl Leaf {
    /// Makes `agent` and `worker` in this process's own group and moves this process into the first. Called once, before there
    /// is a worker.
    ///
    /// # Errors
    /// When the group is not delegated or cannot be used; all is as before then.
    pub fn settle() -> Result<Self, NoLeaf> {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let own = own_group(&text("/proc/self/mountinfo"), &text("/proc/self/cgroup"));
        let own = own.ok_or(NoLeaf::Unseen)?;
        if !is_delegated(&own) {
            return Err(NoLeaf::NotDelegated(own));
        }
        Self::in_group(&own, std::process::id())
    }

    /// The same; without a group of their own workers run as before, and the log says why.
    #[must_use]
    pub fn settle_or_say() -> Option<Self> {
        match Self::settle() {
            Ok(leaf) => {
                let memory = leaf.unlimited.as_deref().unwrap_or("limited");
                tracing::info!(group = %leaf.folder.display(), memory, "workers have a control group of their own");
                Some(leaf)
            }
            Err(why) => {
                tracing::info!(%why, "workers share the agent's control group");
                None
            }
        }
    }

    fn in_group(own: &Path, pid: u32) -> Result<Self, NoLeaf> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| NoLeaf::Io { path, source }
        };
        let [agent, folder] = ["agent", "worker"].map(|name| own.join(name));
        for leaf in [&agent, &folder] {
            match fs::create_dir(leaf) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(at(leaf)(error));
                }
                _ => {}
            }
        }
        let procs = agent.join("cgroup.procs");
        fs::write(&procs, pid.to_string()).map_err(at(&procs))?;
        // Only now: a group with processes of its own may not share its controllers out (cgroups(7)).
        let limited = fs::write(own.join("cgroup.subtree_control"), "+memory")
            .and_then(|()| fs::write(folder.join("memory.max"), MOST_BYTES.to_string()));
        Ok(Self {
            folder,
            unlimited: limited.err().map(|error| error.to_string()),
        })
    }

    /// The group.
    #[must_use]
    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// Moves a worker in, with all its threads.
    pub(super) fn take(&self, pid: u32) -> io::Result<()> {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string())
    }
}

/// The folder of the group that `/proc/self/cgroup` names, below the mount that `/proc/self/mountinfo` names (proc(5)).
fn own_group(mounts: &str, groups: &str) -> Option<PathBuf> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    if path.split('/').any(|part| part == "..") {
        return None;
    }
    let mount = mounts.lines().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, at) = (fields.next()?, fields.next()?);
        (rest.starts_with("cgroup2 ") && root == "/").then_some(at)
    })?;
    Some(Path::new(mount).join(path))
}

/// As systemd marks what it has given away (user.delegate since version 251, trusted.delegate before); or it gave it to the agent's
/// user, who is not root.
fn is_delegated(group: &Path) -> bool {
    let marked = |name: &str| {
        let mut value = [0_u8; 8];
        let length = rustix::fs::getxattr(group, name, &mut value);
        length.is_ok_and(|length| value.get(..length) == Some(b"1"))
    };
    let own = rustix::process::geteuid().as_raw();
    let owner = fs::metadata(group).map(|about| std::os::unix::fs::MetadataExt::uid(&about));
    let given = own != 0 && owner.is_ok_and(|owner| owner == own);
    given || marked("user.delegate") || marked("trusted.delegate")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_group_is_found_below_the_mount_of_version_2() {
        let mounts = "25 1 0:22 / /sys/fs/cgroup rw shared:4 - tmpfs tmpfs rw\n\
            26 25 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:5 - cgroup2 cgroup2 rw\n";
        let own = |groups: &str| own_group(mounts, groups);
        let found = own("3:memory:/x\n0::/system.slice/gpuquota-agent.service\n");
        let expected = "/sys/fs/cgroup/unified/system.slice/gpuquota-agent.service";
        assert_eq!(found, Some(PathBuf::from(expected)));
        assert_eq!(own("0::/../other\n"), None, "outside of its namespace");
        assert_eq!(own("3:memory:/x\n"), None);
        assert_eq!(own_group("", "0::/x\n"), None);
    }

    #[test]
    fn a_group_that_is_not_the_agents_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let given = rustix::process::geteuid().as_raw() != 0;
        assert_eq!(is_delegated(dir.path()), given);
        assert!(Leaf::in_group(&dir.path().join("none"), 1).is_err());
    }
}
