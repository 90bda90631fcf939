//! Keeps the ledger: takes what the worker heard and what the kernel log says, once a pass.

use std::path::Path;
use std::sync::Arc;

use crate::gpu::event::{Ears, EventsState, Happening};
use crate::gpu::sampler::Sampler;
use crate::observation::Observation;

use super::kmsg::{KernelLog, LogState};
use super::ledger::{Ledger, Now};

/// Between two tries to open a kernel log that is not there, milliseconds.
const REOPEN_MS: u64 = 60_000;

/// What scrapes see.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// All counts.
    pub ledger: Arc<Ledger>,
    /// Whether the driver's events are heard.
    pub events: EventsState,
    /// Whose are.
    pub ears: Ears,
    /// Whether the kernel log is read.
    pub log: LogState,
    /// Times that the kernel log went round before it was read.
    pub overruns: u64,
}

/// The keeper.
#[derive(Debug)]
pub struct Sentinel {
    log: Option<KernelLog>,
    reopen_ms: u64,
    shown: Shown,
}

impl Sentinel {
    /// `kernel_log`: usually `/dev/kmsg`; `None`: none is read.
    #[must_use]
    pub fn start(kernel_log: Option<&Path>) -> Self {
        let log = kernel_log.map(KernelLog::follow);
        if let Some(log) = &log
            && log.state() != LogState::Following
        {
            let state = log.state().name();
            tracing::info!(
                state,
                "the kernel log is not read: losses of GPUs that carry no event show in the next reading only"
            );
        }
        Self {
            log,
            reopen_ms: 0,
            shown: Shown::default(),
        }
    }

    /// Takes what is new. `before`: who held what before this pass.
    pub fn pass(&mut self, sampler: &mut Sampler, before: Option<&Observation>, now: Now) -> Shown {
        if self.shown.ledger.is_undecided()
            && let Some(after) = before
        {
            Arc::make_mut(&mut self.shown.ledger).decide(after, now);
        }
        let news = sampler.take_news();
        if news.state != self.shown.events {
            tracing::info!(state = ?news.state, "events of the driver");
            self.shown.events = news.state;
        }
        if news.gpus != self.shown.ears {
            tracing::info!(gpus = ?news.gpus, "events of single GPUs");
            self.shown.ears = news.gpus;
        }
        if !news.events.is_empty() || news.dropped > 0 {
            let ledger = Arc::make_mut(&mut self.shown.ledger);
            ledger.drop(news.dropped);
            for event in &news.events {
                if event.what == Happening::MigChange {
                    tracing::info!(
                        gpu.uuid = event.uuid,
                        "the driver reports another MIG layout"
                    );
                }
                ledger.heard(event, before, now);
            }
        }
        if let Some(log) = &mut self.log {
            if log.state() != LogState::Following && now.boottime_ms >= self.reopen_ms {
                self.reopen_ms = now.boottime_ms.saturating_add(REOPEN_MS);
                log.reopen();
            }
            let ledger = &mut self.shown.ledger;
            log.read(|trouble| {
                Arc::make_mut(ledger).read(&trouble, sampler.gpu_at(trouble.gpu), before, now);
            });
            self.shown.log = log.state();
            self.shown.overruns = log.overruns();
        }
        self.shown.clone()
    }
}
