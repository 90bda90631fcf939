//! What the agent needs of the kernel and the disk.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::files::Root;
use super::{About, Finding, Grade};
use crate::config::Config;
use crate::events::kmsg::{KernelLog, LogState};
use crate::state::StateFolder;

/// The inode of the first pid namespace of every Linux (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
/// Bits of `CapEff` in `/proc/self/status` (capability.h).
const CAP_SYS_PTRACE: u32 = 19;

pub(super) fn examine(root: &Root, config: Option<&Config>) -> Vec<Finding> {
    let mut findings = vec![
        privileges(root),
        pid_namespace(root),
        cgroups(root),
        loginuid(root),
        clock(root),
    ];
    let log = config.map_or_else(|| Some(root.at("dev/kmsg")), |c| c.kernel_log.clone());
    findings.extend(log.map(|log| kernel_log(KernelLog::follow(&log).state())));
    findings.extend(config.map(|config| state(&config.state)));
    findings
}

fn found(id: &'static str, grade: Grade, text: impl Into<String>) -> Finding {
    Finding::new(id, About::Precondition, grade, text)
}

fn privileges(root: &Root) -> Finding {
    let id = "privileges";
    let status = root.text("proc/self/status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let uid = field("Uid:").and_then(|ids| ids.split_whitespace().nth(1)?.parse::<u32>().ok());
    let held = field("CapEff:").and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    let Some((uid, held)) = uid.zip(held) else {
        return found(id, Grade::Unknown, "the kernel does not tell");
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

fn pid_namespace(root: &Root) -> Finding {
    let id = "pid_namespace";
    match fs::read_link(root.at("proc/self/ns/pid")) {
        Ok(link) if link.as_os_str() == FIRST_PID_NAMESPACE => found(id, Grade::Ok, "the host's"),
        Ok(_) => found(
            id,
            Grade::Fail,
            "not the host's: a pid that the driver tells is another process here",
        )
        .advise("run the agent on the host, or in a container with the host's pid namespace"),
        Err(error) => found(id, Grade::Unknown, error.to_string()),
    }
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

fn clock(root: &Root) -> Finding {
    let id = "clock";
    let offsets = root.text("proc/self/timens_offsets").unwrap_or_default();
    let shifted = offsets.lines().any(|line| {
        let mut fields = line.split_whitespace();
        let clock = fields.next();
        clock == Some("boottime") && fields.any(|number| number != "0")
    });
    if shifted {
        return found(
            id,
            Grade::Fail,
            "a time namespace shifts CLOCK_BOOTTIME: start times of processes do not fit",
        )
        .advise("run the agent outside of time namespaces");
    }
    if crate::clock::unix_s() < 1_700_000_000 {
        return found(
            id,
            Grade::Fail,
            "the wall clock is years behind: certificates are not valid",
        )
        .advise("set the clock (chrony, systemd-timesyncd)");
    }
    found(
        id,
        Grade::Ok,
        "CLOCK_BOOTTIME is the host's, the wall clock is plausible",
    )
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
        LogState::Broken => found(id, Grade::Warn, "cannot be read"),
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
    let writable = rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    if !about.is_dir() || !writable {
        return found(
            id,
            Grade::Fail,
            format!("{shown} cannot be written: a restart loses reports"),
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
    found(id, Grade::Ok, format!("{shown}; {agent}"))
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
            "clock" => *grade == Grade::Ok,
            "pid_namespace" | "privileges" => *grade == Grade::Unknown,
            _ => *grade == Grade::Warn,
        }));
        write(
            "proc/self/status",
            "Name:\tx\nUid:\t990\t990\t990\t990\nCapEff:\t0000000000080000\n",
        );
        write("proc/self/loginuid", "4294967295");
        write(
            "proc/self/timens_offsets",
            "monotonic           0         0\nboottime            0         0\n",
        );
        write("sys/fs/cgroup/cgroup.controllers", "");
        write("dev/kmsg", "");
        fs::create_dir_all(root.at("proc/self/ns")).unwrap();
        symlink("pid:[4026531836]", root.at("proc/self/ns/pid")).unwrap();
        assert!(
            grades(&root).iter().all(|(_, grade)| *grade == Grade::Ok),
            "{:?}",
            grades(&root)
        );
        write(
            "proc/self/status",
            "Uid:\t990\t990\t990\t990\nCapEff:\t0000000000000000\n",
        );
        write(
            "proc/self/timens_offsets",
            "boottime            100         0\n",
        );
        fs::remove_file(root.at("proc/self/ns/pid")).unwrap();
        symlink("pid:[4026532000]", root.at("proc/self/ns/pid")).unwrap();
        let bad: Vec<_> = grades(&root)
            .into_iter()
            .filter(|(_, grade)| *grade != Grade::Ok)
            .collect();
        let expected = [
            ("privileges", Grade::Warn),
            ("pid_namespace", Grade::Fail),
            ("clock", Grade::Fail),
        ];
        assert_eq!(bad, expected);
    }
}
