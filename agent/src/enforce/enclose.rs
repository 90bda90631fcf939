//! Encloses a process that waits to become a tenant's command: where it is when it is alone there, or from a login into a scope of its user's
//! slice, and there every GPU but those of its lease is denied. From anywhere else it is not moved: a service's limits, and what its unit
//! denies, would stay behind.
//!
//! Only a process of this very program can be enclosed. So whoever speaks for the network half moves nobody else's processes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::denials::{Denial, Denials, may_touch};
use super::denylist::{Number, enclosure};
use super::group::{hierarchy, of_process};
use super::nodes::{is_gpu_node, number_of};
use super::protocol::{Identity, Reply};
use super::records::{Kind, Node};
use super::scope_start::start_scope;
use super::signal::{hold, lives};
use crate::clock::boottime_ms;
use crate::leased::{SCOPE_PREFIX, path};
use crate::process::cgroup::{Membership, membership};
use crate::process::group::pids_below;

/// systemd moves a process within this, milliseconds.
const MOVE_MS: u64 = 5_000;
const LOOK: Duration = Duration::from_millis(5);
/// Drivers of GPUs and of MIG's capabilities, as /proc/devices names them.
const DRIVERS: [&str; 3] = ["nvidia", "nvidia-frontend", "nvidia-caps"];
/// Those of them of which everybody needs two minors: nvidiactl and nvidia-modeset. Of the capabilities' driver every minor is an instance's.
const SHARING: [&str; 2] = ["nvidia", "nvidia-frontend"];
const SHARED: [u32; 2] = [255, 254];

/// What an order says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) who: &'a Identity,
    pub(super) lease: u64,
    pub(super) allow: &'a [String],
}

/// Encloses it if all that was said of it is so. `asking` is the process that gives the order.
pub(super) fn enclose(wanted: Wanted<'_>, denials: &Denials, asking: u32, boot_id: &str) -> Reply {
    match try_enclose(wanted, denials, asking, boot_id) {
        Ok(group) => Reply::Enclosed { group },
        Err(reply) => reply,
    }
}

fn try_enclose(
    Wanted { who, lease, allow }: Wanted<'_>,
    denials: &Denials,
    asking: u32,
    boot_id: &str,
) -> Result<String, Reply> {
    let refused = |why: &str| Reply::Refused {
        detail: why.to_owned(),
    };
    if allow.is_empty() || !allow.iter().all(|node| is_gpu_node(node)) {
        return Err(refused(
            "the order must name device nodes of GPUs, and nothing else",
        ));
    }
    let held = hold(who, boot_id)?;
    let folder = PathBuf::from(format!("/proc/{}", who.pid));
    if !waits_for_us(&folder) {
        return Err(refused(
            "it is no process of gpuquota-agent on this host that waits to become a command",
        ));
    }
    // Without one of its devices the command would start and not work.
    if let Some(missing) = allow.iter().find(|node| number_of(node).is_err()) {
        return Err(Reply::Failed {
            detail: format!("{missing} of the lease is not there (nvidia-modprobe makes it)"),
        });
    }
    let group = of_process(who.pid).ok_or_else(|| Reply::Gone {
        detail: "the process that asked has ended".to_owned(),
    })?;
    may_touch(&group, asking)?;
    let hierarchy = hierarchy().map_err(|detail| Reply::Impossible { detail })?;
    let place = place(&group, || procs(&hierarchy, &group)).map_err(|why| refused(&why))?;
    lives(&held)?;
    let group = match place {
        Place::Stays => group,
        Place::Scope { slice } => {
            let scope = format!("{SCOPE_PREFIX}{lease}.scope");
            start_scope(&scope, &slice, who.pid).map_err(|detail| Reply::Failed { detail })?;
            let group = moved(who.pid, &scope).ok_or_else(|| Reply::Failed {
                detail: format!("systemd made {scope} and did not put the process there"),
            })?;
            // systemd was told a number; whose it is by now counts.
            lives(&held)?;
            group
        }
    };
    let present = present(Path::new("/dev"));
    let drivers = fs::read_to_string("/proc/devices").unwrap_or_default();
    let (all, shared) = (majors(&drivers, &DRIVERS), majors(&drivers, &SHARING));
    let denial =
        denial(allow, &present, &all, &shared).ok_or_else(|| refused("too many device nodes"))?;
    denials.put_on(&group, denial)?;
    Ok(group)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// In its unit, where nobody else is: systemd goes on to look after it.
    Stays,
    /// In a scope of this slice.
    Scope { slice: String },
}

// Where it is to run. `procs`: how many processes there are in its group and below it.
fn place(group: &str, procs: impl FnOnce() -> usize) -> Result<Place, String> {
    let Membership { slices, unit } = membership(format!("0::{group}\n").as_bytes());
    let unit = unit.as_deref().unwrap_or("");
    if unit.starts_with(SCOPE_PREFIX) {
        return Err(format!("it runs under a lease already, in {unit}"));
    }
    let whole = path(&Membership {
        slices: slices.clone(),
        unit: Some(unit.to_owned()),
    });
    let own = [".service", ".scope"]
        .iter()
        .any(|kind| unit.ends_with(kind));
    if own && !is_users_manager(unit) && whole.as_deref() == Some(group) && procs() == 1 {
        return Ok(Place::Stays);
    }
    match slices.as_slice() {
        [all, slice] if all == "user.slice" && is_login(slice, unit) => Ok(Place::Scope {
            slice: slice.clone(),
        }),
        _ => Err(format!(
            "it is not alone in {group}, and out of a unit that is no login it is not moved, for the unit's limits would stay behind: \
             start it as the main process of a unit of its own (ExecStart=gpuquota-agent exec …; behind a shell: exec gpuquota-agent exec …)"
        )),
    }
}

fn is_users_manager(unit: &str) -> bool {
    unit.starts_with("user@")
}

// What logind makes for those who log in: its limits are the slice's, in which the scope stays.
fn is_login(slice: &str, unit: &str) -> bool {
    let uid = slice
        .strip_prefix("user-")
        .and_then(|rest| rest.strip_suffix(".slice"));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    uid.is_some_and(|uid| {
        number(uid)
            && (unit == format!("user@{uid}.service")
                || (unit.starts_with("session-") && unit.ends_with(".scope")))
    })
}

fn procs(hierarchy: &Path, group: &str) -> usize {
    let folder = hierarchy.join(group.trim_start_matches('/'));
    pids_below(&folder).map_or(usize::MAX, |pids| pids.len())
}

// Its group, once that is the scope.
fn moved(pid: u32, scope: &str) -> Option<String> {
    let end = boottime_ms().saturating_add(MOVE_MS);
    loop {
        let group = of_process(pid)?;
        if group.rsplit('/').next() == Some(scope) {
            return Some(group);
        }
        if boottime_ms() >= end {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

// Whether its executable is this program's, as it is now or as it was when this began: an upgrade may lie between the two. In another pid
// namespace it would be a container's.
fn waits_for_us(folder: &Path) -> bool {
    let Ok(its) = fs::metadata(folder.join("exe")) else {
        return false;
    };
    let same = |other: &Path| {
        fs::metadata(other).is_ok_and(|it| (it.dev(), it.ino()) == (its.dev(), its.ino()))
    };
    let installed = std::env::current_exe().ok();
    let installed = installed
        .as_deref()
        .and_then(Path::to_str)
        .map(|path| PathBuf::from(path.strip_suffix(" (deleted)").unwrap_or(path)));
    let ours = same(Path::new("/proc/self/exe")) || installed.is_some_and(|it| same(&it));
    let namespace = |of: &Path| fs::read_link(of.join("ns/pid")).ok();
    let first = namespace(Path::new("/proc/1"));
    let outside = first.is_some() && namespace(folder) == first;
    ours && its.uid() == 0 && its.mode() & 0o022 == 0 && outside
}

// All nodes of GPUs and capabilities that are there.
fn present(dev: &Path) -> Vec<(String, Number)> {
    let names = |folder: PathBuf| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.path().into_os_string().into_string().ok())
    };
    let nodes = names(dev.to_owned()).chain(names(dev.join("nvidia-caps")));
    nodes
        .filter_map(|node| Some((node.clone(), number_of(&node).ok()?)))
        .collect()
}

// Majors of the drivers, of the character devices in /proc/devices (proc_devices(5)).
fn majors(devices: &str, drivers: &[&str]) -> BTreeSet<u32> {
    let characters = devices
        .lines()
        .take_while(|line| !line.starts_with("Block"));
    characters
        .filter_map(|line| line.trim().split_once(' '))
        .filter(|(_, name)| drivers.contains(name))
        .filter_map(|(major, _)| major.parse().ok())
        .collect()
}

fn denial(
    allow: &[String],
    present: &[(String, Number)],
    majors: &BTreeSet<u32>,
    sharing: &BTreeSet<u32>,
) -> Option<Denial> {
    let allowed_node = |node: &&(String, Number)| allow.contains(&node.0);
    let mut allowed: BTreeSet<Number> = present
        .iter()
        .filter(allowed_node)
        .map(|(_, number)| *number)
        .collect();
    let denied = present.iter().filter(|node| !allowed_node(node));
    // One device may have two nodes.
    let denied: Vec<_> = denied
        .filter(|(_, number)| !allowed.contains(number))
        .collect();
    let listed = denied
        .iter()
        .map(|(_, number)| *number)
        .filter(|number| !majors.contains(&number.major))
        .collect();
    for major in sharing {
        allowed.extend(SHARED.map(|minor| Number {
            major: *major,
            minor,
        }));
    }
    Some(Denial {
        kind: Kind::Enclosure,
        nodes: denied
            .iter()
            .map(|(path, number)| Node::new(path, *number))
            .collect(),
        code: enclosure(&allowed, &listed, majors)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_stays_in_a_unit_of_its_own_goes_out_of_a_login_and_leaves_no_limits_behind() {
        let of = |group: &str, procs: usize| place(group, || procs);
        let scope = || {
            Ok(Place::Scope {
                slice: "user-7.slice".to_owned(),
            })
        };
        for own in [
            "/tenant.slice/tenant-a.slice/train.service",
            "/tenant.slice/tenant-a.slice/run-r1.scope",
            "/user.slice/user-7.slice/session-3.scope",
        ] {
            assert_eq!(of(own, 1), Ok(Place::Stays), "{own}");
        }
        for login in [
            "/user.slice/user-7.slice/session-3.scope",
            "/user.slice/user-7.slice/session-c1.scope/below",
            "/user.slice/user-7.slice/user@7.service",
            "/user.slice/user-7.slice/user@7.service/app.slice/x.service",
        ] {
            assert_eq!(of(login, 2), scope(), "{login}");
        }
        assert_eq!(
            of(
                "/user.slice/user-7.slice/user@7.service/app.slice/x.service",
                1
            ),
            scope()
        );
        for limited in [
            "/tenant.slice/tenant-a.slice/train.service",
            "/system.slice/hub.service",
            "/system.slice/hub.service/user-7",
            "/tenant.slice/tenant-a.slice/run-r1.scope",
            "/user.slice/user-7.slice/user@8.service",
            "/user.slice/user-7.slice/hub.service",
            "/user.slice/session-3.scope",
            "/user.slice",
            "/",
        ] {
            assert!(of(limited, 2).is_err(), "{limited}");
        }
        assert!(of("/system.slice/hub.service/user-7", 1).is_err());
        for nested in ["", "/below"] {
            let group = format!("/user.slice/user-7.slice/gpuquota-lease-3.scope{nested}");
            assert!(of(&group, 1).is_err(), "{group}");
        }
    }

    #[test]
    fn every_gpu_that_is_there_or_comes_later_is_denied_but_those_of_the_lease() {
        let number = |major, minor| Number { major, minor };
        let node = |path: &str, of: Number| (path.to_owned(), of);
        let devices = "Character devices:\n  1 mem\n195 nvidia\n195 nvidiactl\n234 nvidia-caps\n235 nvidia-uvm\n236 nvidia-caps-imex-channels\n\nBlock devices:\n195 nvidia\n  8 sd\n";
        let sharing = majors(devices, &SHARING);
        let majors = majors(devices, &DRIVERS);
        assert_eq!((&majors, &sharing), (&[195, 234].into(), &[195].into()));
        let present = [
            node("/dev/nvidia0", number(195, 0)),
            node("/dev/nvidia1", number(195, 1)),
            node("/dev/nvidia2", number(10, 229)),
            node("/dev/nvidia-caps/nvidia-cap3", number(234, 3)),
            node("/dev/nvidia-caps/nvidia-cap4", number(234, 4)),
        ];
        let allow = ["/dev/nvidia1", "/dev/nvidia-caps/nvidia-cap4"].map(ToOwned::to_owned);
        let denial = denial(&allow, &present, &majors, &sharing).unwrap();
        let paths: Vec<_> = denial.nodes.iter().map(|node| node.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/dev/nvidia0",
                "/dev/nvidia2",
                "/dev/nvidia-caps/nvidia-cap3"
            ]
        );
        let shared = |major| SHARED.map(|minor| number(major, minor));
        let allowed: BTreeSet<_> = [number(195, 1), number(234, 4)]
            .into_iter()
            .chain(shared(195))
            .collect();
        let expected = enclosure(&allowed, &BTreeSet::from([number(10, 229)]), &majors);
        assert_eq!(Some(denial.code), expected);
    }

    #[test]
    fn no_process_of_another_program_or_of_a_file_that_others_write_is_enclosed() {
        // This test's own file is its user's to write, or not root's.
        let own = fs::metadata("/proc/self/exe").unwrap();
        let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/pid")).ok();
        let same = namespace("1").is_some() && namespace("1") == namespace("self");
        let trusted = own.uid() == 0 && own.mode() & 0o022 == 0 && same;
        assert_eq!(waits_for_us(Path::new("/proc/self")), trusted);
        let mut other = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let folder = PathBuf::from(format!("/proc/{}", other.id()));
        assert!(!waits_for_us(&folder));
        other.kill().unwrap();
        let _ = other.wait();
        assert!(!waits_for_us(Path::new("/proc/none")));
    }
}
