//! Which leases this agent has taken, for what, and where each runs; kept in the state directory over restarts.
//!
//! An asking is written down before it is sent: whatever a crash or a lost answer leaves behind is asked for again by its own
//! name, and given back.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gpuquota_proto::agent_v1::TakeLease;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::leased::Leased;
use crate::process::group::GroupId;
use crate::state::{read_own, write_whole};

/// The file in the state directory.
const FILE: &str = "leases.json";
/// Larger than any that is written.
const LIMIT: u64 = 8 << 20;
/// Leases that are kept at a time; the server allows fewer.
pub const MOST: usize = 1024;

/// What was asked of the server, without the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// For whom.
    pub tenant: String,
    /// Which model; empty: the only one of the node.
    pub model: String,
    /// How many devices.
    pub count: u32,
    /// Logical CPUs that go with them.
    pub cpu_cores: Option<u32>,
    /// Main memory that goes with them, bytes.
    pub memory_bytes: Option<u64>,
    /// The user who asked.
    pub uid: u32,
}

impl Asked {
    /// As it is sent.
    #[must_use]
    pub fn wire(&self, ask: &str, token: Option<&str>) -> TakeLease {
        TakeLease {
            ask: ask.to_owned(),
            tenant: self.tenant.clone(),
            gpu_model: self.model.clone(),
            count: self.count,
            cpu_cores: self.cpu_cores,
            memory_bytes: self.memory_bytes,
            uid: self.uid,
            token: token.unwrap_or_default().to_owned(),
            only_if_taken: false,
        }
    }
}

/// One lease, or the asking for one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What was asked.
    pub asked: Asked,
    /// Its number; `None`: no answer is known.
    pub lease: Option<u64>,
    /// The control group it is for, as `/proc/PID/cgroup` writes it; `None`: nothing runs under it.
    pub group: Option<String>,
    /// That group's folder when it began; `None`: not known.
    #[serde(default)]
    pub folder: Option<GroupId>,
    /// The process that asked still waits, so it is nobody else's to give back.
    #[serde(skip)]
    pub waits: bool,
    /// From then on it is to be renewed, milliseconds, CLOCK_BOOTTIME. A new agent asks at once.
    #[serde(skip)]
    pub renew_at_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    boot_id: String,
    /// By the name of the asking.
    entries: BTreeMap<String, Entry>,
}

/// The book.
#[derive(Debug)]
pub struct Book {
    path: PathBuf,
    boot_id: String,
    entries: Mutex<BTreeMap<String, Entry>>,
    leased: Arc<Leased>,
    /// Something was asked for or is over.
    changed: Notify,
}

impl Book {
    /// As it was left in this state directory. After another boot nothing of it runs any more. A file that cannot be read is told
    /// and begun anew: the server's leases then end by their time.
    #[must_use]
    pub fn open(state: &Path, boot_id: &str, leased: Arc<Leased>) -> Self {
        let path = state.join(FILE);
        let entries = match load(&path) {
            Ok(Some(file)) if file.boot_id == boot_id => file.entries,
            Ok(Some(file)) => {
                let ended = |(ask, entry)| {
                    (
                        ask,
                        Entry {
                            group: None,
                            ..entry
                        },
                    )
                };
                file.entries.into_iter().map(ended).collect()
            }
            Ok(None) => BTreeMap::new(),
            Err(error) => {
                tracing::error!(%error, file = %path.display(), "which leases were taken is not known any more; they end by their time");
                BTreeMap::new()
            }
        };
        for entry in entries.values() {
            if let Some(group) = &entry.group {
                leased.add(group, &entry.asked.tenant);
            }
        }
        Self {
            path,
            boot_id: boot_id.to_owned(),
            entries: Mutex::new(entries),
            leased,
            changed: Notify::new(),
        }
    }

    /// Returns once something was asked for or is over, also if that was before.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// All of it.
    #[must_use]
    pub fn entries(&self) -> Vec<(String, Entry)> {
        let entries = self.lock();
        entries
            .iter()
            .map(|(ask, entry)| (ask.clone(), entry.clone()))
            .collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes down that this is asked for now.
    ///
    /// # Errors
    /// When it cannot be kept over a restart, or there are [`MOST`] already: then it must not be asked for.
    pub fn ask(&self, ask: &str, asked: Asked) -> io::Result<()> {
        let mut entries = self.lock();
        if entries.len() >= MOST {
            return Err(io::Error::other("too many leases are held already"));
        }
        let entry = Entry {
            asked,
            lease: None,
            group: None,
            folder: None,
            waits: true,
            renew_at_ms: 0,
        };
        entries.insert(ask.to_owned(), entry);
        let written = self.save(&entries);
        if written.is_err() {
            entries.remove(ask);
        }
        self.changed.notify_one();
        written
    }

    /// The server gave this lease.
    pub fn taken(&self, ask: &str, lease: u64, renew_at_ms: u64) {
        self.change(ask, |entry| {
            (entry.lease, entry.renew_at_ms) = (Some(lease), renew_at_ms);
        });
    }

    /// Somebody runs under it, in this group. What ran there before under another lease has ended.
    ///
    /// # Errors
    /// When it cannot be kept over a restart: then it must not begin.
    pub fn runs(&self, ask: &str, group: &str, folder: Option<GroupId>) -> io::Result<()> {
        let mut entries = self.lock();
        for (other, entry) in entries.iter_mut() {
            if other != ask && entry.group.as_deref() == Some(group) {
                entry.group = None;
            }
        }
        if let Some(entry) = entries.get_mut(ask) {
            (entry.group, entry.folder) = (Some(group.to_owned()), folder);
            self.leased.add(group, &entry.asked.tenant);
        }
        self.save(&entries)
    }

    /// Nobody waits for it any more: what runs, runs.
    pub fn answered(&self, ask: &str) {
        self.change(ask, |entry| entry.waits = false);
    }

    /// Nobody is left in its group.
    pub fn ended(&self, ask: &str) {
        let mut entries = self.lock();
        if let Some(group) = entries.get_mut(ask).and_then(|entry| entry.group.take()) {
            self.leased.remove(&group);
            self.keep(&entries);
        }
    }

    /// It is given back, or was never given.
    pub fn forget(&self, ask: &str) {
        let mut entries = self.lock();
        if let Some(entry) = entries.remove(ask) {
            if let Some(group) = &entry.group {
                self.leased.remove(group);
            }
            self.keep(&entries);
            self.changed.notify_one();
        }
    }

    fn change(&self, ask: &str, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(ask) {
            change(entry);
            self.keep(&entries);
        }
    }

    fn keep(&self, entries: &BTreeMap<String, Entry>) {
        if let Err(error) = self.save(entries) {
            tracing::error!(%error, file = %self.path.display(), "which leases are held is not kept over a restart of the agent");
        }
    }

    fn save(&self, entries: &BTreeMap<String, Entry>) -> io::Result<()> {
        let file = File {
            boot_id: self.boot_id.clone(),
            entries: entries.clone(),
        };
        let bytes = serde_json::to_vec(&file)?;
        // What could not be read again would be as good as lost.
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LIMIT {
            return Err(io::Error::other("what is held is more than can be kept"));
        }
        write_whole(&self.path, &bytes)
    }

    // Nothing panics while it is held.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(path: &Path) -> io::Result<Option<File>> {
    match read_own(path, LIMIT) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(tenant: &str) -> Asked {
        Asked {
            tenant: tenant.to_owned(),
            model: String::new(),
            count: 1,
            cpu_cores: None,
            memory_bytes: None,
            uid: 1000,
        }
    }

    #[test]
    fn what_was_asked_and_what_runs_is_known_after_a_restart_and_nothing_runs_after_a_boot() {
        let dir = tempfile::tempdir().unwrap();
        let leased = Arc::<Leased>::default();
        let membership =
            |group: &str| crate::process::cgroup::membership(format!("0::{group}\n").as_bytes());
        let book = Book::open(dir.path(), "b1", Arc::clone(&leased));
        book.ask("one", asked("a")).unwrap();
        book.taken("one", 7, 0);
        book.runs("one", "/x.slice/s.scope", None).unwrap();
        book.answered("one");
        book.ask("two", asked("b")).unwrap();
        // Another lease in the same group: what was there before has ended.
        book.ask("three", asked("c")).unwrap();
        book.taken("three", 9, 0);
        book.runs("three", "/x.slice/s.scope", None).unwrap();
        assert_eq!(
            leased.tenant(&membership("/x.slice/s.scope")).as_deref(),
            Some("c")
        );

        let again = Arc::<Leased>::default();
        let book = Book::open(dir.path(), "b1", Arc::clone(&again));
        let entries: BTreeMap<_, _> = book.entries().into_iter().collect();
        let of = |ask: &str| {
            let entry = &entries[ask];
            (entry.lease, entry.group.as_deref(), entry.waits)
        };
        assert_eq!(of("one"), (Some(7), None, false));
        assert_eq!(of("two"), (None, None, false));
        assert_eq!(of("three"), (Some(9), Some("/x.slice/s.scope"), false));
        assert_eq!(
            again.tenant(&membership("/x.slice/s.scope")).as_deref(),
            Some("c")
        );
        book.ended("three");
        assert_eq!(again.tenant(&membership("/x.slice/s.scope")), None);
        book.forget("one");
        book.runs("two", "/x.slice/t.scope", None).unwrap();

        let booted = Arc::<Leased>::default();
        let book = Book::open(dir.path(), "b2", Arc::clone(&booted));
        assert!(
            book.entries()
                .iter()
                .all(|(_, entry)| entry.group.is_none())
        );
        assert_eq!(book.len(), 2);
        assert_eq!(booted.tenant(&membership("/x.slice/t.scope")), None);
    }

    #[test]
    fn what_cannot_be_written_down_is_not_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(&dir.path().join("none"), "b", Arc::default());
        assert!(book.ask("one", asked("a")).is_err());
        assert!(book.is_empty());
    }
}
