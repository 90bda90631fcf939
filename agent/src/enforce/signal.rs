//! Signals one process, and surely that one: it is held before it is looked at, and what is held is signalled.

use std::fs;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal as Number, pidfd_open, pidfd_send_signal};

use super::config::EnforcerConfig;
use super::group::of_process;
use super::nodes::{is_gpu_node, number_of};
use super::protected::why_spared;
use super::protocol::{Identity, Reply, Signal};
use super::threads::has_open;
use crate::process::procfs::start_time;

/// What an order says of a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) who: &'a Identity,
    pub(super) group: &'a str,
    pub(super) nodes: &'a [String],
}

/// Holds this very process. That keeps nobody else from its number once it has ended: what is looked up by the number was about it only
/// if it still [`lives`] afterwards.
pub(super) fn hold(who: &Identity, boot_id: &str) -> Result<OwnedFd, Reply> {
    if who.boot_id != boot_id {
        return Err(gone("it is of another boot"));
    }
    // The kernel takes 0, -1 and smaller numbers for many processes.
    let number = i32::try_from(who.pid).ok().filter(|pid| *pid > 1);
    let pid = number
        .and_then(Pid::from_raw)
        .ok_or_else(|| refused("no single process has this number"))?;
    let held = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| match error {
        // A task that is just ending is no process to open any more.
        Errno::SRCH | Errno::INVAL => gone("it has ended"),
        other => failed(&format!("pidfd_open: {other}")),
    })?;
    if start_time(who.pid).ok() != Some(who.start_time) {
        return Err(gone("another process has its number by now"));
    }
    Ok(held)
}

/// That it has not ended.
pub(super) fn lives(held: &OwnedFd) -> Result<(), Reply> {
    let mut asked = [PollFd::new(held, PollFlags::IN)];
    match poll(&mut asked, Some(&Timespec::default())) {
        Ok(0) => Ok(()),
        _ => Err(gone("it has ended")),
    }
}

/// The process, held, if all that was said of it is so. `asking` is the process that gives the order.
pub(super) fn checked(
    Target { who, group, nodes }: Target<'_>,
    asking: u32,
    boot_id: &str,
    config: &EnforcerConfig,
) -> Result<OwnedFd, Reply> {
    let held = hold(who, boot_id)?;
    let folder = PathBuf::from(format!("/proc/{}", who.pid));
    if let Some(why) = why_spared(who.pid, &folder, asking, config) {
        return Err(refused(&why));
    }
    let within = |path: &str| {
        path.strip_prefix(group)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    // Below its group a process may move as it likes.
    if group == "/" || !of_process(who.pid).as_deref().is_some_and(within) {
        return Err(gone("it is in another control group by now"));
    }
    if nodes.is_empty() {
        return Err(refused("the order names no device node"));
    }
    if let Some(other) = nodes.iter().find(|node| !is_gpu_node(node)) {
        return Err(refused(&format!("{other} is no node of a GPU")));
    }
    // A node that is no more, as after a new division of the GPU, is open to nobody.
    let numbers: Vec<_> = nodes.iter().flat_map(|node| number_of(node)).collect();
    let open = has_open(&folder, &numbers);
    if !open.ok_or_else(|| failed("what it has open cannot be seen"))? {
        return Err(gone("it has none of these device nodes open"));
    }
    lives(&held)?;
    Ok(held)
}

/// Signals who is held.
pub(super) fn send(held: &OwnedFd, signal: Signal) -> Reply {
    let number = match signal {
        Signal::Term => Number::TERM,
        Signal::Kill => Number::KILL,
    };
    match pidfd_send_signal(held, number) {
        Ok(()) => Reply::Done,
        Err(Errno::SRCH) => gone("it has ended"),
        Err(other) => failed(&format!("pidfd_send_signal: {other}")),
    }
}

/// Whether this kernel and this process can signal so at all; the text says why not.
pub(super) fn can() -> Result<(), String> {
    let own = i32::try_from(std::process::id())
        .ok()
        .and_then(Pid::from_raw);
    let own = own.ok_or("this process has no number")?;
    let held =
        pidfd_open(own, PidfdFlags::empty()).map_err(|error| format!("pidfd_open: {error}"))?;
    drop(held);
    let status = fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    match lacked(&status) {
        Some(lacked) if lacked.is_empty() => Ok(()),
        Some(lacked) => Err(format!("it needs {}", lacked.join(" and "))),
        None => Err("the kernel does not tell its capabilities".to_owned()),
    }
}

/// To signal processes of others, and to see what they run and have open: names and bits of linux/capability.h.
const NEEDED: [(&str, u32); 3] = [
    ("CAP_KILL", 5),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_DAC_OVERRIDE", 1),
];

// Those that this process does not have, by its `/proc/self/status`.
fn lacked(status: &str) -> Option<Vec<&'static str>> {
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    let held = u64::from_str_radix(bits.trim(), 16).ok()?;
    let lacked = NEEDED.into_iter().filter(|(_, bit)| held >> bit & 1 == 0);
    Some(lacked.map(|(name, _)| name).collect())
}

fn gone(detail: &str) -> Reply {
    Reply::Gone {
        detail: detail.to_owned(),
    }
}

fn refused(detail: &str) -> Reply {
    Reply::Refused {
        detail: detail.to_owned(),
    }
}

fn failed(detail: &str) -> Reply {
    Reply::Failed {
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_77_what_it_lacks_is_named() {
        let of = |bits: &str| lacked(&format!("Name:\tx\nCapEff:\t{bits}\nSeccomp:\t0\n"));
        assert_eq!(of("00000000fffffffb"), Some(vec![]));
        assert_eq!(of("0000000000080020"), Some(vec!["CAP_DAC_OVERRIDE"]));
        assert_eq!(
            of("0000000000000002"),
            Some(vec!["CAP_KILL", "CAP_SYS_PTRACE"])
        );
        assert_eq!(of("odd"), None);
        assert_eq!(lacked("Name:\tx\n"), None);
    }
}
