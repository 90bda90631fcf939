//! Readings of NVML in bounded time, whatever NVML does. The agent's side of the worker process.
//!
//! A worker that dies is replaced at once; one that does not come back from a call is ended, and the GPU of that call goes
//! into quarantine: the next worker does not touch it, and a worker of its own probes it until it answers. A worker that
//! cannot even be killed is left behind: one for each GPU, and at most two in calls about no single GPU, then NVML counts as
//! unresponsive until one of them ends.

use std::sync::Arc;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::deafness::Deafness;
use super::event::News;
use super::link::{Link, Reply};
use super::morgue::Morgue;
use super::pci::PciAddress;
use super::place::Places;
use super::quarantine::Quarantine;
use super::reading::{Health, NvmlState, Reading};
use super::renewal::Renewal;
use super::roster::Roster;
use super::unnamed::{Unnamed, unnamed};

mod config;
mod workers;

pub use config::{Collected, SamplerConfig, SamplerStats};

/// Workers that one sample may use up.
const ATTEMPTS: u32 = 4;

/// Samples NVML through a worker process.
#[derive(Debug)]
pub struct Sampler {
    config: SamplerConfig,
    worker: Option<Link>,
    roster: Roster,
    places: Places,
    quarantine: Quarantine,
    morgue: Morgue,
    /// Set while the driver is to be left alone: why.
    quiesced: Option<String>,
    /// Pids of the workers, probes and trials that may still run.
    pids: Vec<u32>,
    /// Set while NVML as a whole fails.
    failing: Option<NvmlState>,
    retry: Backoff,
    lost: Backoff,
    deafness: Deafness,
    renewal: Renewal,
    news: News,
    /// The next worker says which GPU it turns to, because the one before died.
    announce: bool,
    /// Samples have the figures that few ask for.
    more: bool,
    stats: SamplerStats,
    unnamed: Vec<Unnamed>,
}

impl Sampler {
    /// Makes a sampler; the worker is started by the first sample.
    #[must_use]
    pub fn start(config: SamplerConfig) -> Self {
        Self {
            worker: None,
            roster: Roster::default(),
            quarantine: Quarantine::default(),
            morgue: Morgue::default(),
            quiesced: None,
            pids: Vec::new(),
            failing: None,
            retry: Backoff::new(config.retry),
            lost: Backoff::new(config.lost),
            deafness: Deafness::new(config.events),
            renewal: Renewal::new(config.renewal),
            news: News::default(),
            announce: false,
            more: false,
            stats: SamplerStats::default(),
            unnamed: Vec::new(),
            places: Places::new(config.bus.clone()),
            config,
        }
    }

    /// Counters for metrics.
    #[must_use]
    pub fn stats(&self) -> SamplerStats {
        SamplerStats {
            workers_abandoned: self.morgue.stuck(),
            quarantined: self.quarantine.targets().len(),
            library_outdated: self.renewal.outdated(),
            ..self.stats
        }
    }

    /// GPUs that the last reading found and could not name.
    #[must_use]
    pub fn unnamed(&self) -> &[Unnamed] {
        &self.unnamed
    }

    /// Process id of the worker that runs now, if one does.
    #[must_use]
    pub fn worker_pid(&self) -> Option<u32> {
        self.worker.as_ref().and_then(Link::pid)
    }

    /// Whether samples have the figures that few ask for ([`super::gauges::Gauges`]); some more calls a GPU.
    pub fn want_more(&mut self, more: bool) {
        self.more = more;
    }

    /// What the driver told by itself since the last time, and whether it is heard.
    pub fn take_news(&mut self) -> News {
        let next = News {
            state: self.news.state.clone(),
            gpus: Arc::clone(&self.news.gpus),
            ..News::default()
        };
        std::mem::replace(&mut self.news, next)
    }

    /// UUID of the GPU at this address of the PCI bus, of those ever read.
    #[must_use]
    pub fn gpu_at(&self, address: PciAddress) -> Option<&str> {
        self.roster.uuid_at(address)
    }

    /// One sample. Returns within four call deadlines, usually within milliseconds.
    pub async fn sample(&mut self, now_boottime_ms: u64) -> Collected {
        self.morgue.sweep();
        if let Some(why) = &self.quiesced {
            return nothing(NvmlState::Quiesced(why.clone()));
        }
        self.mind_quarantine(now_boottime_ms).await;
        self.mind_library(now_boottime_ms).await;
        if let Some(state) = &self.failing
            && !self.retry.due(now_boottime_ms)
        {
            return nothing(state.clone());
        }
        let begun = Instant::now();
        let end = begun + self.config.call_deadline * 4;
        let mut last = NvmlState::Unresponsive("no time left".to_owned());
        let more = self.more;
        for _ in 0..ATTEMPTS {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(0);
            let reply = match self.worker(now_boottime_ms) {
                Ok(worker) => {
                    worker.more = more;
                    let reply = worker.ask(left).await;
                    let (news, outdated) = (worker.news.take(), worker.outdated.take());
                    if let Some(news) = news {
                        self.news.join(news);
                    }
                    if let Some(what) = outdated {
                        self.renewal.noticed(what);
                    }
                    reply
                }
                Err(state) => return self.fail(state, now_boottime_ms),
            };
            match reply {
                Reply::Reading {
                    reading,
                    unidentified,
                    code,
                    calls,
                } => {
                    self.stats.nvml_calls += calls;
                    self.stats.last_return_code = code.unwrap_or(0);
                    return Collected {
                        asked_boottime_ms: now_boottime_ms.saturating_add(waited_ms),
                        ..self.succeed(reading, unidentified, now_boottime_ms)
                    };
                }
                Reply::Failed { state, code } => {
                    self.stats.last_return_code = code.unwrap_or(999);
                    self.discard(true);
                    return self.fail(state, now_boottime_ms);
                }
                Reply::Hung {
                    call,
                    target: Some(target),
                } => {
                    tracing::warn!(gpu = %target, call, "a call has hung; the GPU goes into quarantine");
                    self.give_up(Some(target.clone()), now_boottime_ms);
                    self.quarantine
                        .add(target, self.config.probe, now_boottime_ms);
                    last = NvmlState::Unresponsive(format!("{call} does not return"));
                }
                Reply::Hung { call, target: None } => {
                    self.give_up(None, now_boottime_ms);
                    return self.fail(
                        NvmlState::Unresponsive(format!("{call} does not return")),
                        now_boottime_ms,
                    );
                }
                Reply::Silent => {
                    self.give_up(None, now_boottime_ms);
                    return self.fail(
                        NvmlState::Unresponsive("the worker process does not answer".to_owned()),
                        now_boottime_ms,
                    );
                }
                Reply::Died { how, at } => {
                    tracing::warn!(how, "the worker process died");
                    // Nothing to blame although it was told to say what it touches: it dies at once.
                    let worker = self.worker.as_ref();
                    let hopeless =
                        worker.is_some_and(|worker| worker.announces && worker.readings == 0);
                    // It listens from its first reading on, so it may have died of that.
                    let listened =
                        worker.is_some_and(|worker| worker.listens && worker.readings > 0);
                    if listened {
                        self.deafness.died(now_boottime_ms);
                    }
                    self.replace();
                    self.announce = true;
                    if let Some(target) = at.filter(|_| !listened) {
                        tracing::warn!(gpu = %target, "the library dies on it; the GPU goes into quarantine");
                        self.quarantine
                            .add(target, self.config.probe, now_boottime_ms);
                    } else if hopeless {
                        return self.fail(
                            NvmlState::Broken(format!("the worker process died: {how}")),
                            now_boottime_ms,
                        );
                    }
                    last = NvmlState::Broken(format!("the worker process died: {how}"));
                }
            }
        }
        self.fail(last, now_boottime_ms)
    }

    /// Ends all workers, probes and trials: by end of input first, so that none is killed inside the driver without need.
    pub async fn shutdown(mut self) {
        self.discard(true);
        self.quarantine.abandon_probes(&mut self.morgue);
        self.renewal.forget(&mut self.morgue);
        self.morgue.empty().await;
    }

    fn succeed(
        &mut self,
        mut reading: Reading,
        unidentified: u32,
        now_boottime_ms: u64,
    ) -> Collected {
        self.places.complete(&mut reading, now_boottime_ms);
        self.failing = None;
        self.retry.reset();
        self.announce = false;
        match self
            .worker
            .as_ref()
            .map(|worker| (worker.listens, worker.readings))
        {
            Some((true, readings)) => self.deafness.lived(readings),
            Some((false, _)) if self.deafness.listens(now_boottime_ms) => self.discard(true),
            Some((false, _)) | None => {}
        }
        let quarantined = self.quarantine.targets();
        let (reading, missing) = self.roster.complete(reading, &quarantined);
        let hung: Vec<_> = quarantined
            .iter()
            .filter(|target| !self.roster.knows(target))
            .collect();
        let strangers = u32::try_from(hung.len()).unwrap_or(u32::MAX);
        let lost = unidentified.saturating_sub(missing);
        self.stats.unidentified = lost.saturating_add(strangers);
        self.unnamed = unnamed(&hung, lost, self.places.silent(&reading));
        if reading.gpus.iter().any(|gpu| gpu.health == Health::Lost)
            || self.stats.unidentified > strangers
        {
            if self.lost.armed() && self.lost.due(now_boottime_ms) {
                self.discard(true);
            }
            if !self.lost.armed() || self.worker.is_none() {
                self.lost.arm(now_boottime_ms);
            }
        } else {
            self.lost.reset();
        }
        Collected {
            nvml: NvmlState::Ok,
            reading: Some(reading),
            asked_boottime_ms: now_boottime_ms,
        }
    }

    fn fail(&mut self, state: NvmlState, now_boottime_ms: u64) -> Collected {
        if self.failing.as_ref() != Some(&state) {
            tracing::warn!(?state, "NVML does not answer");
        }
        self.retry.arm(now_boottime_ms);
        self.failing = Some(state.clone());
        nothing(state)
    }
}

fn nothing(nvml: NvmlState) -> Collected {
    Collected {
        nvml,
        reading: None,
        asked_boottime_ms: 0,
    }
}

#[cfg(test)]
mod tests;
