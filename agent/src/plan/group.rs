//! Which control group stands for whoever runs in a process, so that denying it a device denies it to all that they start
//! there. Pure.

use crate::process::cgroup;
use crate::process::workload;

/// What can be done about the group of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grouped {
    /// This one is theirs, as `/proc/PID/cgroup` writes it.
    Theirs(String),
    /// None that the agent may touch, and why.
    Nobodys(&'static str),
}

/// From the text of `/proc/PID/cgroup` (cgroups(7)): a user's slice, else the slice that somebody made for them, else the
/// unit. What a runtime or a job manager owns is left to it.
#[must_use]
pub fn group_of(text: &[u8]) -> Grouped {
    let told = workload::workload(text);
    if told.contained || told.job.is_some() {
        return Grouped::Nobodys("a container runtime or a job manager owns its control group");
    }
    let mut lines = text.split(|byte| *byte == b'\n');
    let path = lines.find_map(|line| line.strip_prefix(b"0::/"));
    let Some(path) = path.and_then(|path| std::str::from_utf8(path).ok()) else {
        return Grouped::Nobodys("it is in no control group of version 2");
    };
    let membership = cgroup::membership(text);
    let users = |slice: &String| user_of_slice(slice).is_some();
    let everybodys = ["system.slice", "user.slice", "machine.slice"];
    let slices = &membership.slices;
    let depth = match slices.iter().position(users) {
        Some(at) => at + 1,
        None => match slices.last() {
            Some(last) if !everybodys.contains(&last.as_str()) => slices.len(),
            _ if membership.unit.is_some() => slices.len() + 1,
            _ => return Grouped::Nobodys("it is in no unit of systemd's"),
        },
    };
    let parts: Vec<&str> = path.split('/').take(depth).collect();
    Grouped::Theirs(format!("/{}", parts.join("/")))
}

/// The user whose slice this is by its name, as logind makes them (`user@.service`(5)).
#[must_use]
pub fn user_of_slice(name: &str) -> Option<u32> {
    let uid = name.strip_prefix("user-")?.strip_suffix(".slice")?;
    let digits = uid.bytes().all(|b| b.is_ascii_digit());
    uid.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn theirs(path: &str) -> Grouped {
        Grouped::Theirs(path.to_owned())
    }

    #[test]
    fn a_group_stands_for_one_user_slice_or_unit_and_never_for_everybody() {
        let of = |path: &str| group_of(format!("0::{path}\n").as_bytes());
        let user = "/user.slice/user-1000.slice";
        assert_eq!(of(&format!("{user}/session-4.scope")), theirs(user));
        assert_eq!(
            of(&format!("{user}/user@1000.service/app.slice/x.scope")),
            theirs(user)
        );
        let slice = "/tenant.slice/tenant-a.slice";
        assert_eq!(of(&format!("{slice}/job.service/below")), theirs(slice));
        assert_eq!(
            of("/system.slice/train.service/x"),
            theirs("/system.slice/train.service")
        );
        for nobodys in ["/", "/system.slice", "/user.slice", "/made/by/hand"] {
            assert!(matches!(of(nobodys), Grouped::Nobodys(_)), "{nobodys}");
        }
        let id = "0123456789abcdef".repeat(4);
        assert!(matches!(
            of(&format!("/system.slice/docker-{id}.scope")),
            Grouped::Nobodys(_)
        ));
        assert!(matches!(
            of("/system.slice/slurmstepd.scope/job_7/step_0"),
            Grouped::Nobodys(_)
        ));
        assert!(matches!(
            group_of(b"4:devices:/user.slice\n"),
            Grouped::Nobodys(_)
        ));
    }
}
