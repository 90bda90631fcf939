//! What is known of containers, pods and jobs, and what is due to be asked. Pure and bounded.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::observation::Reason;
use crate::process::workload::{Container, JobId, PodUid};

/// More containers, pods and jobs than a node has at once; beyond, those not asked for the longest are forgotten.
const CAPACITY: usize = 4096;
/// A job's account may be changed while it runs; containers and pods do not change what counts here.
const JOB_FRESH_MS: u64 = 600_000;
/// Pauses before something unknown is asked again.
const AGAIN_MS: (u64, u64) = (2_000, 60_000);

/// What can be asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Container(Container),
    Pod(PodUid),
    /// With the user id that the kernel tells, where nobody else is asked.
    Job(JobId, Option<u32>),
}

/// What whoever made it says of a container, pod or job. What it does not say is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Name of the user of a job.
    pub user: Option<String>,
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
    failed: Option<Reason>,
    asking: bool,
    due_ms: u64,
    failures: u32,
    /// Number of the newest question for it.
    used: u64,
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
}

impl Cache {
    pub(super) fn ask(&mut self, key: &Key, now_ms: u64) -> Said {
        self.questions += 1;
        if !self.entries.contains_key(key) {
            self.make_room();
        }
        let used = self.questions;
        let entry = self.entries.entry(key.clone()).or_insert_with(|| Entry {
            known: None,
            failed: None,
            asking: false,
            due_ms: now_ms,
            failures: 0,
            used,
        });
        entry.used = used;
        let due = !entry.asking && now_ms >= entry.due_ms;
        entry.asking |= due;
        let unknown = entry.failed.unwrap_or(Reason::Pending);
        Said {
            answer: entry.known.clone().ok_or(unknown),
            due,
        }
    }

    /// Takes in an answer. One that was known before stays known: a job that has ended may have processes yet.
    pub(super) fn settle(&mut self, key: &Key, answer: Result<Facts, Reason>, now_ms: u64) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.asking = false;
        match answer {
            Ok(facts) => {
                entry.known = Some(Arc::new(facts));
                entry.failed = None;
                entry.failures = 0;
                entry.due_ms = match key {
                    Key::Job(..) => now_ms.saturating_add(JOB_FRESH_MS),
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
        let job = workload(b"0::/slurm/uid_1/job_7\n").job.unwrap();
        Key::Job(job.id, job.uid)
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
        assert_eq!(said(&mut cache, &key, 649_999), (None, false));
        assert_eq!(said(&mut cache, &key, 650_000), (None, true));
        cache.settle(&key, Err(Reason::JobUnknown), 650_000);
        assert_eq!(said(&mut cache, &key, 650_001), (None, false));
        let once = pod(1);
        cache.ask(&once, 0);
        cache.settle(&once, Ok(Facts::default()), 0);
        assert_eq!(said(&mut cache, &once, u64::MAX - 1), (None, false));
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
