//! Which control groups may be restricted, and how one is opened so that nobody leads the order elsewhere.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, fstat, open, openat, statfs};
use rustix::io::Errno;

/// Groups that hold everybody's, or the manager itself.
const EVERYBODYS: [&str; 4] = ["init.scope", "system.slice", "user.slice", "machine.slice"];
/// Groups of managers that set devices themselves.
const MANAGED: [&str; 8] = [
    "kubepods",
    "docker",
    "libpod",
    "crio-",
    "cri-containerd-",
    "slurm",
    "machine-",
    "lxc",
];
/// Our own programs' units, whose groups and all below them are left alone.
const OURS: [&str; 3] = [
    "gpuquota-agent.service",
    "gpuquota-enforcer.service",
    "gpuquota-server.service",
];
/// Longest path, bytes.
const LONGEST: usize = 1024;
/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2: i64 = 0x6367_7270;

/// Why a group is not touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Untouched {
    /// Nobody may ask for that.
    Refused(String),
    /// Somebody else manages it.
    Managed(String),
    /// It is no more.
    Gone(String),
    /// It cannot be reached.
    Failed(String),
}

/// Where version 2 is mounted; the text says why nowhere.
pub(super) fn hierarchy() -> Result<PathBuf, String> {
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let mounted = |place: &str| statfs(place).is_ok_and(|about| about.f_type == CGROUP2);
    let found = places.into_iter().find(|place| mounted(place));
    found.map(PathBuf::from).ok_or_else(|| {
        "control groups of version 2 are not mounted on /sys/fs/cgroup; boot with systemd.unified_cgroup_hierarchy=1".to_owned()
    })
}

/// Checks a path as `/proc/PID/cgroup` writes it. `own`: groups that this program and who asks it live in.
pub(super) fn check(group: &str, own: &[String]) -> Result<(), Untouched> {
    let refused = |why: &str| Err(Untouched::Refused(format!("{group:?} {why}")));
    let Some(path) = group.strip_prefix('/') else {
        return refused("is no path of a control group");
    };
    let parts: Vec<&str> = path.split('/').collect();
    let odd = |part: &&str| part.is_empty() || *part == "." || *part == ".." || part.contains('\0');
    if group.len() > LONGEST || parts.iter().any(odd) {
        return refused("is no path of a control group");
    }
    if parts.len() == 1 && EVERYBODYS.contains(&parts[0]) {
        return refused("holds everybody's processes");
    }
    let above = |it: &String| {
        *it == group
            || it
                .strip_prefix(group)
                .is_some_and(|rest| rest.starts_with('/'))
    };
    let ours = parts.first() == Some(&"system.slice")
        && parts.get(1).is_some_and(|unit| OURS.contains(unit));
    if ours || own.iter().any(above) {
        return refused("holds the agent itself");
    }
    if let Some(part) = parts
        .iter()
        .find(|part| MANAGED.iter().any(|name| part.starts_with(name)))
    {
        return Err(Untouched::Managed(format!(
            "{part} belongs to a container runtime or job manager, which sets its devices itself: ask it"
        )));
    }
    Ok(())
}

/// Opens the folder of a group that was checked; no link is followed and no other file system entered. Part by part: openat2(2), which
/// could do it at once, is not there in a unit with `RestrictSUIDSGID=`.
pub(super) fn open_group(hierarchy: &Path, group: &str) -> Result<OwnedFd, Untouched> {
    let why = |error: Errno| {
        let text = format!("{group}: {error}");
        match error {
            Errno::NOENT => Untouched::Gone(text),
            Errno::LOOP | Errno::NOTDIR => Untouched::Refused(text),
            _ => Untouched::Failed(text),
        }
    };
    let how = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let mut folder = open(hierarchy, how, Mode::empty()).map_err(why)?;
    let device = fstat(&folder).map_err(why)?.st_dev;
    for part in group.split('/').filter(|part| !part.is_empty()) {
        if [".", ".."].contains(&part) {
            return Err(why(Errno::LOOP));
        }
        folder = openat(&folder, part, how, Mode::empty()).map_err(why)?;
        if fstat(&folder).map_err(why)?.st_dev != device {
            return Err(why(Errno::LOOP));
        }
    }
    Ok(folder)
}

/// The group of a process, as `/proc/PID/cgroup` writes it; `None`: it has gone, or is in none of version 2.
pub(super) fn of_process(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(ToOwned::to_owned)
}

/// Whether a folder is in a bpf file system.
pub(super) fn is_bpf(path: &Path) -> bool {
    const BPF: i64 = 0xcafe_4a11;
    let opened = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    opened
        .and_then(rustix::fs::fstatfs)
        .is_ok_and(|about| about.f_type == BPF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_69_groups_of_everybody_of_other_managers_and_of_the_agent_are_not_touched() {
        let own = ["/system.slice/gpuquota-agent.service".to_owned()];
        let of = |group: &str| check(group, &own);
        for theirs in [
            "/user.slice/user-1000.slice",
            "/tenant-a.slice",
            "/system.slice/train.service",
            "/system.slice/gpuquota-agent.service2",
        ] {
            assert_eq!(of(theirs), Ok(()), "{theirs}");
        }
        for refused in [
            "",
            "/",
            "user-1000.slice",
            "/system.slice",
            "/user.slice",
            "/init.scope",
            "/a/../b",
            "/a//b",
            "/./a",
            "/a/",
            "/system.slice/gpuquota-agent.service",
            "/system.slice/gpuquota-agent.service/worker",
            "/system.slice/gpuquota-enforcer.service",
        ] {
            assert!(
                matches!(of(refused), Err(Untouched::Refused(_))),
                "{refused}"
            );
        }
        assert!(matches!(
            of(&format!("/{}", "a".repeat(1024))),
            Err(Untouched::Refused(_))
        ));
        for managed in [
            "/kubepods.slice/x",
            "/system.slice/docker-0123.scope",
            "/machine.slice/libpod-01.scope",
            "/system.slice/slurmstepd.scope/job_1",
        ] {
            assert!(
                matches!(of(managed), Err(Untouched::Managed(_))),
                "{managed}"
            );
        }
    }

    #[test]
    fn no_link_leads_out_of_the_hierarchy() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        assert!(open_group(dir.path(), "/a").is_ok());
        for elsewhere in ["/link", "/link/etc", "/a/..", "/../etc"] {
            assert!(matches!(
                open_group(dir.path(), elsewhere),
                Err(Untouched::Refused(_))
            ));
        }
        assert!(matches!(
            open_group(dir.path(), "/b"),
            Err(Untouched::Gone(_))
        ));
        // Another file system is another place.
        assert!(matches!(
            open_group(Path::new("/"), "/proc"),
            Err(Untouched::Refused(_))
        ));
    }
}
