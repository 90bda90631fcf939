//! The terminal that a process was started from, so that whoever sits there can be told something.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, major, minor, open};

use super::procfs::ProcessFolder;

/// Majors of the slaves of Unix98 pseudo terminals and of virtual consoles (the kernel's admin-guide/devices.txt).
const PTS: (u32, u32) = (136, 143);
const CONSOLE: u32 = 4;
/// The bit that mesg(1) sets: writes of the group `tty` are wanted.
const GROUP_WRITES: u32 = 0o020;

/// A terminal, and who may sit there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Terminal {
    /// Major and minor of its device.
    device: (u32, u32),
    path: PathBuf,
    /// The process's user and whoever logged in.
    users: BTreeSet<u32>,
}

impl Terminal {
    /// That of a process of the host; `None`: it has none, or is in a container, where a terminal's number names another one.
    #[must_use]
    pub fn of(process: &ProcessFolder, host: &str) -> Option<Self> {
        let device = tty_of(&process.read("stat").ok()?)?;
        if process.mount_namespace().ok()? != host {
            return None;
        }
        let ids = process.ids().ok()?;
        let users = [ids.uids.real, ids.uids.effective];
        Some(Self {
            device,
            path: path_of(device)?,
            users: users.into_iter().chain(process.login_uid()).collect(),
        })
    }

    /// Writes a text there where its user lets others write, without waiting; whether it was written.
    #[must_use]
    pub fn tell(&self, text: &str) -> bool {
        write_to(&self.path, Some(self.device), &self.users, text)
    }
}

fn write_to(path: &Path, device: Option<(u32, u32)>, users: &BTreeSet<u32>, text: &str) -> bool {
    let flags =
        OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(file) = open(path, flags, Mode::empty()).map(File::from) else {
        return false;
    };
    let Ok(about) = file.metadata() else {
        return false;
    };
    let same = device.is_none_or(|it| it == (major(about.rdev()), minor(about.rdev())));
    let wanted = about.mode() & GROUP_WRITES != 0 && users.contains(&about.uid());
    let mut file = file;
    about.file_type().is_char_device() && same && wanted && file.write_all(text.as_bytes()).is_ok()
}

// Field 7 of `stat`: minor in bits 31 to 20 and 7 to 0, major in bits 15 to 8 (proc_pid_stat(5)).
fn tty_of(stat: &[u8]) -> Option<(u32, u32)> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let number: u32 = fields.split_ascii_whitespace().nth(4)?.parse().ok()?;
    let device = (
        (number >> 8) & 0xff,
        (number & 0xff) | ((number >> 12) & 0xf_ff00),
    );
    (number != 0).then_some(device)
}

fn path_of((major, minor): (u32, u32)) -> Option<PathBuf> {
    if (PTS.0..=PTS.1).contains(&major) {
        let index = (major - PTS.0) * 256 + minor;
        return Some(format!("/dev/pts/{index}").into());
    }
    (major == CONSOLE && (1..64).contains(&minor)).then(|| format!("/dev/tty{minor}").into())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    #[test]
    fn a_terminals_number_is_a_path() {
        let stat = |tty: u32| format!("7 (a) b) S 1 2 3 {tty} 9 9");
        let path = |tty| tty_of(stat(tty).as_bytes()).and_then(path_of);
        assert_eq!(path(0), None);
        assert_eq!(path(136 << 8 | 3), Some("/dev/pts/3".into()));
        assert_eq!(path(137 << 8 | 3), Some("/dev/pts/259".into()));
        assert_eq!(path(136 << 8 | 3 | 2 << 20), Some("/dev/pts/515".into()));
        assert_eq!(path(4 << 8 | 2), Some("/dev/tty2".into()));
        assert_eq!(path(4 << 8 | 64), None, "a serial line");
        assert_eq!(path(5 << 8), None);
        for broken in ["", "7 (x", "7 (x) S 1 2 3"] {
            assert_eq!(tty_of(broken.as_bytes()), None);
        }
    }

    #[test]
    fn only_its_user_is_told_and_only_who_lets_others_write() {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let master = openpt(flags).unwrap();
        grantpt(&master).and_then(|()| unlockpt(&master)).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let path = Path::new(&path);
        let own = std::fs::metadata(path).unwrap();
        let users = BTreeSet::from([own.uid()]);
        let mode = |bits| std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits));
        mode(0o600).unwrap();
        assert!(!write_to(path, None, &users, "no\r\n"), "mesg n");
        mode(0o620).unwrap();
        let other = BTreeSet::from([own.uid() + 1]);
        assert!(!write_to(path, None, &other, "no\r\n"), "another's");
        assert!(
            !write_to(path, Some((1, 3)), &users, "no\r\n"),
            "another device"
        );
        assert!(write_to(path, None, &users, "hello\n"));
        let mut read = [0; 64];
        let length = File::from(master).read(&mut read).unwrap();
        assert_eq!(&read[..length], b"hello\r\n");
    }
}
