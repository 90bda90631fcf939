//! The table of registered processes: (pid, start time) to tenant, for agents without privileges.
//!
//! A file of JSON lines in the agent's state directory. It is believed only if nobody but the agent's own user, or root, can
//! have written it. An entry names one life of a pid in one boot, so a later process with the same pid inherits nothing.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};

use crate::attribute::is_tenant_name;
use crate::facts::boot_id;
use crate::process::procfs::{ProcessFolder, Silence};
use crate::state::{open_own, write_whole};

/// The table's name in the state directory.
pub const TABLE: &str = "registered.jsonl";
const LOCK: &str = "registered.lock";
/// Larger than 20,000 entries; what is beyond is no table.
const SIZE_LIMIT: u64 = 4 * 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    pid: u32,
    /// Field 22 of `/proc/PID/stat`, clock ticks since boot.
    start_time: u64,
    boot_id: String,
    tenant: String,
}

/// Why a process cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// No tenant can be called so.
    #[error("{0:?} is no tenant name (1 to 255 of A-Z a-z 0-9 . _ @ -)")]
    Tenant(String),
    /// There is no such process, or it may not be looked at.
    #[error("process {0} is not there or may not be looked at")]
    Process(u32),
    /// The table that is there is not believed.
    #[error("{0}")]
    Table(String),
    /// The file cannot be written.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Gives a living process to a tenant, until it ends. Entries of processes that have ended are dropped.
///
/// # Errors
/// When the process is not there, the name is no tenant's, or the table cannot be written.
pub fn register(dir: &Path, pid: u32, tenant: &str) -> Result<(), RegisterError> {
    if !is_tenant_name(tenant) {
        return Err(RegisterError::Tenant(tenant.to_owned()));
    }
    let start_time = ProcessFolder::open(pid)
        .and_then(|folder| folder.start_time())
        .map_err(|_| RegisterError::Process(pid))?;
    edit(dir, |entries, boot_id| {
        entries.retain(|entry| entry.pid != pid);
        entries.push(Entry {
            pid,
            start_time,
            boot_id: boot_id.to_owned(),
            tenant: tenant.to_owned(),
        });
    })
}

/// Takes a process out of the table; not an error if it is not in it.
///
/// # Errors
/// When the table cannot be read or written.
pub fn unregister(dir: &Path, pid: u32) -> Result<(), RegisterError> {
    edit(dir, |entries, _| entries.retain(|entry| entry.pid != pid))
}

fn edit(dir: &Path, change: impl FnOnce(&mut Vec<Entry>, &str)) -> Result<(), RegisterError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| RegisterError::Io { path, source }
    };
    let lock_path = dir.join(LOCK);
    let lock = open_own(&lock_path, OFlags::WRONLY | OFlags::CREATE).map_err(at(&lock_path))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| at(&lock_path)(error.into()))?;

    let table = dir.join(TABLE);
    let mut entries = match read_trusted(dir) {
        Ok((entries, _)) => entries,
        Err(Distrust::Absent) => Vec::new(),
        Err(Distrust::Problem(problem)) => return Err(RegisterError::Table(problem)),
    };
    let boot_id = boot_id().map_err(at(Path::new("/proc/sys/kernel/random/boot_id")))?;
    entries.retain(|entry| entry.boot_id == boot_id && may_live(entry));
    change(&mut entries, &boot_id);

    let mut text = Vec::new();
    for entry in &entries {
        serde_json::to_writer(&mut text, entry).map_err(|error| at(&table)(error.into()))?;
        text.push(b'\n');
    }
    write_whole(&table, &text).map_err(at(&table))
}

fn may_live(entry: &Entry) -> bool {
    match ProcessFolder::open(entry.pid).and_then(|folder| folder.start_time()) {
        Ok(start_time) => start_time == entry.start_time,
        Err(Silence::Denied) => true,
        Err(Silence::Gone) => false,
    }
}

/// The table as the agent holds it, read again when the file changes.
#[derive(Debug)]
pub struct Registered {
    dir: PathBuf,
    boot_id: Option<String>,
    stamp: Option<Stamp>,
    tenants: HashMap<(u32, u64), String>,
    problem: Option<String>,
}

/// What changes when the file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
    /// Owner and mode of the folder, which decide whether the file is believed.
    folder: (u32, u32),
}

impl Stamp {
    fn of(facts: &fs::Metadata, folder: &fs::Metadata) -> Self {
        Self {
            inode: facts.ino(),
            size: facts.size(),
            changed: (facts.ctime(), facts.ctime_nsec()),
            folder: (folder.uid(), folder.mode()),
        }
    }
}

impl Registered {
    /// A table that is read by the first [`Self::refresh`].
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            boot_id: boot_id().ok(),
            stamp: None,
            tenants: HashMap::new(),
            problem: None,
        }
    }

    /// Reads the file if it has changed.
    pub fn refresh(&mut self) {
        let facts = fs::symlink_metadata(self.dir.join(TABLE))
            .and_then(|facts| Ok((facts, fs::metadata(&self.dir)?)));
        let now = facts.ok().map(|(facts, folder)| Stamp::of(&facts, &folder));
        if now.is_some() && now == self.stamp {
            return;
        }
        self.tenants.clear();
        self.stamp = None;
        let problem = match read_trusted(&self.dir) {
            Ok((entries, stamp)) => {
                let of_this_boot = |entry: &Entry| self.boot_id.as_ref() == Some(&entry.boot_id);
                let entries = entries.into_iter().filter(of_this_boot);
                self.tenants = entries
                    .map(|entry| ((entry.pid, entry.start_time), entry.tenant))
                    .collect();
                self.stamp = Some(stamp);
                None
            }
            Err(Distrust::Absent) => None,
            Err(Distrust::Problem(problem)) => {
                self.stamp = now;
                Some(problem)
            }
        };
        if let Some(problem) = &problem
            && self.problem.as_ref() != Some(problem)
        {
            tracing::warn!(problem, "the table of registered processes is ignored");
        }
        self.problem = problem;
    }

    /// The tenant of this life of a pid.
    #[must_use]
    pub fn tenant(&self, pid: u32, start_time: u64) -> Option<&str> {
        self.tenants.get(&(pid, start_time)).map(String::as_str)
    }

    /// Why the table is ignored, if it is.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}

/// Why no table was read.
enum Distrust {
    Absent,
    Problem(String),
}

fn read_trusted(dir: &Path) -> Result<(Vec<Entry>, Stamp), Distrust> {
    let path = dir.join(TABLE);
    let problem = |path: &Path, what: &dyn std::fmt::Display| {
        Distrust::Problem(format!("{}: {what}", path.display()))
    };
    let mut file = match open_own(&path, OFlags::RDONLY) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Distrust::Absent),
        Err(error) => return Err(problem(&path, &error)),
    };
    // Of the file that is open, not of what the path leads to next.
    let facts = file.metadata().map_err(|error| problem(&path, &error))?;
    if !facts.is_file() {
        return Err(problem(&path, &"is no regular file"));
    }
    check_owner(&facts).map_err(|what| problem(&path, &what))?;
    let folder = fs::metadata(dir).map_err(|error| problem(dir, &error))?;
    check_owner(&folder).map_err(|what| problem(dir, &what))?;
    if facts.size() > SIZE_LIMIT {
        return Err(problem(&path, &"is too large"));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)
        .map_err(|error| problem(&path, &error))?;
    let entries = parse(&text).map_err(|what| problem(&path, &what))?;
    Ok((entries, Stamp::of(&facts, &folder)))
}

/// All of a table or nothing: what is not understood may be the entry that takes a process from a tenant.
fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let entries: Result<Vec<Entry>, _> = lines.map(serde_json::from_str).collect();
    let entries = entries.map_err(|error| error.to_string())?;
    let mut tenants = HashMap::new();
    for entry in &entries {
        if !is_tenant_name(&entry.tenant) {
            return Err(format!("{:?} is no tenant name", entry.tenant));
        }
        let life = (&entry.boot_id, entry.pid, entry.start_time);
        let tenant = tenants.entry(life).or_insert(&entry.tenant);
        if *tenant != &entry.tenant {
            return Err(format!("process {} has two tenants", entry.pid));
        }
    }
    Ok(entries)
}

fn check_owner(facts: &fs::Metadata) -> Result<(), String> {
    let own = rustix::process::geteuid().as_raw();
    if facts.uid() != own && facts.uid() != 0 {
        return Err(format!(
            "belongs to uid {}, not to the agent's uid {own} or root",
            facts.uid()
        ));
    }
    if facts.mode() & 0o022 != 0 {
        return Err(format!(
            "others may write it (mode {:o})",
            facts.mode() & 0o7777
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
