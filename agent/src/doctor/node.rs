//! What the agent needs of the kernel and the disk.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::files::Root;
use super::{About, Finding, Grade, creators, namespaces};
use crate::config::Config;
use crate::events::kmsg::{KernelLog, LogState};
use crate::state::StateFolder;

/// Bits of `CapEff` in `/proc/self/status` (capability.h).
pub(super) const CAP_SYS_PTRACE: u32 = 19;

pub(super) fn examine(root: &Root, config: Option<&Config>) -> Vec<Finding> {
    let mut findings = vec![privileges(root), cgroups(root), loginuid(root)];
    findings.extend(namespaces::examine(root));
    let log = config.map_or_else(|| Some(root.at("dev/kmsg")), |c| c.kernel_log.clone());
    findings.extend(log.map(|log| kernel_log(KernelLog::follow(&log).state())));
    if let Some(config) = config {
        findings.push(state(&config.state));
        findings.extend(creators::examine(&config.attribution.creators));
    }
    findings
}

pub(super) fn found(id: &'static str, grade: Grade, text: impl Into<String>) -> Finding {
    Finding::new(id, About::Precondition, grade, text)
}

fn privileges(root: &Root) -> Finding {
    let id = "privileges";
    let status = root.text("proc/self/status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let uid = field("Uid:").and_then(|ids| ids.split_whitespace().nth(1)?.parse::<u32>().ok());
    let held = field("CapEff:").and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    let Some((uid, held)) = uid.zip(held) else {
        return found(id, Grade::Unknown, "the kernel does not tell")
            .advise("mount /proc, and run doctor as the agent's user");
    };
    if held & (1 << CAP_SYS_PTRACE) != 0 {
        return found(id, Grade::Ok, format!("uid {uid} with CAP_SYS_PTRACE"));
    }
    found(
        id,
        Grade::Warn,
        format!("uid {uid} without CAP_SYS_PTRACE: daemons of the driver are not told from tenants' programs"),
    )
    .advise("run the agent by its unit file, which gives it CAP_SYS_PTRACE, or as root")
}

fn cgroups(root: &Root) -> Finding {
    let id = "cgroups";
    if root.exists("sys/fs/cgroup/cgroup.controllers") {
        return found(id, Grade::Ok, "version 2");
    }
    if root.exists("sys/fs/cgroup/unified/cgroup.controllers") {
        return found(
            id,
            Grade::Ok,
            "version 2 beside version 1: its paths are used",
        );
    }
    found(
        id,
        Grade::Warn,
        "version 1 only: a process's slice and unit may not be told",
    )
    .advise("boot with systemd.unified_cgroup_hierarchy=1, or attribute by user")
}

fn loginuid(root: &Root) -> Finding {
    match root.text("proc/self/loginuid") {
        Ok(_) => found("loginuid", Grade::Ok, "told by the kernel"),
        Err(_) => found(
            "loginuid",
            Grade::Warn,
            "not told: who logged in is not known of a process that changed its user",
        )
        .advise("a kernel with CONFIG_AUDIT tells it"),
    }
}

fn kernel_log(state: LogState) -> Finding {
    let id = "kernel_log";
    match state {
        LogState::Following => found(id, Grade::Ok, "can be read"),
        LogState::Off => found(id, Grade::Ok, "turned off in the configuration"),
        LogState::Absent => found(
            id,
            Grade::Warn,
            "not there: losses without an XID are seen by readings only",
        )
        .advise("give the container /dev/kmsg"),
        LogState::Denied => found(
            id,
            Grade::Warn,
            "refused: losses without an XID are seen by readings only",
        )
        .advise("give the agent CAP_SYSLOG, as its unit file does"),
        LogState::Broken => found(id, Grade::Warn, "cannot be read")
            .advise("see whether `kernel_log` names /dev/kmsg, and dmesg works"),
    }
}

fn state(path: &std::path::Path) -> Finding {
    let id = "state";
    let shown = path.display();
    let about = match fs::metadata(path) {
        Ok(about) => about,
        Err(error) => {
            return found(id, Grade::Warn, format!("{shown}: {error}"))
                .advise("the agent makes it when it starts, if it may write above it");
        }
    };
    // Root may write anywhere; it is the agent's user who has to.
    let own = rustix::process::geteuid().as_raw();
    let foreign = own != 0 && ![0, own].contains(&about.uid());
    let writable = rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    if foreign || !about.is_dir() || !writable {
        return found(
            id,
            Grade::Fail,
            format!(
                "{shown} (of uid {}) is no folder that uid {own} can use: a restart loses reports",
                about.uid()
            ),
        )
        .advise("make it a folder of the agent's user, on a disk with room");
    }
    if about.mode() & 0o077 != 0 {
        return found(id, Grade::Warn, format!("{shown} is open to others"))
            .advise("the agent closes it when it starts (mode 0700)");
    }
    let agent = if StateFolder::is_held(path) {
        "an agent runs with it"
    } else {
        "no agent runs with it"
    };
    found(
        id,
        Grade::Ok,
        format!("{shown}, of uid {}; {agent}", about.uid()),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn grades(root: &Root) -> Vec<(&'static str, Grade)> {
        let findings = examine(root, None);
        findings
            .iter()
            .map(|finding| (finding.id, finding.grade))
            .collect()
    }

    #[test]
    fn rule_18_a_good_node_and_a_bad_one() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let write = |path: &str, text: &str| {
            fs::create_dir_all(root.at(path).parent().unwrap()).unwrap();
            fs::write(root.at(path), text).unwrap();
        };
        assert!(grades(&root).iter().all(|(id, grade)| match *id {
            "pid_namespace" | "cgroup_namespace" | "clock" | "hidepid" | "privileges" => {
                *grade == Grade::Unknown
            }
            _ => *grade == Grade::Warn,
        }));
        write(
            "proc/self/status",
            "Name:\tx\nUid:\t990\t990\t990\t990\nCapEff:\t0000000000080000\n",
        );
        write("proc/self/loginuid", "4294967295");
        let mounts = |options: &str| {
            write(
                "proc/self/mountinfo",
                &format!(
                    "1 2 0:3 / / rw - ext4 /x rw\n22 1 0:20 / /proc rw,nosuid shared:5 - proc proc {options}\n"
                ),
            );
        };
        mounts("rw,hidepid=invisible");
        write("sys/fs/cgroup/cgroup.controllers", "");
        write("dev/kmsg", "");
        fs::create_dir_all(root.at("proc/self/ns")).unwrap();
        let namespace = |name: &str, link: &str| {
            let path = root.at("proc/self/ns").join(name);
            let _ = fs::remove_file(&path);
            symlink(link, path).unwrap();
        };
        namespace("pid", "pid:[4026531836]");
        namespace("cgroup", "cgroup:[4026531835]");
        // hidepid hides nothing from whoever has CAP_SYS_PTRACE.
        assert!(
            grades(&root).iter().all(|(_, grade)| *grade == Grade::Ok),
            "{:?}",
            grades(&root)
        );
        write(
            "proc/self/status",
            "Uid:\t990\t990\t990\t990\nCapEff:\t0000000000000000\n",
        );
        // Those of the agent's own namespace, not of the one that its children would get.
        write(
            "proc/self/timens_offsets",
            "boottime            100         0\n",
        );
        assert!(
            grades(&root).contains(&("clock", Grade::Ok)),
            "a kernel without time namespaces"
        );
        namespace("time", "time:[4026531834]");
        assert!(grades(&root).contains(&("clock", Grade::Ok)), "the host's");
        namespace("time", "time:[4026532300]");
        namespace("pid", "pid:[4026532000]");
        namespace("cgroup", "cgroup:[4026532001]");
        let bad: Vec<_> = grades(&root)
            .into_iter()
            .filter(|(_, grade)| *grade != Grade::Ok)
            .collect();
        let expected = [
            ("privileges", Grade::Warn),
            ("pid_namespace", Grade::Fail),
            ("cgroup_namespace", Grade::Fail),
            ("clock", Grade::Fail),
            ("hidepid", Grade::Fail),
        ];
        assert_eq!(bad, expected);
        mounts("rw,gid=990,hidepid=2");
        write(
            "proc/self/status",
            "Uid:\t990\t990\t990\t990\nGroups:\t990 \nCapEff:\t0000000000000000\n",
        );
        assert!(
            grades(&root).contains(&("hidepid", Grade::Ok)),
            "its group is let in"
        );
        mounts("rw");
        assert!(grades(&root).contains(&("hidepid", Grade::Ok)));
        fs::remove_file(root.at("proc/self/timens_offsets")).unwrap();
        assert!(grades(&root).contains(&("clock", Grade::Unknown)));
    }
}
