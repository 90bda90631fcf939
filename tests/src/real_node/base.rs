//! The root file system that all real nodes begin with, made once and kept in the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::program::{output, program};
use crate::skip::root;

/// What a node needs, by name; installed by `tests/run`.
const PROGRAMS: [&str; 6] = [
    "debootstrap",
    "systemd-nspawn",
    "ip",
    "unshare",
    "nsenter",
    "flock",
];
const PACKAGES: &str = "systemd,systemd-sysv,dbus,procps,libgcc-s1";
const FOLDER: &str = "base-stable-1";

// Only one makes it, also among several test programs; it counts only once it is whole.
const MAKE: &str = r#"
set -eu
mkdir -p "$1"
exec 9>"$1/lock"
flock 9
[ -d "$1/$2" ] && exit 0
rm -rf --one-file-system "$1/partial"
debootstrap --variant=minbase --include="$3" stable "$1/partial" >"$1/debootstrap.log" 2>&1 || {
    tail -n 5 "$1/debootstrap.log" >&2
    exit 1
}
umount -R "$1/partial/proc" "$1/partial/sys" 2>/dev/null || true
rm -rf "$1/partial/var/cache/apt/archives" "$1/partial/var/lib/apt/lists"
ln -sf /lib/systemd/system/multi-user.target "$1/partial/etc/systemd/system/default.target"
mv "$1/partial" "$1/$2"
"#;

/// The folder of nodes and the base in it.
///
/// # Errors
/// With the reason why this machine cannot have such nodes.
pub(super) fn base() -> Result<&'static (PathBuf, PathBuf), String> {
    static BASE: OnceLock<Result<(PathBuf, PathBuf), String>> = OnceLock::new();
    BASE.get_or_init(make).as_ref().map_err(Clone::clone)
}

fn make() -> Result<(PathBuf, PathBuf), String> {
    if !root() {
        return Err("to boot systemd in a container needs root".to_owned());
    }
    for name in PROGRAMS {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&paths).any(|path| path.join(name).exists()) {
            return Err(format!("{name} is not installed; tests/run does it"));
        }
    }
    let mounts = fs::read_to_string("/proc/mounts").map_err(|error| error.to_string())?;
    if !mounts.lines().any(|line| line.contains(" cgroup2 rw")) {
        return Err("no cgroup of version 2 is mounted for writing".to_owned());
    }
    let server = program("gpuquota-server");
    let target = server.ancestors().nth(2).ok_or("no target folder")?;
    let nodes = target.join("nodes");
    let mut make = Command::new("sh");
    make.args(["-c", MAKE, "sh"]).arg(&nodes);
    let made = output(make.args([FOLDER, PACKAGES]));
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr).into_owned();
        return Err(format!("debootstrap fails: {}", said.trim()));
    }
    let base = nodes.join(FOLDER);
    Ok((nodes, base))
}

/// An empty folder for one node.
pub(super) fn own_folder(nodes: &Path) -> PathBuf {
    let folder = tempfile::Builder::new().prefix("node-").tempdir_in(nodes);
    folder.unwrap().keep()
}
