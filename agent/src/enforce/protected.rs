//! Whom no order ends.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::config::EnforcerConfig;
use super::threads::{executable, known};

/// Processes above one, up to the first; they are looked up at each order, for parents end too.
const DEEPEST: usize = 64;
/// Starts the servers of MPS.
const MPS_CONTROL: &str = "nvidia-cuda-mps-control";

/// Why a process is left alone; `None`: it is not.
pub(super) fn why_spared(
    pid: u32,
    folder: &Path,
    asking: u32,
    config: &EnforcerConfig,
) -> Option<String> {
    if pid <= 1 {
        return Some("it is the first process".to_owned());
    }
    let mut ours = ancestors(std::process::id());
    ours.extend(ancestors(asking));
    if ours.contains(&pid) {
        return Some("it is the agent, or what the agent runs in".to_owned());
    }
    let Some(runs) = executable(folder) else {
        return Some(
            "no thread of it has an executable that can be seen: it is the kernel's, or about to end"
                .to_owned(),
        );
    };
    let name = runs
        .link
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("");
    // So the kernel writes of a file that was replaced, as an upgrade does.
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    (config.protects(name) && is_the_systems(pid, folder, &runs.through, config))
        .then(|| format!("{name} serves everybody on this node"))
}

// Anyone can give a program such a name, or start the real one with a library of their own: it counts for users of the system
// that run root's file outside any container.
// A server of MPS runs as the user whose clients it serves; its parent, which the system started, vouches for it.
fn is_the_systems(pid: u32, folder: &Path, exe: &Path, config: &EnforcerConfig) -> bool {
    // Root sees every file of the system's; a user's file system may hide one.
    let Some(file) = known(exe) else {
        return false;
    };
    // A hardened unit has mounts of its own, but the host's pid namespace.
    let namespace = |of: &Path| fs::read_link(of.join("ns/pid")).ok();
    let outside = namespace(folder) == namespace(Path::new("/proc/1"));
    let of_the_system = |pid| user(pid).is_none_or(|uid| uid <= config.highest_system_uid);
    let vouched = || {
        parent(pid).is_some_and(|above| {
            let exe = fs::read_link(format!("/proc/{above}/exe"));
            let daemon = exe.is_ok_and(|exe| exe.ends_with(MPS_CONTROL));
            daemon && of_the_system(above)
        })
    };
    let roots = file.stx_uid == 0 && file.stx_mode & 0o022 == 0;
    roots && outside && (of_the_system(pid) || vouched())
}

// The effective user; the owner of the process's folder in /proc is root's for whoever makes itself undumpable.
fn user(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn ancestors(pid: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut next = Some(pid);
    while let Some(pid) = next.filter(|pid| *pid > 0 && found.len() < DEEPEST) {
        found.insert(pid);
        next = parent(pid);
    }
    found
}

// Field 4 of /proc/PID/stat, behind a name that may hold anything.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_69_the_first_process_the_agent_and_what_it_runs_in_are_spared() {
        let config = EnforcerConfig::default();
        let of = |pid: u32| {
            why_spared(
                pid,
                Path::new(&format!("/proc/{pid}")),
                std::process::id(),
                &config,
            )
        };
        for spared in [
            0,
            1,
            std::process::id(),
            parent(std::process::id()).unwrap(),
        ] {
            assert!(of(spared).is_some(), "{spared}");
        }
    }

    #[test]
    fn a_name_protects_roots_file_only() {
        let config = EnforcerConfig {
            protected: ["sleep".to_owned()].into(),
            highest_system_uid: 0,
        };
        let mut sleep = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let folder = format!("/proc/{}", sleep.id());
        let is_root = rustix::process::geteuid().is_root();
        let spared = why_spared(sleep.id(), Path::new(&folder), 1, &config);
        let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/pid")).ok();
        let outside = namespace("self") == namespace("1");
        assert_eq!(spared.is_some(), is_root && outside);
        // A program that was replaced while it runs, as an upgrade does, keeps its name.
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("sleep");
        fs::copy("/bin/sleep", &old).unwrap();
        let mut upgraded = std::process::Command::new(&old).arg("60").spawn().unwrap();
        fs::remove_file(&old).unwrap();
        let folder = format!("/proc/{}", upgraded.id());
        let spared = why_spared(upgraded.id(), Path::new(&folder), 1, &config);
        assert_eq!(spared.is_some(), is_root && outside);
        let forged = dir.path().join("sleep");
        fs::copy("/bin/sleep", &forged).unwrap();
        fs::set_permissions(&forged, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let mut other = std::process::Command::new(&forged)
            .arg("60")
            .spawn()
            .unwrap();
        let folder = format!("/proc/{}", other.id());
        assert_eq!(why_spared(other.id(), Path::new(&folder), 1, &config), None);
        // A user's file system may hide what it runs even from root.
        let hidden = Path::new("/proc/self/fd/no-such");
        let folder = format!("/proc/{}", sleep.id());
        assert!(!is_the_systems(
            sleep.id(),
            Path::new(&folder),
            hidden,
            &config
        ));
        for child in [&mut sleep, &mut upgraded, &mut other] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
