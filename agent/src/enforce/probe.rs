//! Whether what is denied is denied: a process of our own goes into the group and tries to open it.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use rustix::fs::OFlags;

use crate::clock::boottime_ms;

/// All were denied.
const DENIED: u8 = 0;
/// One was opened.
const OPENED: u8 = 10;
/// It could not go into the group.
const OUTSIDE: u8 = 11;
/// One could not be opened for another reason.
const OTHERWISE: u8 = 12;
/// A probe takes so long at most, milliseconds.
const DEADLINE_MS: u64 = 2_000;
const LOOK: Duration = Duration::from_millis(2);

/// Flags of the hidden command.
#[derive(Debug, Args)]
pub struct ProbeOptions {
    /// An empty group to go into.
    #[arg(long)]
    group: PathBuf,
    /// What to try.
    nodes: Vec<PathBuf>,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Probed {
    /// No node can be opened there.
    Denied,
    /// One can.
    Opened(String),
    /// It could not be tried.
    Unsure(String),
}

/// Starts probes.
#[derive(Debug)]
pub(super) struct Prober {
    program: PathBuf,
}

impl Prober {
    /// Probes are processes of this program.
    pub(super) fn new(program: PathBuf) -> Self {
        Self { program }
    }

    /// Tries these nodes below the group, in a group of its own there: the kernel lets no process into one that has groups.
    pub(super) fn probe(&self, group: &Path, nodes: &[&str]) -> Probed {
        let place = group.join(format!("gpuquota-probe-{}", std::process::id()));
        match fs::create_dir(&place) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Probed::Unsure(format!(
                    "no probe can be made below {}: {error}",
                    group.display()
                ));
            }
            _ => {}
        }
        let probed = self.run(&place, nodes);
        // The kernel gives a group free a moment after its last process has ended.
        let end = boottime_ms().saturating_add(DEADLINE_MS);
        while fs::remove_dir(&place).is_err() && boottime_ms() < end {
            std::thread::sleep(LOOK);
        }
        probed
    }

    fn run(&self, place: &Path, nodes: &[&str]) -> Probed {
        let mut command = Command::new(&self.program);
        command
            .arg("probe-open")
            .arg("--group")
            .arg(place)
            .arg("--")
            .args(nodes);
        command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return Probed::Unsure(format!("no probe can be started: {error}")),
        };
        let end = boottime_ms().saturating_add(DEADLINE_MS);
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if boottime_ms() < end => std::thread::sleep(LOOK),
                Ok(None) | Err(_) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Probed::Unsure("the probe does not end".to_owned());
                }
            }
        };
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        match code {
            Some(DENIED) => Probed::Denied,
            Some(OPENED) => {
                Probed::Opened("a process in the group can still open one of the nodes".to_owned())
            }
            Some(OUTSIDE) => Probed::Unsure("the probe cannot go into the group".to_owned()),
            Some(OTHERWISE) => {
                Probed::Unsure("a node cannot be opened, but not because it is denied".to_owned())
            }
            _ => Probed::Unsure(format!("the probe ended otherwise: {status}")),
        }
    }
}

/// The probe: goes into the group and tries each node.
#[must_use]
pub fn probe_open(options: &ProbeOptions) -> ExitCode {
    if fs::write(options.group.join("cgroup.procs"), "0").is_err() {
        return OUTSIDE.into();
    }
    let flags = i32::try_from(OFlags::NONBLOCK.union(OFlags::NOCTTY).bits()).unwrap_or(0);
    let tried = options.nodes.iter().map(|node| {
        let mut how = OpenOptions::new();
        how.read(true).custom_flags(flags).open(node)
    });
    for opened in tried {
        match opened {
            Ok(_) => return OPENED.into(),
            // EPERM is the group's word; a file's owner and mode say EACCES.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) => {}
            Err(_) => return OTHERWISE.into(),
        }
    }
    DENIED.into()
}
