//! Facts of the processes on the GPUs, kept while the same process lives so that a sample costs one small read each.

use std::collections::HashMap;
use std::path::PathBuf;

use super::cgroup::{self, Membership};
use super::group::group_of;
use super::procfs::{Held, Ids, ProcessFolder, Silence, start_time};
use super::workload::{self, Workload};

/// Facts older than this are read again although the process is the same: it may have been moved or changed its user.
const REFRESH_MS: u64 = 5_000;
/// Processes that are held at a time: each is an open file of the agent.
const MOST_HELD: usize = 256;
/// Milliseconds of a clock tick as `/proc` counts them for user space (`USER_HZ`).
const TICK_MS: u64 = 10;

/// What the kernel says of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Host process id.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`, clock ticks since boot.
    pub start_time: u64,
    /// User and group ids.
    pub ids: Ids,
    /// Whether it lives in a user namespace of its own.
    pub own_user_namespace: bool,
    /// Who logged in.
    pub login_uid: Option<u32>,
    /// Slices and unit.
    pub membership: Membership,
    /// Job, container and pod.
    pub workload: Workload,
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
    /// Number of the present look.
    look: u64,
    /// Users whose executables matter.
    system_uids: Vec<u32>,
    host_namespace: Option<String>,
}

#[derive(Debug)]
struct Entry {
    read_ms: u64,
    /// Held since before its facts were read; `None`: it is looked up by its number.
    held: Option<Held>,
    /// The look in which it was last asked for.
    look: u64,
    /// CLOCK_BOOTTIME of the list that it stood in, milliseconds.
    listed_ms: u64,
    used: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Lives(ProcessFacts),
    JustGone,
    StillListed,
}

impl FactsCache {
    /// A cache that looks at the executables of these users' processes.
    #[must_use]
    pub fn new(system_uids: Vec<u32>) -> Self {
        // Without the right to look at pid 1 nothing can be told to be the host's, and so nothing is.
        let init = ProcessFolder::open(1).ok();
        Self {
            entries: HashMap::new(),
            look: 0,
            system_uids,
            host_namespace: init.and_then(|init| init.mount_namespace().ok()),
        }
    }

    /// More users whose executables matter.
    pub fn set_system_uids(&mut self, system_uids: &[u32]) {
        system_uids.clone_into(&mut self.system_uids);
    }

    /// Facts at `now_ms` of a process that the driver listed at `listed_ms` or later. One that began after that is
    /// another process, to which the pid of the listed one went. Asked again within the same look, for another GPU, the
    /// answer is the same.
    pub fn ask(&mut self, pid: u32, listed_ms: u64, now_ms: u64) -> Told<'_> {
        let entry = match self.entries.remove(&pid) {
            Some(known) if known.look == self.look => known,
            known => {
                // The same list may be looked at twice: only one that was made later lists it again.
                let absent = known.as_ref().is_some_and(|entry| {
                    !matches!(entry.state, State::Lives(_)) && entry.listed_ms < listed_ms
                });
                let (read_ms, held, state) = match self.look_up(pid, known, listed_ms, now_ms) {
                    Ok((read_ms, held, facts)) => (read_ms, held, State::Lives(facts)),
                    Err(Silence::Denied) => return Told::Denied,
                    Err(Silence::Gone) if absent => (now_ms, None, State::StillListed),
                    Err(Silence::Gone) => (now_ms, None, State::JustGone),
                };
                Entry {
                    read_ms,
                    held,
                    look: self.look,
                    listed_ms,
                    used: true,
                    state,
                }
            }
        };
        match &self.entries.entry(pid).insert_entry(entry).into_mut().state {
            State::Lives(facts) => Told::Facts(facts),
            State::JustGone => Told::JustGone,
            State::StillListed => Told::StillListed,
        }
    }

    /// Ends a look, and forgets processes that were not asked for in it.
    pub fn end_look(&mut self) {
        self.look += 1;
        self.entries
            .retain(|_, entry| std::mem::take(&mut entry.used));
    }

    fn look_up(
        &self,
        pid: u32,
        known: Option<Entry>,
        listed_ms: u64,
        now_ms: u64,
    ) -> Result<(u64, Option<Held>, ProcessFacts), Silence> {
        let mut held = None;
        if let Some(entry) = known
            && let State::Lives(facts) = entry.state
        {
            held = entry.held.filter(Held::runs);
            let fresh = now_ms.saturating_sub(entry.read_ms) < REFRESH_MS
                && facts.start_time.saturating_mul(TICK_MS) <= listed_ms;
            if fresh && (held.is_some() || start_time(pid)? == facts.start_time) {
                return Ok((entry.read_ms, held, facts));
            }
        }
        let room = || self.entries.len() < MOST_HELD;
        let held = held.or_else(|| room().then(|| Held::hold(pid)).flatten());
        let folder = ProcessFolder::open(pid)?;
        let start_time = folder.start_time()?;
        if start_time.saturating_mul(TICK_MS) > listed_ms {
            return Err(Silence::Gone);
        }
        let facts = self.read(pid, start_time, &folder)?;
        Ok((now_ms, held, facts))
    }

    fn read(
        &self,
        pid: u32,
        start_time: u64,
        folder: &ProcessFolder,
    ) -> Result<ProcessFacts, Silence> {
        let ids = folder.ids()?;
        let cgroup = folder.cgroup()?;
        let uids = ids.uids;
        let mut workload = workload::workload(&cgroup);
        if let Some(job) = &mut workload.job {
            job.group = workload::job_folder(&cgroup).and_then(|folder| group_of(&folder));
        }
        let of_system = uids.real == uids.effective && self.system_uids.contains(&uids.real);
        Ok(ProcessFacts {
            pid,
            start_time,
            ids,
            own_user_namespace: folder.in_own_user_namespace(),
            login_uid: folder.login_uid(),
            membership: cgroup::membership(&cgroup),
            workload,
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
    fn fault_i_a_process_that_ends_is_just_gone_once() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let mut cache = FactsCache::new(vec![rustix::process::getuid().as_raw()]);
        let pid = child.id();
        let first = match cache.ask(pid, u64::MAX, 1_000) {
            Told::Facts(facts) => facts.clone(),
            told => panic!("{told:?}"),
        };
        assert_eq!(first.ids.uids.real, rustix::process::getuid().as_raw());
        cache.end_look();
        assert_eq!(cache.ask(pid, u64::MAX, 2_000), Told::Facts(&first));
        cache.end_look();
        assert_eq!(
            cache.ask(pid, u64::MAX, 2_000 + REFRESH_MS),
            Told::Facts(&first)
        );
        drop(child.stdin.take());
        child.wait().unwrap();
        cache.end_look();
        assert_eq!(cache.ask(pid, 8_000_000, 9_000), Told::JustGone);
        assert_eq!(
            cache.ask(pid, 8_000_000, 9_000),
            Told::JustGone,
            "on its second GPU in the same look"
        );
        cache.end_look();
        assert_eq!(
            cache.ask(pid, 8_000_000, 9_500),
            Told::JustGone,
            "the same list, looked at again"
        );
        cache.end_look();
        assert_eq!(cache.ask(pid, 8_000_001, 9_600), Told::StillListed);
        cache.end_look();
        assert_eq!(
            cache.ask(pid, 8_000_002, 11_000),
            Told::StillListed,
            "asked for in the look before"
        );
        cache.end_look();
        cache.end_look();
        assert_eq!(cache.ask(pid, 8_000_003, 12_000), Told::JustGone);
    }

    /// Being held is what tells that a process ended, and where there is no room to hold it, its number is.
    #[test]
    fn a_process_is_held_or_looked_up_and_either_tells_its_end() {
        let mut cache = FactsCache::new(Vec::new());
        let mut children: Vec<_> = (0..2)
            .map(|_| Command::new("cat").stdin(Stdio::piped()).spawn().unwrap())
            .collect();
        let pids: Vec<u32> = children.iter().map(std::process::Child::id).collect();
        for pid in &pids {
            assert!(matches!(cache.ask(*pid, u64::MAX, 1_000), Told::Facts(_)));
        }
        cache.entries.get_mut(&pids[1]).unwrap().held = None;
        assert!(
            cache.entries[&pids[0]].held.is_some(),
            "this kernel has pidfds"
        );
        cache.end_look();
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        for pid in &pids {
            assert_eq!(cache.ask(*pid, u64::MAX, 1_500), Told::JustGone);
        }
    }

    /// Case 68: between the driver's list and the question the pid went to somebody else.
    #[test]
    fn fault_i_rule_07_a_process_that_began_after_the_list_is_not_the_listed_one() {
        let listed_ms = crate::clock::boottime_ms();
        std::thread::sleep(std::time::Duration::from_millis(25));
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let mut cache = FactsCache::new(Vec::new());
        assert_eq!(cache.ask(pid, listed_ms, 1_000), Told::JustGone);
        cache.end_look();
        let listed_ms = crate::clock::boottime_ms();
        let told = cache.ask(pid, listed_ms, 2_000);
        assert!(matches!(told, Told::Facts(_)), "{told:?}");
        cache.end_look();
        // What is known of it by now does not make it the one of an older list.
        assert_eq!(cache.ask(pid, 1, 2_001), Told::JustGone);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
