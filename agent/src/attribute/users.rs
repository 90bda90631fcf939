//! Names of users and groups, and their ids. Reading them may ask a directory service that does not answer, so each question
//! has a deadline, and none is put on a look or on a thread of the runtime.

use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::clock::monotonic_ms;

/// A question to the host's databases that takes longer is ended.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);
/// What is read of an answer, bytes; a group may have thousands of members.
const ANSWER_LIMIT: usize = 1 << 20;

/// The uid of a user.
#[must_use]
pub(super) fn uid_of(name: &str) -> Option<u32> {
    local_uid_of(name).or_else(|| getent("passwd", name, |text| id_of(text, name)))
}

/// The gid of a group.
#[must_use]
pub(super) fn gid_of(name: &str) -> Option<u32> {
    local_gid_of(name).or_else(|| getent("group", name, |text| id_of(text, name)))
}

/// The uid of a user of this host's own file, without asking anybody.
#[must_use]
pub(super) fn local_uid_of(name: &str) -> Option<u32> {
    id_of(&fs::read_to_string(PASSWD).ok()?, name)
}

/// The gid of a group of this host's own file, without asking anybody.
#[must_use]
pub(super) fn local_gid_of(name: &str) -> Option<u32> {
    id_of(&fs::read_to_string(GROUP).ok()?, name)
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// The name of a user.
#[must_use]
pub(super) fn name_of(uid: u32) -> Option<String> {
    let of_uid = |text: &str| {
        let mut lines = text.lines().map(|line| line.split(':'));
        lines.find_map(|mut fields| {
            let name = fields.next().filter(|name| !name.is_empty())?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
    };
    let own = fs::read_to_string(PASSWD);
    let known = own.ok().and_then(|text| of_uid(&text));
    known.or_else(|| getent("passwd", &uid.to_string(), of_uid))
}

/// From wherever the host keeps them (`getent(1)`).
fn getent<T>(database: &str, key: &str, find: impl Fn(&str) -> Option<T>) -> Option<T> {
    let mut command = Command::new("getent");
    command.args([database, "--", key]);
    find(&String::from_utf8(output_within(command, DEADLINE)?).ok()?)
}

/// What a command prints; `None` when it fails, prints too much, or has not ended in time: then it is killed, and what it
/// started with it.
fn output_within(mut command: Command, deadline: Duration) -> Option<Vec<u8>> {
    let deadline = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    let end_ms = monotonic_ms().saturating_add(deadline);
    let command = command.stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = command
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .ok()?;
    let output = child.stdout.take().and_then(|out| read_until(out, end_ms));
    if output.is_none() || !ends_until(&child, end_ms) {
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    }
    let succeeded = child.wait().is_ok_and(|status| status.success());
    output.filter(|_| succeeded)
}

fn read_until(mut out: ChildStdout, end_ms: u64) -> Option<Vec<u8>> {
    let mut output = Vec::new();
    let mut part = [0; 4096];
    loop {
        if !ready_until(PollFd::new(&out, PollFlags::IN), end_ms) {
            return None;
        }
        let length = out.read(&mut part).ok()?;
        if length == 0 {
            return Some(output);
        }
        output.extend_from_slice(part.get(..length)?);
        if output.len() > ANSWER_LIMIT {
            return None;
        }
    }
}

fn ends_until(child: &Child, end_ms: u64) -> bool {
    let handle = pidfd_open(Pid::from_child(child), PidfdFlags::empty());
    handle.is_ok_and(|handle| ready_until(PollFd::new(&handle, PollFlags::IN), end_ms))
}

fn ready_until(fd: PollFd<'_>, end_ms: u64) -> bool {
    let mut fds = [fd];
    loop {
        let left = Duration::from_millis(end_ms.saturating_sub(monotonic_ms()));
        let Ok(left) = Timespec::try_from(left) else {
            return false;
        };
        match poll(&mut fds, Some(&left)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// `name:password:id:…` (passwd(5), group(5)).
fn id_of(text: &str, name: &str) -> Option<u32> {
    let mut lines = text.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let is_it = !name.is_empty() && fields.next()? == name;
        is_it.then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory service that does not answer keeps nobody waiting, not even by what its program left behind.
    #[test]
    fn a_question_ends_with_its_deadline() {
        let ask = |script: &str, ms| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            let begun = monotonic_ms();
            let output = output_within(command, Duration::from_millis(ms));
            (output, monotonic_ms() - begun < 20_000)
        };
        for hangs in ["sleep 60", "sleep 60 & exit 0", "exec 1>&-; sleep 60"] {
            assert_eq!(ask(hangs, 200), (None, true), "{hangs}");
        }
        assert_eq!(ask("yes", 20_000), (None, true), "an answer without end");
        assert_eq!(ask("echo x; exit 2", 20_000), (None, true));
        assert_eq!(ask("echo x", 20_000), (Some(b"x\n".to_vec()), true));
    }

    #[test]
    fn users_are_found_by_their_whole_name() {
        let text = "root:x:0:0:root:/root:/bin/sh\n\nbroken\nalice:x:1000:1000::/home/alice:/bin/sh\nbob:x:no:1::/:\n";
        assert_eq!(id_of(text, "alice"), Some(1000));
        assert_eq!(id_of(text, "root"), Some(0));
        for name in ["ali", "x", "bob", "", "broken", "nobody-here"] {
            assert_eq!(id_of(text, name), None, "{name}");
        }
        assert_eq!(uid_of("root"), Some(0));
        assert_eq!(uid_of("no-such-user-gpuquota"), None);
        assert_eq!(
            (gid_of("root"), gid_of("no-such-group-gpuquota")),
            (Some(0), None)
        );
        assert_eq!(
            (name_of(0).as_deref(), name_of(u32::MAX - 7)),
            (Some("root"), None)
        );
    }
}
