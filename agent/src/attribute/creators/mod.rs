//! Asking whoever made a container, pod or job whose it is, off the path of sampling.
//!
//! A question is answered at once with what is known; what is not known is asked in the background, one question after the
//! other for each socket, each with a deadline, and a later look finds the answer. Until then the process is nobody's, with
//! the reason. Only root, or the agent's own user, is believed at the other end of a socket.

mod cache;
mod config;
mod cri;
mod engine;
mod granted;
mod kubelet;
mod slurm;
mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

pub use cache::Facts;
use cache::{Cache, JobKey, Key};
pub use config::{CreatorsConfig, KubeletTable, RuntimeTable, SlurmTable};
pub use granted::{Granted, PodPlace, granted};

use super::rule::Made;
use crate::clock::boottime_ms;
use crate::observation::Reason;
use crate::process::workload::{Container, Job, PodUid, Runtime};

/// Questions that wait for one creator; what is beyond is asked at a later look.
const QUEUE: usize = 256;
/// Longest label that is kept, bytes.
const LABEL_LIMIT: usize = 1024;

/// Times of asking, which tests shorten.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A request to a socket that takes longer has failed.
    pub request: Duration,
    /// A command that takes longer is ended.
    pub command: Duration,
    /// First and longest pause after a creator could not be reached.
    pub pause: (Duration, Duration),
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(2),
            command: Duration::from_secs(5),
            pause: (Duration::from_secs(1), Duration::from_secs(60)),
        }
    }
}

/// What is known at once of a job, pod or container; `None` when nobody is configured who could know.
pub type Known = Option<Result<Arc<Facts>, Reason>>;

/// Who can be asked, as the rules see it.
pub trait Creators {
    /// User and account of a job. `real_uid` is that of one of its processes; unless it, or the user in the job's path, is the
    /// job's own user, the answer is about another job of the same number, or the process is another user's.
    fn job(&self, job: &Job, real_uid: u32) -> Known;
    /// Namespace and labels of a pod.
    fn pod(&self, pod: &PodUid) -> Known;
    /// Name and labels of a container.
    fn container(&self, container: &Container) -> Known;
}

/// Asks in the background.
#[derive(Debug)]
pub(super) struct Resolver {
    shared: Arc<Shared>,
    docker: Option<Line>,
    podman: Option<Line>,
    cri: Option<Line>,
    cri_labels: bool,
    kubelet: Option<Line>,
    slurm: Option<Line>,
    slurm_answers: bool,
}

#[derive(Debug, Default)]
struct Shared {
    cache: Mutex<Cache>,
    /// CLOCK_BOOTTIME of the present look, milliseconds.
    now_ms: AtomicU64,
}

impl Shared {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to one creator.
#[derive(Debug)]
struct Line {
    questions: mpsc::Sender<Key>,
    silent: Arc<AtomicBool>,
    _task: AbortOnDropHandle<()>,
}

/// One who can be asked.
trait Creator: Send + 'static {
    /// For the log.
    const NAME: &'static str;
    /// `RuntimeUnreachable` when it does not answer as it should, another reason when it does not know.
    fn tell(&mut self, key: &Key) -> impl Future<Output = Result<Facts, Reason>> + Send;
}

impl Resolver {
    /// Nobody is asked before a rule wants to know. `labels` are the keys that rules name; no others are kept.
    ///
    /// Must be called within a Tokio runtime when any creator is configured and a rule needs one.
    pub(super) fn new(config: &CreatorsConfig, wanted: &[Made], patience: Patience) -> Self {
        let labels: Arc<BTreeSet<String>> = Arc::new(
            wanted
                .iter()
                .filter_map(|made| match made {
                    Made::PodLabel(key) | Made::ContainerLabel(key) => Some(key.clone()),
                    _ => None,
                })
                .collect(),
        );
        let wants = |test: fn(&Made) -> bool| wanted.iter().any(test);
        let of_containers =
            wants(|made| matches!(made, Made::ContainerName | Made::ContainerLabel(_)));
        let of_pods = wants(|made| matches!(made, Made::PodNamespace | Made::PodLabel(_)));
        let of_jobs = wants(|made| matches!(made, Made::SlurmUser | Made::SlurmAccount));
        let shared = Arc::<Shared>::default();
        let engine = |table: &RuntimeTable| {
            let trusted = of_containers && table.trust_labels;
            let socket = table.socket.clone().filter(|_| trusted)?;
            let engine = engine::Engine::new(socket, Arc::clone(&labels), patience);
            Some(Line::start(engine, &shared, patience))
        };
        let cri = config.cri.socket.clone();
        let cri = cri.filter(|_| of_pods || of_containers && config.cri.trust_labels);
        let kubelet = config.kubelet.pod_resources.clone();
        let kubelet = kubelet.filter(|_| of_pods && cri.is_none());
        Self {
            docker: engine(&config.docker),
            podman: engine(&config.podman),
            cri: cri.map(|socket| {
                let cri = cri::Cri::new(socket, Arc::clone(&labels), patience);
                Line::start(cri, &shared, patience)
            }),
            cri_labels: config.cri.trust_labels,
            kubelet: kubelet.map(|socket| {
                let pod_logs = config.kubelet.pod_logs.clone();
                Line::start(
                    kubelet::Kubelet::new(socket, pod_logs, patience),
                    &shared,
                    patience,
                )
            }),
            slurm: of_jobs.then(|| {
                let slurm = slurm::Slurm::new(config.slurm.job_command.clone(), patience);
                Line::start(slurm, &shared, patience)
            }),
            slurm_answers: !config.slurm.job_command.is_empty(),
            shared,
        }
    }

    /// Begins a look at this CLOCK_BOOTTIME.
    pub(super) fn look(&self, now_ms: u64) {
        self.shared.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Waits until nothing is asked any more, but not longer than this. Whether anything was.
    pub(super) async fn settled(&self, longest: Duration) -> bool {
        let asked = self.shared.cache().waits();
        let quiet = async {
            while self.shared.cache().waits() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(longest, quiet).await;
        asked
    }

    fn ask(&self, line: Option<&Line>, key: &Key) -> Known {
        let line = line?;
        let mut cache = self.shared.cache();
        let said = cache.ask(key, self.shared.now_ms.load(Ordering::Relaxed));
        if said.due && line.questions.try_send(key.clone()).is_err() {
            cache.put_off(key);
        }
        Some(said.answer.map_err(|reason| match reason {
            Reason::Pending if line.silent.load(Ordering::Relaxed) => Reason::RuntimeUnreachable,
            reason => reason,
        }))
    }
}

impl Creators for Resolver {
    fn job(&self, job: &Job, real_uid: u32) -> Known {
        let told = job.uid.unwrap_or(real_uid);
        let key = JobKey {
            id: job.id.clone(),
            group: job.group,
            uid: (!self.slurm_answers).then_some(told),
        };
        let known = self.ask(self.slurm.as_ref(), &Key::Job(key))?;
        Some(known.and_then(|facts| match facts.uid {
            Some(uid) if uid != told => Err(Reason::JobContradicts),
            _ => Ok(facts),
        }))
    }

    fn pod(&self, pod: &PodUid) -> Known {
        let line = self.cri.as_ref().or(self.kubelet.as_ref());
        self.ask(line, &Key::Pod(pod.clone()))
    }

    fn container(&self, container: &Container) -> Known {
        let line = match container.runtime {
            Runtime::Docker => self.docker.as_ref(),
            Runtime::Podman => self.podman.as_ref(),
            Runtime::Cri => self.cri.as_ref().filter(|_| self.cri_labels),
        };
        self.ask(line, &Key::Container(container.clone()))
    }
}

impl Line {
    fn start<C: Creator>(mut creator: C, shared: &Arc<Shared>, patience: Patience) -> Self {
        let (questions, mut waiting) = mpsc::channel::<Key>(QUEUE);
        let silent = Arc::<AtomicBool>::default();
        let (shared, told) = (Arc::clone(shared), Arc::clone(&silent));
        let task = tokio::spawn(async move {
            let mut pause = patience.pause.0;
            while let Some(key) = waiting.recv().await {
                let answer = creator.tell(&key).await;
                let unreachable = answer.as_ref().err() == Some(&Reason::RuntimeUnreachable);
                shared.cache().settle(&key, answer, boottime_ms());
                if told.swap(unreachable, Ordering::Relaxed) != unreachable {
                    if unreachable {
                        tracing::warn!(
                            creator = C::NAME,
                            "does not answer; whose its processes are is not known"
                        );
                    } else {
                        tracing::info!(creator = C::NAME, "answers again");
                    }
                }
                if unreachable {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(patience.pause.1);
                } else {
                    pause = patience.pause.0;
                }
            }
        });
        Self {
            questions,
            silent,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

/// Those of the labels that rules name; one too long to be a tenant's name or a part of it is none.
fn labels_wanted(
    labels: impl IntoIterator<Item = (String, String)>,
    wanted: &BTreeSet<String>,
) -> BTreeMap<String, String> {
    let counts =
        |(key, value): &(String, String)| wanted.contains(key) && value.len() <= LABEL_LIMIT;
    labels.into_iter().filter(counts).collect()
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

/// Nobody can be asked.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Nobody;

#[cfg(test)]
impl Creators for Nobody {
    fn job(&self, _: &Job, _: u32) -> Known {
        None
    }

    fn pod(&self, _: &PodUid) -> Known {
        None
    }

    fn container(&self, _: &Container) -> Known {
        None
    }
}
