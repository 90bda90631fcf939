//! What is known of containers, pods and jobs, and what is due to be asked. Pure and bounded.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::observation::Reason;
use crate::process::group::GroupId;
use crate::process::workload::{Container, JobId, PodUid};

/// More containers, pods and jobs than a node has at once; beyond, those not asked for the longest are forgotten.
const CAPACITY: usize = 4096;
/// A job's account may be changed while it runs; containers and pods do not change what counts here.
const JOB_FRESH_MS: u64 = 600_000;
/// What was said of a job counts so long while nobody says it anew, for a scheduler may be away for hours.
const JOB_KEPT_MS: u64 = 4 * 3_600_000;
/// A job that no process was asked about for so long is forgotten, and so long lies between two looks for such.
const JOB_IDLE_MS: u64 = 600_000;
/// Pauses before something unknown is asked again.
const AGAIN_MS: (u64, u64) = (2_000, 60_000);

/// What can be asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Container(Container),
    Pod(PodUid),
    Job(JobKey),
}

/// One life of a job's number on this node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct JobKey {
    pub(super) id: JobId,
    /// The group that slurmd made for it: another cluster, or the same one set up anew, gives the same number again.
    pub(super) group: Option<GroupId>,
    /// The user id that the kernel tells, where nobody else is asked.
    pub(super) uid: Option<u32>,
}

/// What whoever made it says of a container, pod or job. What it does not say is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Name of the user of a job.
    pub user: Option<String>,
    /// That user's id, where this host knows it.
    pub uid: Option<u32>,
    /// Account of a job.
    pub account: Option<String>,
    /// Namespace of a pod.
    pub namespace: Option<String>,
    /// Name of a container.
    pub name: Option<String>,
    /// Those labels that rules name.
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Entry {
    known: Option<Arc<Facts>>,
    /// When that was said.
    known_ms: u64,
    failed: Option<Reason>,
    asking: bool,
    due_ms: u64,
    failures: u32,
    /// Number and time of the newest question for it.
    used: u64,
    used_ms: u64,
}

/// What the cache says at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) answer: Result<Arc<Facts>, Reason>,
    /// Somebody must be asked now.
    pub(super) due: bool,
}

#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Key, Entry>,
    questions: u64,
    /// When jobs that nobody asks about are looked for again.
    tidy_ms: u64,
}

impl Cache {
    pub(super) fn ask(&mut self, key: &Key, now_ms: u64) -> Said {
        self.questions += 1;
        self.tidy(now_ms);
        if !self.entries.contains_key(key) {
            self.make_room();
        }
        let used = self.questions;
        let entry = self.entries.entry(key.clone()).or_insert_with(|| Entry {
            known: None,
            known_ms: 0,
            failed: None,
            asking: false,
            due_ms: now_ms,
            failures: 0,
            used,
            used_ms: now_ms,
        });
        (entry.used, entry.used_ms) = (used, now_ms);
        let is_job = matches!(key, Key::Job(_));
        if is_job && now_ms.saturating_sub(entry.known_ms) > JOB_KEPT_MS {
            entry.known = None;
        }
        let due = !entry.asking && now_ms >= entry.due_ms;
        entry.asking |= due;
        let unknown = entry.failed.unwrap_or(Reason::Pending);
        Said {
            answer: entry.known.clone().ok_or(unknown),
            due,
        }
    }

    /// Takes in an answer. One that was known before stays known, that of a job for hours: a job that has ended may have
    /// processes yet.
    pub(super) fn settle(&mut self, key: &Key, answer: Result<Facts, Reason>, now_ms: u64) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.asking = false;
        match answer {
            Ok(facts) => {
                entry.known = Some(Arc::new(facts));
                entry.known_ms = now_ms;
                entry.failed = None;
                entry.failures = 0;
                entry.due_ms = match key {
                    Key::Job(_) => now_ms.saturating_add(JOB_FRESH_MS),
                    Key::Container(_) | Key::Pod(_) => u64::MAX,
                };
            }
            Err(reason) => {
                entry.failed = Some(reason);
                let pause = AGAIN_MS.0 << entry.failures.min(5);
                entry.failures = entry.failures.saturating_add(1);
                entry.due_ms = now_ms.saturating_add(pause.min(AGAIN_MS.1));
            }
        }
    }

    /// It could not be asked: there was no room among what waits to be asked.
    pub(super) fn put_off(&mut self, key: &Key) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.asking = false;
        }
    }

    /// Whether something was asked and has no answer yet.
    pub(super) fn waits(&self) -> bool {
        self.entries.values().any(|entry| entry.asking)
    }

    fn tidy(&mut self, now_ms: u64) {
        if now_ms < self.tidy_ms {
            return;
        }
        self.tidy_ms = now_ms.saturating_add(JOB_IDLE_MS);
        self.entries.retain(|key, entry| {
            let idle = now_ms.saturating_sub(entry.used_ms) > JOB_IDLE_MS;
            entry.asking || !idle || !matches!(key, Key::Job(_))
        });
    }

    fn make_room(&mut self) {
        if self.entries.len() < CAPACITY {
            return;
        }
        let idle = self.entries.iter().filter(|(_, entry)| !entry.asking);
        let oldest = idle
            .min_by_key(|(_, entry)| entry.used)
            .map(|(key, _)| key.clone());
        if let Some(oldest) = oldest {
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::workload::workload;

    fn pod(number: u64) -> Key {
        let text = format!("0::/kubepods/pod{number:032x}\n");
        Key::Pod(workload(text.as_bytes()).pod.unwrap())
    }

    fn job() -> Key {
        job_in(None)
    }

    fn job_in(group: Option<GroupId>) -> Key {
        let job = workload(b"0::/slurm/uid_1/job_7\n").job.unwrap();
        let (id, uid) = (job.id, job.uid);
        Key::Job(JobKey { id, group, uid })
    }

    fn said(cache: &mut Cache, key: &Key, now_ms: u64) -> (Option<Reason>, bool) {
        let said = cache.ask(key, now_ms);
        (said.answer.err(), said.due)
    }

    #[test]
    fn it_is_asked_once_then_after_pauses_and_a_known_answer_stays() {
        let (mut cache, key) = (Cache::default(), job());
        assert_eq!(said(&mut cache, &key, 0), (Some(Reason::Pending), true));
        assert_eq!(
            said(&mut cache, &key, 99_999),
            (Some(Reason::Pending), false)
        );
        assert!(cache.waits());
        for (pause, before) in [(2_000, 0), (4_000, 10_000), (8_000, 20_000)] {
            cache.settle(&key, Err(Reason::JobUnknown), before);
            assert!(!cache.waits());
            let unknown = Some(Reason::JobUnknown);
            assert_eq!(said(&mut cache, &key, before + pause - 1), (unknown, false));
            assert_eq!(said(&mut cache, &key, before + pause), (unknown, true));
        }
        cache.settle(&key, Ok(Facts::default()), 50_000);
        for now_ms in [300_000, 649_999] {
            assert_eq!(said(&mut cache, &key, now_ms), (None, false));
        }
        assert_eq!(said(&mut cache, &key, 650_000), (None, true));
        cache.settle(&key, Err(Reason::JobUnknown), 650_000);
        assert_eq!(said(&mut cache, &key, 650_001), (None, false));
        let once = pod(1);
        cache.ask(&once, 0);
        cache.settle(&once, Ok(Facts::default()), 0);
        assert_eq!(said(&mut cache, &once, u64::MAX - 1), (None, false));
    }

    /// A number that is given again is another job's.
    #[test]
    fn rule_08_what_was_said_of_a_job_counts_for_its_group_and_for_hours() {
        let mut cache = Cache::default();
        let [first, second] = [1, 2].map(|inode| job_in(Some(GroupId::of_test(inode))));
        let pending = (Some(Reason::Pending), true);
        assert_eq!(said(&mut cache, &first, 0), pending);
        cache.settle(&first, Ok(Facts::default()), 0);
        assert_eq!(said(&mut cache, &second, 1), pending);
        assert_eq!(said(&mut cache, &first, 1), (None, false));
        // Slurm is away: what it said counts for hours, and not for ever.
        let mut now_ms = 0;
        while said(&mut cache, &first, now_ms).0.is_none() {
            cache.settle(&first, Err(Reason::RuntimeUnreachable), now_ms);
            now_ms += 60_000;
            assert!(now_ms <= 2 * JOB_KEPT_MS);
        }
        assert_eq!(now_ms, JOB_KEPT_MS + 60_000);
        let unreachable = Some(Reason::RuntimeUnreachable);
        assert_eq!(said(&mut cache, &first, now_ms).0, unreachable);
        // The second job waits for its answer; the first is forgotten once nobody asks about it.
        cache.settle(&first, Err(Reason::RuntimeUnreachable), now_ms);
        said(&mut cache, &pod(1), now_ms + 2 * JOB_IDLE_MS);
        assert_eq!(cache.entries.len(), 2);
        cache.settle(&second, Ok(Facts::default()), now_ms);
        cache.settle(&pod(1), Ok(Facts::default()), now_ms);
        said(&mut cache, &pod(2), now_ms + 4 * JOB_IDLE_MS);
        assert_eq!(cache.entries.len(), 2, "two pods");
    }

    #[test]
    fn a_flood_of_containers_is_bounded_and_does_not_push_out_what_is_used() {
        let mut cache = Cache::default();
        let used = pod(0);
        for number in 0..20_000 {
            let key = pod(number);
            cache.ask(&key, 0);
            cache.settle(&key, Ok(Facts::default()), 0);
            assert_eq!(cache.ask(&used, 0).answer.err(), None);
        }
        assert_eq!(cache.entries.len(), CAPACITY);
    }
}
