//! The ways round a limit that are open on this node (rule 18), by what its files say.

use super::files::Root;
use super::{About, Finding, Grade};

/// Groups whose members become root.
const ADMIN_GROUPS: [&str; 3] = ["sudo", "wheel", "admin"];
/// Sockets through which whoever may write to them starts containers with any device.
const SOCKETS: [&str; 4] = [
    "run/docker.sock",
    "run/podman/podman.sock",
    "run/containerd/containerd.sock",
    "run/crio/crio.sock",
];
const SLURM: [&str; 2] = ["etc/slurm", "etc/slurm-llnl"];

pub(super) fn examine(root: &Root) -> Vec<Finding> {
    let groups = root.text("etc/group");
    let users = root.text("etc/passwd").unwrap_or_default();
    let mut findings = Vec::new();
    match &groups {
        Ok(groups) => {
            findings.push(members(
                "docker_group",
                &["docker"],
                groups,
                &users,
                "may start a container with any GPU, and so are root",
                "take them out of the group, or give them rootless containers",
            ));
            findings.push(members(
                "admins",
                &ADMIN_GROUPS,
                groups,
                &users,
                "may become root, and root passes every limit",
                "keep tenants out of these groups",
            ));
        }
        Err(error) => findings.push(found(
            "groups",
            Grade::Unknown,
            format!("/etc/group: {error}"),
        )),
    }
    findings.push(sockets(root));
    findings.push(modprobe(root));
    findings.push(nodes(root));
    findings.push(cgroups(root));
    findings.push(slurm(root));
    findings
}

fn found(id: &'static str, grade: Grade, text: impl Into<String>) -> Finding {
    Finding::new(id, About::Bypass, grade, text)
}

fn members(
    id: &'static str,
    wanted: &[&str],
    groups: &str,
    users: &str,
    what: &str,
    advice: &str,
) -> Finding {
    let mut names: Vec<&str> = Vec::new();
    for line in groups.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, listed] = fields[..] else {
            continue;
        };
        if !wanted.contains(&name) {
            continue;
        }
        names.extend(listed.split(',').filter(|name| !name.is_empty()));
        names.extend(users.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(2)? == gid).then_some(name)
        }));
    }
    names.sort_unstable();
    names.dedup();
    names.retain(|name| *name != "root");
    if names.is_empty() {
        return found(id, Grade::Ok, format!("nobody is in {}", wanted.join(", ")));
    }
    found(id, Grade::Warn, format!("{} {what}", listing(&names))).advise(advice)
}

/// The first few, and how many more.
fn listing(names: &[&str]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<&str> = names.iter().copied().take(SHOWN).collect();
    let more = names.len().saturating_sub(SHOWN);
    let text = shown.join(", ");
    if more > 0 {
        format!("{text} and {more} more")
    } else {
        text
    }
}

fn sockets(root: &Root) -> Finding {
    let id = "container_sockets";
    let there: Vec<(&str, u32)> = SOCKETS
        .into_iter()
        .filter_map(|path| Some((path, root.mode(path)?)))
        .collect();
    let open: Vec<&str> = there
        .iter()
        .filter(|(_, mode)| mode & 0o002 != 0)
        .map(|(path, _)| *path)
        .collect();
    if !open.is_empty() {
        let text = format!(
            "everybody may write to {}, and start containers with any GPU",
            listing(&open)
        );
        return found(id, Grade::Warn, text)
            .advise("take the right to write from others (chmod o-w)");
    }
    let shared: Vec<&str> = there
        .iter()
        .filter(|(_, mode)| mode & 0o020 != 0)
        .map(|(path, _)| *path)
        .collect();
    if !shared.is_empty() {
        let text = format!(
            "a group may write to {}, and start privileged containers",
            listing(&shared)
        );
        return found(id, Grade::Warn, text).advise("keep tenants out of that group");
    }
    found(
        id,
        Grade::Ok,
        "no container runtime is open to others than root",
    )
}

fn modprobe(root: &Root) -> Finding {
    let id = "nvidia_modprobe";
    match root.mode("usr/bin/nvidia-modprobe") {
        Some(mode) if mode & 0o4000 != 0 => found(
            id,
            Grade::Warn,
            "setuid root: every user can load the module and make device nodes",
        )
        .advise("chmod u-s /usr/bin/nvidia-modprobe, and let nvidia-persistenced make the nodes"),
        Some(_) => found(id, Grade::Ok, "not setuid"),
        None => found(id, Grade::Ok, "not installed"),
    }
}

fn nodes(root: &Root) -> Finding {
    let id = "device_nodes";
    let names = root.names("dev");
    let nodes: Vec<&str> = names
        .iter()
        .map(String::as_str)
        // No folder, such as /dev/nvidia-caps.
        .filter(|name| name.starts_with("nvidia") && !root.at("dev").join(name).is_dir())
        .collect();
    let open: Vec<&str> = nodes
        .iter()
        .copied()
        .filter(|name| {
            root.mode(&format!("dev/{name}"))
                .is_some_and(|mode| mode & 0o002 != 0)
        })
        .collect();
    if nodes.is_empty() {
        return found(id, Grade::Unknown, "there are none below /dev");
    }
    if open.is_empty() {
        return found(id, Grade::Ok, "none is open to everybody");
    }
    found(
        id,
        Grade::Warn,
        format!(
            "everybody may open {}: nothing but a device rule keeps a tenant off a GPU",
            listing(&open)
        ),
    )
    .advise("options nvidia NVreg_DeviceFileMode=0660 NVreg_DeviceFileGID=... in /etc/modprobe.d")
}

fn cgroups(root: &Root) -> Finding {
    let id = "device_rules";
    if root.exists("sys/fs/cgroup/cgroup.controllers") {
        return found(
            id,
            Grade::Ok,
            "cgroup version 2: rules by program are possible",
        );
    }
    found(
        id,
        Grade::Warn,
        "no cgroup version 2 for all: a rule by program does not reach every process",
    )
    .advise("boot with systemd.unified_cgroup_hierarchy=1")
}

fn slurm(root: &Root) -> Finding {
    let id = "slurm";
    let Some(folder) = SLURM.into_iter().find(|folder| root.exists(folder)) else {
        return found(id, Grade::Ok, "not configured here");
    };
    let text = root
        .text(&format!("{folder}/cgroup.conf"))
        .unwrap_or_default();
    if constrains(&text) {
        return found(id, Grade::Ok, "ConstrainDevices=yes");
    }
    found(
        id,
        Grade::Warn,
        "without ConstrainDevices=yes a job can use GPUs that it was not given",
    )
    .advise("ConstrainDevices=yes in cgroup.conf, and TaskPlugin=task/cgroup")
}

/// As slurm reads it: names and values in any case, what stands behind # is a comment, the last one counts.
fn constrains(text: &str) -> bool {
    let value = |line: &str| {
        let (name, value) = line.split('#').next()?.split_once('=')?;
        let own = name.trim().eq_ignore_ascii_case("ConstrainDevices");
        own.then(|| value.trim().eq_ignore_ascii_case("yes"))
    };
    text.lines().filter_map(value).next_back() == Some(true)
}

#[cfg(test)]
mod tests;
