//! The worker's own control group, below the one that the service manager delegated to the agent (systemd's `Delegate=`). There a
//! driver library that grows takes its worker along and not the agent, and what it spends shows apart.
//!
//! Nothing is made in a group that is not the agent's: other managers own those. Controllers are shared out only where the manager
//! itself starts the agent below the group (`DelegateSubgroup=`, systemd 254): it could put no process into a group that shares them
//! out (cgroups(7)), so while a worker that cannot be killed keeps the group alive, the agent could never be started again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Most memory of the workers together, bytes: what the unit's `MemoryMax=` leaves beside the agent itself.
const MOST_BYTES: u64 = 112 << 20;

/// The agent's own group below the delegated one: the unit's `DelegateSubgroup=`.
const AGENT: &str = "agent";
/// The workers' group.
const WORKER: &str = "worker";

/// Where the workers live.
#[derive(Clone, Debug)]
pub struct Leaf {
    folder: PathBuf,
    /// Why their memory is not limited here.
    unlimited: Option<String>,
}

/// The group that the agent has for itself and its workers.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    group: PathBuf,
    /// The agent was started in [`AGENT`] below it, and will be the next time.
    apart: bool,
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
    /// Makes the workers' group. A process that was not started in `agent` moves there. Called once, before there is a worker.
    ///
    /// # Errors
    /// When the group is not delegated or cannot be used; all is as before then.
    pub fn settle() -> Result<Self, NoLeaf> {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let own = own_group(&text("/proc/self/mountinfo"), &text("/proc/self/cgroup"));
        let own = own.ok_or(NoLeaf::Unseen)?;
        let (user, pid) = (rustix::process::geteuid().as_raw(), std::process::id());
        let place = place(&own, user, pid).ok_or(NoLeaf::NotDelegated(own))?;
        Self::below(&place, pid)
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

    fn below(place: &Place, pid: u32) -> Result<Self, NoLeaf> {
        let folder = made(place.group.join(WORKER))?;
        if !place.apart {
            let procs = made(place.group.join(AGENT))?.join("cgroup.procs");
            let path = procs.clone();
            fs::write(&procs, pid.to_string()).map_err(|source| NoLeaf::Io { path, source })?;
        }
        let unlimited = if place.apart {
            let shared = fs::write(place.group.join("cgroup.subtree_control"), "+memory");
            let limit = || fs::write(folder.join("memory.max"), MOST_BYTES.to_string());
            let limited = shared.and_then(|()| limit());
            limited.err().map(|error| error.to_string())
        } else {
            Some("not limited: needs DelegateSubgroup=agent of systemd 254".to_owned())
        };
        Ok(Self { folder, unlimited })
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

fn made(folder: PathBuf) -> Result<PathBuf, NoLeaf> {
    match fs::create_dir(&folder) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            let path = folder;
            Err(NoLeaf::Io { path, source })
        }
        _ => Ok(folder),
    }
}

/// What was delegated to the process `pid` of `user`, which runs in the group `own`.
fn place(own: &Path, user: u32, pid: u32) -> Option<Place> {
    let alone = is_alone(own, pid);
    let above = own.parent().filter(|_| own.ends_with(AGENT));
    let places = [(above, true), (Some(own), false)].into_iter();
    let mut places = places.filter_map(|(group, apart)| Some((group?, apart)));
    let (group, apart) = places.find(|(group, _)| is_delegated(group, user, alone))?;
    let group = group.to_owned();
    Some(Place { group, apart })
}

/// As systemd marks what it has given away (user.delegate since version 251, trusted.delegate before). That older mark is shown to
/// root alone; to another user it gave the group if that user owns it and nobody else's processes are there: a user's terminal
/// has a group of that user's as well, with the shell in it.
fn is_delegated(group: &Path, user: u32, alone: bool) -> bool {
    let marked = |name: &str| {
        let mut value = [0_u8; 8];
        let length = rustix::fs::getxattr(group, name, &mut value);
        length.is_ok_and(|length| value.get(..length) == Some(b"1"))
    };
    let owner = fs::metadata(group).map(|about| std::os::unix::fs::MetadataExt::uid(&about));
    let given = user != 0 && alone && owner.is_ok_and(|owner| owner == user);
    given || marked("user.delegate") || marked("trusted.delegate")
}

/// Whether the group has this process and no other.
fn is_alone(group: &Path, pid: u32) -> bool {
    let procs = fs::read_to_string(group.join("cgroup.procs"));
    procs.is_ok_and(|procs| procs.trim() == pid.to_string())
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

    fn folder_of(pids: &str) -> (tempfile::TempDir, PathBuf, u32) {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join(AGENT);
        fs::create_dir(&own).unwrap();
        fs::write(own.join("cgroup.procs"), pids).unwrap();
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&own).unwrap());
        (dir, own, owner)
    }

    #[test]
    fn a_group_that_is_not_the_agents_is_left_alone() {
        let (dir, own, mut owner) = folder_of("7\n");
        if owner == 0 {
            owner = 4711;
            std::os::unix::fs::chown(&own, Some(owner), None).unwrap();
        }
        for (user, alone, given) in [
            (owner, true, true),
            (owner, false, false),
            (owner + 1, true, false),
            (0, true, false),
        ] {
            assert_eq!(is_delegated(&own, user, alone), given, "{user} {alone}");
        }
        assert!(is_alone(&own, 7) && !is_alone(&own, 8));
        fs::write(own.join("cgroup.procs"), "7\n8\n").unwrap();
        assert!(!is_alone(&own, 7), "a terminal's shell");
        let group = dir.path().join("none");
        assert!(Leaf::below(&Place { group, apart: true }, 1).is_err());
    }

    /// A group that shares its controllers out takes no process, so systemd could not start the agent's successor in it while a
    /// worker in state D keeps it alive.
    #[test]
    fn rule_01_controllers_are_shared_out_only_where_the_manager_starts_the_agent_below() {
        let (dir, own, _) = folder_of("7\n");
        let group = dir.path().to_owned();
        let shared = group.join("cgroup.subtree_control");
        let within = Place {
            group: group.clone(),
            apart: false,
        };
        let leaf = Leaf::below(&within, 7).unwrap();
        assert!(leaf.unlimited.is_some() && !shared.exists());
        let limit = leaf.path().join("memory.max");
        assert!(!limit.exists());
        fs::write(own.join("cgroup.procs"), "as it was").unwrap();
        let leaf = Leaf::below(&Place { group, apart: true }, 7).unwrap();
        assert_eq!(leaf.unlimited, None);
        assert_eq!(fs::read_to_string(shared).unwrap(), "+memory");
        assert_eq!(fs::read_to_string(limit).unwrap(), MOST_BYTES.to_string());
        assert_eq!(
            fs::read_to_string(own.join("cgroup.procs")).unwrap(),
            "as it was"
        );
    }

    #[test]
    fn the_group_above_is_taken_where_the_agent_was_started_in_its_own() {
        let (dir, own, owner) = folder_of("7\n");
        let Some(user) = Some(owner).filter(|owner| *owner != 0) else {
            let flags = rustix::fs::XattrFlags::empty();
            if rustix::fs::setxattr(dir.path(), "trusted.delegate", b"1", flags).is_err() {
                return;
            }
            let expected = Place {
                group: dir.path().to_owned(),
                apart: true,
            };
            assert_eq!(place(&own, 0, 7), Some(expected));
            let other = dir.path().join("other");
            fs::create_dir(&other).unwrap();
            assert_eq!(place(&other, 0, 7), None);
            let expected = Place {
                group: dir.path().to_owned(),
                apart: false,
            };
            assert_eq!(place(dir.path(), 0, 7), Some(expected));
            return;
        };
        let expected = Place {
            group: dir.path().to_owned(),
            apart: true,
        };
        assert_eq!(place(&own, user, 7), Some(expected));
        assert_eq!(place(&own, user, 8), None, "another is there");
    }
}
