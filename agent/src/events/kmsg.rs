//! Follows the kernel log from its end, without ever waiting for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::nvrm::{self, Trouble};

/// The kernel's longest record with its dictionary (`CONSOLE_EXT_LOG_MAX` in kernel/printk/printk.c).
const LONGEST_RECORD: usize = 8192;
/// Reads in one pass; what is left waits in the kernel's ring, which tells when it overflows.
const READS: usize = 1024;

/// Whether the kernel log is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogState {
    /// It is not wanted.
    #[default]
    Off,
    /// It is followed.
    Following,
    /// There is none, as in many containers.
    Absent,
    /// The kernel refuses it: CAP_SYSLOG is missing.
    Denied,
    /// Reading failed; it is opened again later.
    Broken,
}

impl LogState {
    /// All names, as in the label `state` of `gpuquota_kernel_log_state`.
    pub const NAMES: [&'static str; 5] = ["off", "following", "absent", "denied", "broken"];

    /// One of [`Self::NAMES`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Following => "following",
            Self::Absent => "absent",
            Self::Denied => "denied",
            Self::Broken => "broken",
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Absent,
            io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Broken,
        }
    }
}

/// The reader of one log.
#[derive(Debug)]
pub struct KernelLog {
    path: PathBuf,
    file: Option<File>,
    state: LogState,
    /// The begin of a record whose end has not come: in a pipe or file, not in the device, which gives whole records.
    rest: Vec<u8>,
    overruns: u64,
}

impl KernelLog {
    /// Opens the log at its end; usually `/dev/kmsg`, or a pipe or file with the same records.
    #[must_use]
    pub fn follow(path: &Path) -> Self {
        let mut log = Self {
            path: path.to_owned(),
            file: None,
            state: LogState::Off,
            rest: Vec::new(),
            overruns: 0,
        };
        log.reopen();
        log
    }

    /// Whether it is read.
    #[must_use]
    pub fn state(&self) -> LogState {
        self.state
    }

    /// Times that the kernel overwrote records before they were read.
    #[must_use]
    pub fn overruns(&self) -> u64 {
        self.overruns
    }

    /// Tries again after a failure.
    pub fn reopen(&mut self) {
        if self.file.is_some() {
            return;
        }
        self.rest.clear();
        match open(&self.path) {
            Ok(file) => {
                self.file = Some(file);
                self.state = LogState::Following;
            }
            Err(error) => self.state = LogState::of(&error),
        }
    }

    /// What has come since the last time. Never waits.
    pub fn read(&mut self, mut each: impl FnMut(Trouble)) {
        let Some(file) = &mut self.file else {
            return;
        };
        let mut buffer = [0; LONGEST_RECORD];
        for _ in 0..READS {
            match file.read(&mut buffer) {
                // A pipe without a writer, or the end of a file.
                Ok(0) => return,
                Ok(length) => {
                    let new = buffer.get(..length).unwrap_or_default();
                    if self.rest.is_empty() && new.last() == Some(&b'\n') {
                        tell(new, &mut each);
                    } else {
                        self.rest.extend_from_slice(new);
                        let whole = self
                            .rest
                            .iter()
                            .rposition(|byte| *byte == b'\n')
                            .map_or(0, |at| at + 1);
                        tell(self.rest.get(..whole).unwrap_or_default(), &mut each);
                        self.rest.drain(..whole);
                        if self.rest.len() > LONGEST_RECORD {
                            self.rest.clear();
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The ring has gone round; the next read goes on with the oldest record that is left.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.overruns = self.overruns.saturating_add(1);
                }
                Err(error) => {
                    self.state = LogState::of(&error);
                    self.file = None;
                    return;
                }
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)?;
    if !file.metadata()?.file_type().is_fifo() {
        file.seek(SeekFrom::End(0))?;
    }
    Ok(file)
}

fn tell(records: &[u8], each: &mut impl FnMut(Trouble)) {
    let text = String::from_utf8_lossy(records);
    text.lines()
        .filter(|line| !line.starts_with(' '))
        .filter_map(nvrm::parse)
        .for_each(each);
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn rule_12_the_log_is_followed_from_its_end_in_whole_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kmsg");
        let old = "3,1,1,-;NVRM: Xid (PCI:0000:3b:00): 13, before the start\n";
        std::fs::write(&path, old).unwrap();
        let mut log = KernelLog::follow(&path);
        let seen = |log: &mut KernelLog| {
            let mut xids = Vec::new();
            log.read(|trouble| xids.extend(trouble.xid));
            xids
        };
        assert_eq!((log.state(), seen(&mut log)), (LogState::Following, vec![]));
        let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
        write!(writer, "3,2,2,-;NVRM: Xid (PCI:0000:3b:00): 31, x\n SUBSYSTEM=pci\n6,3,3,-;usb 1\n3,4,4,-;NVRM: Xid (PCI:00").unwrap();
        assert_eq!(seen(&mut log), [31]);
        writeln!(writer, "00:3b:00): 79, x").unwrap();
        assert_eq!(seen(&mut log), [79]);
        writer.write_all(&vec![b'x'; 3 * LONGEST_RECORD]).unwrap();
        assert!(seen(&mut log).is_empty());
        assert!(
            log.rest.len() <= LONGEST_RECORD,
            "what never ends is let go"
        );
    }

    #[test]
    fn a_log_that_is_not_there_is_a_state_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kmsg");
        let mut log = KernelLog::follow(&path);
        assert_eq!(log.state(), LogState::Absent);
        log.read(|_| panic!("there is nothing"));
        std::fs::write(&path, "").unwrap();
        log.reopen();
        assert_eq!(log.state(), LogState::Following);
        assert_eq!(
            LogState::of(&io::Error::from_raw_os_error(1)),
            LogState::Denied
        );
    }
}
