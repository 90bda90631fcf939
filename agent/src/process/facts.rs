//! Facts of the processes on the GPUs, kept while the same process lives so that a sample costs one small read each.

use std::collections::HashMap;
use std::path::PathBuf;

use super::cgroup::{self, Membership};
use super::procfs::{ProcessFolder, Silence, Uids};

/// Facts older than this are read again although the process is the same: it may have been moved or changed its user.
const REFRESH_MS: u64 = 5_000;

/// What the kernel says of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Host process id.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`, clock ticks since boot.
    pub start_time: u64,
    /// Real and effective user id.
    pub uids: Uids,
    /// Slices and unit.
    pub membership: Membership,
    /// The executable, if this is a process of the host itself: seen in the mount namespace of pid 1, so that a container
    /// cannot show a path of its own. Read for the users of [`FactsCache::new`] only.
    pub host_executable: Option<PathBuf>,
}

/// What asking for one process gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told<'f> {
    /// It lives.
    Facts(&'f ProcessFacts),
    /// It had just gone: the list of the driver is older than its end.
    JustGone,
    /// The driver lists it although it was gone before already.
    StillListed,
    /// The kernel refuses.
    Denied,
}

/// Facts by pid.
#[derive(Debug)]
pub struct FactsCache {
    entries: HashMap<u32, Entry>,
    /// Users whose executables matter.
    system_uids: Vec<u32>,
    host_namespace: Option<String>,
}

#[derive(Debug)]
struct Entry {
    read_ms: u64,
    used: bool,
    facts: Option<ProcessFacts>,
}

impl FactsCache {
    /// A cache that looks at the executables of these users' processes.
    #[must_use]
    pub fn new(system_uids: Vec<u32>) -> Self {
        // Without the right to look at pid 1 nothing can be told to be the host's, and so nothing is.
        let init = ProcessFolder::open(1).ok();
        Self {
            entries: HashMap::new(),
            system_uids,
            host_namespace: init.and_then(|init| init.mount_namespace().ok()),
        }
    }

    /// Facts of one process at `now_ms`.
    pub fn ask(&mut self, pid: u32, now_ms: u64) -> Told<'_> {
        let known = self.entries.remove(&pid);
        let first_absence = !matches!(&known, Some(Entry { facts: None, .. }));
        let read = match known.and_then(|entry| entry.facts.map(|facts| (entry.read_ms, facts))) {
            Some((read_ms, facts)) if now_ms.saturating_sub(read_ms) < REFRESH_MS => {
                match ProcessFolder::open(pid).and_then(|folder| Ok((folder.start_time()?, folder)))
                {
                    Ok((start_time, _)) if start_time == facts.start_time => Ok((read_ms, facts)),
                    Ok((start_time, folder)) => self
                        .read(pid, start_time, &folder)
                        .map(|facts| (now_ms, facts)),
                    Err(silence) => Err(silence),
                }
            }
            _ => ProcessFolder::open(pid)
                .and_then(|folder| self.read(pid, folder.start_time()?, &folder))
                .map(|facts| (now_ms, facts)),
        };
        let (read_ms, facts) = match read {
            Ok((read_ms, facts)) => (read_ms, Some(facts)),
            Err(Silence::Denied) => return Told::Denied,
            Err(Silence::Gone) => (now_ms, None),
        };
        let entry = Entry {
            read_ms,
            used: true,
            facts,
        };
        match &self.entries.entry(pid).insert_entry(entry).into_mut().facts {
            Some(facts) => Told::Facts(facts),
            None if first_absence => Told::JustGone,
            None => Told::StillListed,
        }
    }

    /// Forgets processes that were not asked for since the last call.
    pub fn prune(&mut self) {
        self.entries
            .retain(|_, entry| std::mem::take(&mut entry.used));
    }

    fn read(
        &self,
        pid: u32,
        start_time: u64,
        folder: &ProcessFolder,
    ) -> Result<ProcessFacts, Silence> {
        let uids = folder.uids()?;
        let membership = cgroup::membership(&folder.cgroup()?);
        let of_system = uids.real == uids.effective && self.system_uids.contains(&uids.real);
        Ok(ProcessFacts {
            pid,
            start_time,
            uids,
            membership,
            host_executable: if of_system {
                self.host_executable(folder)
            } else {
                None
            },
        })
    }

    fn host_executable(&self, folder: &ProcessFolder) -> Option<PathBuf> {
        let namespace = folder.mount_namespace().ok()?;
        if self.host_namespace.as_ref() != Some(&namespace) {
            return None;
        }
        folder.executable().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_that_ends_is_just_gone_once() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let mut cache = FactsCache::new(vec![rustix::process::getuid().as_raw()]);
        let pid = child.id();
        let first = match cache.ask(pid, 1_000) {
            Told::Facts(facts) => facts.clone(),
            told => panic!("{told:?}"),
        };
        assert_eq!(first.uids.real, rustix::process::getuid().as_raw());
        assert_eq!(cache.ask(pid, 2_000), Told::Facts(&first));
        assert_eq!(cache.ask(pid, 2_000 + REFRESH_MS), Told::Facts(&first));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(cache.ask(pid, 9_000), Told::JustGone);
        assert_eq!(cache.ask(pid, 10_000), Told::StillListed);
        cache.prune();
        assert_eq!(
            cache.ask(pid, 11_000),
            Told::StillListed,
            "asked for before the pruning"
        );
        cache.prune();
        cache.prune();
        assert_eq!(cache.ask(pid, 12_000), Told::JustGone);
    }
}
