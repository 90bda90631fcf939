//! What of the host the agent sees through its namespaces and its view of /proc.

use std::ffi::OsString;
use std::fs;
use std::io;

use super::files::Root;
use super::node::{CAP_SYS_PTRACE, found};
use super::{Finding, Grade};

/// The inodes of the first namespaces of every Linux (include/linux/proc_ns.h).
const FIRST_PID: &str = "pid:[4026531836]";
const FIRST_CGROUP: &str = "cgroup:[4026531835]";
const FIRST_TIME: &str = "time:[4026531834]";

pub(super) fn examine(root: &Root) -> Vec<Finding> {
    vec![pid(root), cgroup(root), clock(root), hidden(root)]
}

fn namespace(root: &Root, name: &str) -> io::Result<Option<OsString>> {
    match fs::read_link(root.at("proc/self/ns").join(name)) {
        Ok(link) => Ok(Some(link.into_os_string())),
        // A kernel without this kind has the folder and not the link.
        Err(error) if error.kind() == io::ErrorKind::NotFound && root.exists("proc/self/ns") => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn unknown(id: &'static str, what: &str, error: &io::Error) -> Finding {
    found(id, Grade::Unknown, format!("/proc/self/{what}: {error}"))
        .advise("mount /proc, and run doctor where the agent runs")
}

fn pid(root: &Root) -> Finding {
    let id = "pid_namespace";
    match namespace(root, "pid") {
        Ok(Some(link)) if link == FIRST_PID => found(id, Grade::Ok, "the host's"),
        Ok(Some(_)) => found(
            id,
            Grade::Fail,
            "not the host's: a pid that the driver tells is another process here",
        )
        .advise("run the agent on the host, or in a container with the host's pid namespace"),
        Ok(None) => found(id, Grade::Unknown, "the kernel does not tell")
            .advise("run doctor where the agent runs"),
        Err(error) => unknown(id, "ns/pid", &error),
    }
}

fn cgroup(root: &Root) -> Finding {
    let id = "cgroup_namespace";
    match namespace(root, "cgroup") {
        Ok(Some(link)) if link == FIRST_CGROUP => found(id, Grade::Ok, "the host's"),
        Ok(Some(_)) => found(
            id,
            Grade::Fail,
            "not the host's: slices and units of processes outside of it are not seen as they are",
        )
        .advise("run the agent on the host, or in a container with --cgroupns=host"),
        Ok(None) => found(id, Grade::Ok, "the kernel has none"),
        Err(error) => unknown(id, "ns/cgroup", &error),
    }
}

fn clock(root: &Root) -> Finding {
    let id = "clock";
    if crate::clock::unix_s() < 1_700_000_000 {
        return found(
            id,
            Grade::Fail,
            "the wall clock is years behind: certificates are not valid",
        )
        .advise("set the clock (chrony, systemd-timesyncd)");
    }
    match namespace(root, "time") {
        Ok(Some(link)) if link == FIRST_TIME => {
            found(id, Grade::Ok, "the host's; the wall clock is plausible")
        }
        Ok(None) => found(
            id,
            Grade::Ok,
            "the kernel has no time namespaces; the wall clock is plausible",
        ),
        Ok(Some(_)) => match root
            .text("proc/self/timens_offsets")
            .ok()
            .as_deref()
            .and_then(boottime_offset)
        {
            Some(false) => found(
                id,
                Grade::Ok,
                "in a time namespace that does not shift CLOCK_BOOTTIME",
            ),
            Some(true) => found(
                id,
                Grade::Fail,
                "a time namespace shifts CLOCK_BOOTTIME: start times of processes do not fit",
            )
            .advise("run the agent outside of time namespaces"),
            None => found(
                id,
                Grade::Unknown,
                "in a time namespace whose offsets cannot be read",
            )
            .advise("run the agent outside of time namespaces"),
        },
        Err(error) => unknown(id, "ns/time", &error),
    }
}

/// Whether the boot-time clock is shifted (time_namespaces(7)).
fn boottime_offset(text: &str) -> Option<bool> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut fields| {
        matches!(fields.next()?, "boottime" | "7").then(|| fields.any(|number| number != "0"))
    })
}

/// A /proc that hides processes of others (hidepid, proc(5)) hides whose they are.
fn hidden(root: &Root) -> Finding {
    let id = "hidepid";
    let mounts = match root.text("proc/self/mountinfo") {
        Ok(text) => text,
        Err(error) => return unknown(id, "mountinfo", &error),
    };
    let proc = mounts.lines().rev().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let at = fields.split(' ').nth(4)?;
        let mut rest = rest.split(' ');
        (at == "/proc" && rest.next()? == "proc")
            .then(|| rest.nth(1))
            .flatten()
    });
    let Some(options) = proc else {
        return found(id, Grade::Unknown, "no /proc is mounted at its place")
            .advise("mount proc at /proc");
    };
    let value = |name: &str| {
        options
            .split(',')
            .find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    };
    if matches!(value("hidepid"), None | Some("0" | "off")) {
        return found(id, Grade::Ok, "processes of all users are seen");
    }
    let status = root.text("proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default()
    };
    let held = u64::from_str_radix(field("CapEff:").trim(), 16).unwrap_or(0);
    let groups = ["Gid:", "Groups:"].map(field);
    let in_group = value("gid").is_some_and(|gid| {
        groups
            .iter()
            .any(|ids| ids.split_whitespace().any(|id| id == gid))
    });
    if held & (1 << CAP_SYS_PTRACE) != 0 || in_group {
        return found(
            id,
            Grade::Ok,
            "/proc hides processes of others, and not from the agent",
        );
    }
    found(
        id,
        Grade::Fail,
        "/proc hides processes of other users: whose they are is not known",
    )
    .advise(
        "give the agent CAP_SYS_PTRACE as its unit file does, or its group by gid= of the mount",
    )
}
