//! Reading `/proc/PID` (proc(5)): start time, user ids, cgroup, executable.
//!
//! The folder is opened once and everything read through it: when the process ends and its pid goes to another one, reading
//! fails instead of telling of the other.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, open, openat, readlinkat};
use rustix::io::{Errno, read};
use rustix::process::{Pid, PidfdFlags, pidfd_open, test_kill_process};

/// Where processes are.
pub const PROC: &str = "/proc";

/// Longest text that is read of one file, bytes; a cgroup path is at most 4,096.
const TEXT_LIMIT: u64 = 64 * 1024;

/// Why the kernel tells nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// There is no such process any more, or only its zombie.
    Gone,
    /// We may not know.
    Denied,
}

/// Whether this program and the driver mean the same by a pid: it runs in the first pid namespace, whose inode number is
/// fixed (`PROC_PID_INIT_INO`), and `/proc` shows it there (one of another namespace does not show it at all). `false` also
/// when the kernel does not tell.
#[must_use]
pub fn pids_are_the_hosts() -> bool {
    let namespace = std::fs::read_link(format!("{PROC}/self/ns/pid"));
    namespace.is_ok_and(|namespace| namespace == Path::new("pid:[4026531836]"))
}

/// Field 22 of `/proc/PID/stat`, for a process of which nothing else is needed: cheaper than its folder.
///
/// # Errors
/// As [`ProcessFolder::start_time`].
pub fn start_time(pid: u32) -> Result<u64, Silence> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let stat = open(format!("{PROC}/{pid}/stat"), flags, Mode::empty())
        .map_err(|error| silence(pid, error))?;
    start_time_in(&stat, pid)
}

// One read: the beginning is all that is needed, and procfs gives it whole.
fn start_time_in(stat: &OwnedFd, pid: u32) -> Result<u64, Silence> {
    let mut text = [0; 1024];
    let length = read(stat, &mut text).map_err(|error| silence(pid, error))?;
    let stat = text
        .get(..length)
        .and_then(parse_stat)
        .ok_or(Silence::Denied)?;
    if stat.dead {
        Err(Silence::Gone)
    } else {
        Ok(stat.start_time)
    }
}

/// A process that is held by its pidfd, so that asking whether it still runs is one short call, however many threads it has.
#[derive(Debug)]
pub struct Held {
    pidfd: OwnedFd,
}

impl Held {
    /// `None` where the kernel gives no pidfd.
    #[must_use]
    pub fn hold(pid: u32) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        Some(Self { pidfd })
    }

    /// Whether any thread of it runs (pidfd_open(2): the descriptor is readable once none does).
    #[must_use]
    pub fn runs(&self) -> bool {
        let mut asked = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut asked, Some(&Timespec::default())) == Ok(0)
    }
}

/// User ids of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uids {
    /// Who started it.
    pub real: u32,
    /// With whose rights it runs.
    pub effective: u32,
}

/// User and group ids of a process. Its supplementary groups are left out: they say what it may do, not whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// User ids.
    pub uids: Uids,
    /// Real group id.
    pub gid: u32,
}

/// A process whose folder in `/proc` is open.
#[derive(Debug)]
pub struct ProcessFolder {
    pid: u32,
    folder: OwnedFd,
}

impl ProcessFolder {
    /// Opens `/proc/PID`.
    ///
    /// # Errors
    /// When there is no such process, or it is hidden (`hidepid`).
    pub fn open(pid: u32) -> Result<Self, Silence> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        match open(format!("{PROC}/{pid}"), flags, Mode::empty()) {
            Ok(folder) => Ok(Self { pid, folder }),
            Err(error) => Err(silence(pid, error)),
        }
    }

    /// Field 22 of `stat`: clock ticks from boot to the start of the process.
    ///
    /// # Errors
    /// `Gone` for a zombie, too: what it held is being given back.
    pub fn start_time(&self) -> Result<u64, Silence> {
        start_time_in(&self.open_file("stat")?, self.pid)
    }

    /// The lines `Uid` and `Gid` of `status`.
    ///
    /// # Errors
    /// When the process is gone or hidden.
    pub fn ids(&self) -> Result<Ids, Silence> {
        parse_ids(&self.read("status")?).ok_or(Silence::Denied)
    }

    /// `loginuid`: who logged in and started all this, whatever user it runs as now. `None` when nobody did, or when the
    /// kernel keeps no audit records.
    #[must_use]
    pub fn login_uid(&self) -> Option<u32> {
        parse_login_uid(&self.read("loginuid").ok()?)
    }

    /// Whether it lives in a user namespace of its own, where its ids are chosen within what was lent to its maker. A kernel
    /// without such has no `uid_map`.
    #[must_use]
    pub fn in_own_user_namespace(&self) -> bool {
        match self.read("uid_map") {
            Ok(map) => !maps_all(&map),
            Err(Silence::Denied) => true,
            Err(Silence::Gone) => false,
        }
    }

    /// The text of `cgroup`.
    ///
    /// # Errors
    /// When the process is gone or hidden.
    pub fn cgroup(&self) -> Result<Vec<u8>, Silence> {
        self.read("cgroup")
    }

    /// Where `exe` points, without the kernel's mark for a file that was replaced since. Needs the right to trace it.
    ///
    /// # Errors
    /// When the process is gone or may not be traced by us.
    pub fn executable(&self) -> Result<PathBuf, Silence> {
        let path = self.link("exe")?;
        Ok(PathBuf::from(
            path.strip_suffix(" (deleted)").unwrap_or(&path),
        ))
    }

    /// Identity of the mount namespace, e.g. `mnt:[4026531841]`. Needs the right to trace it.
    ///
    /// # Errors
    /// When the process is gone or may not be traced by us.
    pub fn mount_namespace(&self) -> Result<String, Silence> {
        self.link("ns/mnt")
    }

    fn link(&self, name: &str) -> Result<String, Silence> {
        let target =
            readlinkat(&self.folder, name, Vec::new()).map_err(|error| silence(self.pid, error))?;
        target.into_string().map_err(|_| Silence::Denied)
    }

    fn open_file(&self, name: &str) -> Result<OwnedFd, Silence> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        openat(&self.folder, name, flags, Mode::empty()).map_err(|error| silence(self.pid, error))
    }

    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, Silence> {
        let mut text = Vec::with_capacity(1024);
        File::from(self.open_file(name)?)
            .take(TEXT_LIMIT)
            .read_to_end(&mut text)
            .map_err(|error| silence(self.pid, errno(&error)))?;
        Ok(text)
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn silence(pid: u32, error: Errno) -> Silence {
    if error == Errno::SRCH {
        return Silence::Gone;
    }
    if error != Errno::NOENT {
        return Silence::Denied;
    }
    // With hidepid a process of somebody else looks absent, but it cannot be signalled rather than not found.
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    match pid.map(test_kill_process) {
        Some(Err(Errno::PERM)) => Silence::Denied,
        _ => Silence::Gone,
    }
}

/// What is needed of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    start_time: u64,
    /// Nothing of it runs any more. A process whose first thread has ended while others run is none.
    dead: bool,
}

/// `pid (comm) state ppid …`: comm may hold spaces and brackets, so the fields are counted from the last `)`.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    // Field 3 was the state; 20 is num_threads, 22 starttime.
    let threads: u64 = fields.nth(16)?.parse().ok()?;
    let start_time = fields.nth(1)?.parse().ok()?;
    Some(Stat {
        start_time,
        dead: matches!(state, "Z" | "X" | "x") && threads <= 1,
    })
}

/// `Uid:\treal\teffective\tsaved\tfilesystem`, and `Gid` alike. The lines before them hold nothing that a process could
/// shape: its name is written with line breaks escaped.
fn parse_ids(text: &[u8]) -> Option<Ids> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let mut line = |name: &[u8]| lines.find_map(|line| line.strip_prefix(name));
    let mut uids = numbers(line(b"Uid:")?)?;
    let mut gids = numbers(line(b"Gid:")?)?;
    Some(Ids {
        uids: Uids {
            real: uids.next()??,
            effective: uids.next()??,
        },
        gid: gids.next()??,
    })
}

fn numbers(line: &[u8]) -> Option<impl Iterator<Item = Option<u32>>> {
    let words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    Some(words.map(|word| word.parse().ok()))
}

/// `FIRST_INSIDE FIRST_OUTSIDE COUNT` in each line (user_namespaces(7)); the first namespace has one for all ids.
fn maps_all(text: &[u8]) -> bool {
    let words = std::str::from_utf8(text).map(str::split_ascii_whitespace);
    words.is_ok_and(|words| words.eq(["0", "0", "4294967295"]))
}

/// One number; 4294967295 is nobody.
fn parse_login_uid(text: &[u8]) -> Option<u32> {
    let uid = std::str::from_utf8(text).ok()?.trim_end().parse().ok()?;
    (uid != u32::MAX).then_some(uid)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    fn stat(comm: &str, state: char, threads: u32) -> String {
        let middle = (4..20).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        format!("7 ({comm}) {state} {middle} {threads} 0 123456 9 9\n")
    }

    #[test]
    fn a_name_cannot_forge_the_start_time() {
        for comm in [
            "bash",
            "a b",
            ") Z 1 2 3",
            "x) R 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 99 (",
            "\u{fffd}",
        ] {
            let read = parse_stat(stat(comm, 'S', 3).as_bytes()).unwrap();
            assert_eq!(
                read,
                Stat {
                    start_time: 123_456,
                    dead: false
                },
                "{comm}"
            );
        }
        assert!(parse_stat(stat("x", 'Z', 1).as_bytes()).unwrap().dead);
        assert!(
            !parse_stat(stat("x", 'Z', 2).as_bytes()).unwrap().dead,
            "only its first thread has ended"
        );
        for broken in ["", "7 (x", "7 (x) S", "7 (x) S 1 2"] {
            assert_eq!(parse_stat(broken.as_bytes()), None);
        }
    }

    #[test]
    fn uids_come_from_their_line() {
        let text = b"Name:\tUid:\\n\nUmask:\t0022\nUid:\t1000\t0\t1000\t1000\nGid:\t1\t2\t3\t4\n";
        let uids = Uids {
            real: 1000,
            effective: 0,
        };
        assert_eq!(parse_ids(text), Some(Ids { uids, gid: 1 }));
        for broken in [
            "Name:\tx\n",
            "Uid:\t-1\t0\nGid:\t1\n",
            "Uid:\t1\t0\n",
            "Uid:\t1\nGid:\t1\n",
        ] {
            assert_eq!(parse_ids(broken.as_bytes()), None, "{broken}");
        }
        for (text, uid) in [("1000\n", Some(1000)), ("0", Some(0)), ("4294967295", None)] {
            assert_eq!(parse_login_uid(text.as_bytes()), uid, "{text}");
        }
        assert!(maps_all(b"         0          0 4294967295\n"));
        for other in [
            "0 1000 1\n",
            "0 0 4294967294\n",
            "0 1000 1\n1 100000 65536\n",
            "",
        ] {
            assert!(!maps_all(other.as_bytes()), "{other}");
        }
        for broken in ["", "-1", "4294967296", "a", "1 2"] {
            assert_eq!(parse_login_uid(broken.as_bytes()), None, "{broken}");
        }
    }

    proptest! {
        /// Whatever a process calls itself, it changes neither when it began nor whether it lives.
        #[test]
        fn no_name_forges_a_field(comm in proptest::collection::vec(any::<u8>(), 0..64)) {
            let plain = stat("x", 'S', 3);
            let (before, after) = plain.split_once('x').unwrap();
            let text = [before.as_bytes(), &comm, after.as_bytes()].concat();
            prop_assert_eq!(parse_stat(&text), parse_stat(plain.as_bytes()));
        }

        #[test]
        fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (parse_stat(&text), parse_ids(&text), parse_login_uid(&text));
        }
    }

    /// Case 68: a folder that is open never tells of the next process with the same pid, and a zombie is gone.
    #[test]
    fn a_process_that_ends_is_gone_for_who_holds_its_folder() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let folder = ProcessFolder::open(child.id()).unwrap();
        let own = ProcessFolder::open(std::process::id()).unwrap();
        assert!(folder.start_time().unwrap() >= own.start_time().unwrap());
        assert_eq!(folder.ids().unwrap(), own.ids().unwrap());
        assert_eq!(folder.mount_namespace(), own.mount_namespace());
        drop(child.stdin.take());
        let end = rustix::process::waitid(
            rustix::process::WaitId::Pid(Pid::from_child(&child)),
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
        );
        assert!(end.is_ok());
        assert_eq!(folder.start_time(), Err(Silence::Gone), "a zombie");
        child.wait().unwrap();
        assert_eq!(folder.start_time(), Err(Silence::Gone));
        assert_eq!(ProcessFolder::open(child.id()).err(), Some(Silence::Gone));
    }
}
