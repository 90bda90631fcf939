//! The ways round a limit that are open on this node (rule 18), by what its files say.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::accounts::Accounts;
use super::files::Root;
use super::tenants::{ADMIN_GROUPS, Ways};
use super::{About, Finding, Grade, sockets};

const SLURM: [&str; 4] = [
    "etc/slurm",
    "etc/slurm-llnl",
    "run/slurm/conf",
    "var/spool/slurmd/conf-cache",
];
const MODPROBE: [&str; 3] = [
    "usr/bin/nvidia-modprobe",
    "usr/sbin/nvidia-modprobe",
    "sbin/nvidia-modprobe",
];

pub(super) fn examine(
    root: &Root,
    accounts: &Accounts,
    ways: &Ways,
    denies: Option<bool>,
) -> Vec<Finding> {
    let mut findings = vec![
        members(
            "docker_group",
            ways.docker(),
            &ways.gaps,
            "the group docker",
            "may start a container with any GPU, and so are root",
            "take them out of the group, or give them rootless containers",
        ),
        members(
            "admins",
            &ways.admins.union(&ways.sudo).cloned().collect(),
            &ways.gaps,
            &format!("{}, or sudo's rules", ADMIN_GROUPS.join(", ")),
            "may become root, and root passes every limit",
            "keep tenants out of these groups and rules",
        ),
        members(
            "lingering",
            &ways.lingering,
            &[],
            "the list of lingering users",
            "run programs outside of logins and jobs (user@UID.service)",
            "loginctl disable-linger, or attribute by slice",
        ),
    ];
    findings.extend(sockets::examine(root, accounts));
    findings.push(modprobe(root));
    findings.push(nodes(root));
    findings.push(cgroups(root));
    findings.push(container_env(root));
    findings.push(visible_devices(root, denies));
    findings.push(slurm(root));
    findings.push(slurm_ssh(root));
    findings
}

pub(super) fn found(id: &'static str, grade: Grade, text: impl Into<String>) -> Finding {
    Finding::new(id, About::Bypass, grade, text)
}

fn unreadable(id: &'static str, path: &str, error: &io::Error) -> Finding {
    found(id, Grade::Unknown, format!("/{path}: {error}")).advise("run doctor as root")
}

fn members(
    id: &'static str,
    names: &BTreeSet<String>,
    gaps: &[String],
    place: &str,
    what: &str,
    advice: &str,
) -> Finding {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let more = if gaps.is_empty() {
        String::new()
    } else {
        format!("; there may be more: {}", gaps.join(", "))
    };
    if !names.is_empty() {
        return found(id, Grade::Warn, format!("{} {what}{more}", listing(&names))).advise(advice);
    }
    if gaps.is_empty() {
        return found(id, Grade::Ok, format!("nobody is in {place}"));
    }
    found(
        id,
        Grade::Unknown,
        format!("nobody is seen in {place}{more}"),
    )
    .advise("run doctor as root, and ask the directory for the members (getent group)")
}

/// The first few, and how many more.
pub(super) fn listing(names: &[&str]) -> String {
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

fn modprobe(root: &Root) -> Finding {
    let id = "nvidia_modprobe";
    let mut there = false;
    for path in MODPROBE {
        match root.about(path) {
            Err(error) => return unreadable(id, path, &error),
            Ok(Some(about)) if about.mode() & 0o4000 != 0 => {
                return found(
                    id,
                    Grade::Warn,
                    "setuid root: every user can load the module and make device nodes",
                )
                .advise(&format!(
                    "chmod u-s /{path}, and let nvidia-persistenced make the nodes"
                ));
            }
            Ok(about) => there |= about.is_some(),
        }
    }
    found(
        id,
        Grade::Ok,
        if there { "not setuid" } else { "not installed" },
    )
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
        return found(id, Grade::Unknown, "there are none below /dev")
            .advise("load the driver (modprobe nvidia), or run doctor where the nodes are");
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

/// Whether Slurm keeps jobs to their devices; `None`: it is not configured here.
fn constrained(root: &Root, id: &'static str) -> Result<Option<bool>, Finding> {
    let Some(folder) = SLURM.into_iter().find(|folder| root.exists(folder)) else {
        return Ok(None);
    };
    let file = format!("{folder}/cgroup.conf");
    let text = root.text_if_there(&file);
    let text = text.map_err(|error| unreadable(id, &file, &error))?;
    Ok(Some(constrains(&text.unwrap_or_default())))
}

fn slurm(root: &Root) -> Finding {
    let id = "slurm";
    match constrained(root, id) {
        Err(unreadable) => return unreadable,
        Ok(None) => return found(id, Grade::Ok, "not configured here"),
        Ok(Some(true)) => return found(id, Grade::Ok, "ConstrainDevices=yes"),
        Ok(Some(false)) => {}
    }
    found(
        id,
        Grade::Warn,
        "without ConstrainDevices=yes a job can use GPUs that it was not given",
    )
    .advise("ConstrainDevices=yes in cgroup.conf, and TaskPlugin=task/cgroup")
}

/// The variable by which programs are told their GPUs. `denies`: device rules keep programs off GPUs here; `None`: not known.
fn visible_devices(root: &Root, denies: Option<bool>) -> Finding {
    const HINT: &str = "CUDA_VISIBLE_DEVICES is a hint that every program may override";
    let id = "cuda_visible_devices";
    let told = |grade, text: &str| found(id, grade, format!("{HINT}{text}"));
    if denies == Some(true) {
        return told(
            Grade::Ok,
            "; device rules hold whom the ledger restricts and what `gpuquota-agent exec` starts",
        );
    }
    match constrained(root, id) {
        Err(unreadable) => unreadable,
        Ok(Some(true)) => told(Grade::Ok, "; ConstrainDevices holds jobs"),
        Ok(_) if denies.is_none() => {
            told(Grade::Unknown, "; whether device rules hold programs here is not known")
                .advise("run doctor with --dir, as the agent's user")
        }
        Ok(_) => told(
            Grade::Warn,
            ", and no device rule keeps a program off the GPUs that it was not given",
        )
        .advise(
            "start gpuquota-enforcer.socket and set `most` above \"warn\" in [enforcement], or ConstrainDevices=yes in Slurm",
        ),
    }
}

/// NVIDIA's container runtime gives whatever GPUs a variable of the image or of the user names, where it is not told otherwise.
fn container_env(root: &Root) -> Finding {
    const FILE: &str = "etc/nvidia-container-runtime/config.toml";
    const SETTING: &str = "accept-nvidia-visible-devices-envvar-when-unprivileged";
    let id = "container_env";
    let text = match root.text_if_there(FILE) {
        Ok(Some(text)) => text,
        Ok(None) => {
            return found(
                id,
                Grade::Ok,
                "NVIDIA's container runtime is not configured here",
            );
        }
        Err(error) => return unreadable(id, FILE, &error),
    };
    match text.parse::<toml::Table>() {
        Err(error) => found(id, Grade::Unknown, format!("/{FILE}: {}", error.message()))
            .advise("mend the file"),
        Ok(table) if table.get(SETTING).and_then(toml::Value::as_bool) == Some(false) => {
            found(id, Grade::Ok, format!("{SETTING} is off"))
        }
        Ok(_) => found(
            id,
            Grade::Warn,
            "a container without privileges gets every GPU that its NVIDIA_VISIBLE_DEVICES names",
        )
        .advise(&format!(
            "{SETTING} = false in /{FILE}, and give GPUs by CDI or by mounts"
        )),
    }
}

/// A login by ssh is in no job where PAM does not put it into one.
fn slurm_ssh(root: &Root) -> Finding {
    let id = "slurm_ssh";
    if !SLURM.into_iter().any(|folder| root.exists(folder)) {
        return found(id, Grade::Ok, "Slurm is not configured here");
    }
    let mut all = String::new();
    for file in [
        "sshd",
        "common-account",
        "common-session",
        "password-auth",
        "system-auth",
    ] {
        let path = format!("etc/pam.d/{file}");
        match root.text_if_there(&path) {
            Ok(Some(text)) => all.push_str(&text),
            Ok(None) if file == "sshd" => {
                return found(id, Grade::Ok, "nobody logs in by ssh here");
            }
            Ok(None) => {}
            Err(error) => return unreadable(id, &path, &error),
        }
        all.push('\n');
    }
    let mut lines = all
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.starts_with('#'));
    if lines.any(|line| line.contains("pam_slurm_adopt.so")) {
        return found(id, Grade::Ok, "pam_slurm_adopt puts a login into a job");
    }
    found(
        id,
        Grade::Warn,
        "whoever logs in by ssh runs outside of every job and its limits",
    )
    .advise("pam_slurm_adopt.so in /etc/pam.d/sshd, and no ssh for tenants without a job")
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
