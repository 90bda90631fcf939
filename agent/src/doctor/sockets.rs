//! Sockets through which whoever may write to them starts containers with any device: who may.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use super::accounts::Accounts;
use super::bypass::{found, listing};
use super::files::Root;
use super::{Finding, Grade};

const SOCKETS: [&str; 5] = [
    "run/docker.sock",
    "run/podman/podman.sock",
    "run/containerd/containerd.sock",
    "run/k3s/containerd/containerd.sock",
    "run/crio/crio.sock",
];

pub(super) fn examine(root: &Root, accounts: &Accounts) -> Vec<Finding> {
    vec![local(root, accounts), remote(root)]
}

fn local(root: &Root, accounts: &Accounts) -> Finding {
    let id = "container_sockets";
    let (mut open, mut dark, mut closed) = (Vec::new(), Vec::new(), Vec::new());
    for path in SOCKETS {
        match root.about(path) {
            Ok(None) => {}
            Err(error) => dark.push(format!("/{path}: {error}")),
            Ok(Some(about)) if !about.file_type().is_socket() && root.is_running() => {}
            Ok(Some(about)) => {
                let who = who_may(root, accounts, path, &about);
                if who.is_empty() {
                    closed.push(path);
                } else {
                    open.push(format!("/{path}: {}", who.join(", ")));
                }
            }
        }
    }
    if !open.is_empty() {
        let text = format!(
            "may start privileged containers with any GPU: {}",
            open.join("; ")
        );
        return found(id, Grade::Warn, text)
            .advise("leave the socket to root (chmod, chgrp, setfacl -b), keep tenants out of its group, or give them rootless containers");
    }
    if !dark.is_empty() {
        return found(id, Grade::Unknown, dark.join("; ")).advise("run doctor as root");
    }
    if closed.is_empty() {
        return found(
            id,
            Grade::Ok,
            "no container runtime listens at its usual place",
        );
    }
    found(
        id,
        Grade::Ok,
        format!("only root may open {}", listing(&closed)),
    )
}

/// Who besides root may write to it, for people.
fn who_may(root: &Root, accounts: &Accounts, path: &str, about: &std::fs::Metadata) -> Vec<String> {
    let mut who = Vec::new();
    let (mode, uid, gid) = (about.mode(), about.uid(), about.gid());
    let (root_uid, root_gid) = root.owner();
    if mode & 0o200 != 0 && uid != root_uid {
        who.push(
            accounts
                .user_name(uid)
                .map_or_else(|| format!("uid {uid}"), str::to_owned),
        );
    }
    let listed = rustix::fs::getxattr(root.at(path), "system.posix_acl_access", &mut [0_u8; 0]);
    if listed.is_ok_and(|bytes| bytes > 0) {
        who.push("whom its access list names (getfacl)".to_owned());
    }
    if mode & 0o020 != 0 && gid != root_gid && reachable(root, path, Some(gid)) {
        let name = accounts.group_name(gid);
        let members = name.map(|name| accounts.members(name)).unwrap_or_default();
        let shown = name.map_or_else(|| format!("gid {gid}"), str::to_owned);
        let names: Vec<&str> = members.iter().map(String::as_str).collect();
        who.push(match names[..] {
            [] => format!("a group ({shown}), which has nobody in it by what is known here"),
            _ => format!("a group ({shown}): {}", listing(&names)),
        });
    }
    if mode & 0o002 != 0 && reachable(root, path, None) {
        who.push("everybody".to_owned());
    }
    who
}

/// Whether the folders above it let others, or this group, pass.
fn reachable(root: &Root, path: &str, gid: Option<u32>) -> bool {
    let above = path.match_indices('/').map(|(at, _)| &path[..at]);
    above.into_iter().all(|folder| {
        let Ok(Some(about)) = root.about(folder) else {
            return true;
        };
        about.mode() & 0o001 != 0 || (Some(about.gid()) == gid && about.mode() & 0o010 != 0)
    })
}

fn remote(root: &Root) -> Finding {
    let id = "docker_tcp";
    match root.text_if_there("etc/docker/daemon.json") {
        Ok(None) => found(id, Grade::Ok, "Docker has no daemon.json"),
        Err(error) => found(
            id,
            Grade::Unknown,
            format!("/etc/docker/daemon.json: {error}"),
        )
        .advise("run doctor as root"),
        Ok(Some(text)) => match serde_json::from_str::<serde_json::Value>(&text) {
            Err(error) => found(
                id,
                Grade::Unknown,
                format!("/etc/docker/daemon.json: {error}"),
            )
            .advise("mend the file"),
            Ok(said) => {
                let hosts = said["hosts"].as_array().into_iter().flatten();
                let tcp = hosts
                    .filter_map(|host| host.as_str())
                    .any(|host| host.starts_with("tcp:"));
                if tcp && said["tlsverify"] != true {
                    return found(id, Grade::Warn, "Docker listens on TCP without asking for a certificate: whoever reaches it is root")
                        .advise("remove tcp:// from hosts in /etc/docker/daemon.json, or set tlsverify");
                }
                found(
                    id,
                    Grade::Ok,
                    "daemon.json opens no TCP socket to everybody",
                )
            }
        },
    }
}
