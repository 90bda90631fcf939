//! What a scrape sees: the newest observation and the counters around it, left here by the sampling loop.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::act::{ActFigures, Acts};
use crate::attribute::{Granted, NamedId};
use crate::events::sentinel::Shown;
use crate::exec::figures::{Figures, RESULTS};
use crate::gpu::reading::NvmlState;
use crate::gpu::sampler::SamplerStats;
use crate::gpu::unnamed::Unnamed;
use crate::observation::Observation;
use crate::openers::keeper::Opened;
use crate::uplink::dialogue::{Dialogue, DialogueFigures};
use crate::uplink::outbox::{Outbox, SpoolFigures};
use crate::uplink::status::UplinkStatus;

/// Intervals after which the newest good reading is no longer shown.
const STALE_INTERVALS: u32 = 3;

/// After a scrape for it, readings have the figures that few ask for this long.
const MORE_FOR_MS: u64 = 300_000;

/// Beyond this age what the kubelet said is not shown.
const GRANTED_FRESH: Duration = Duration::from_secs(30);

/// One pass of the loop.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// Everything seen; `None` before the first pass.
    pub observation: Option<Arc<Observation>>,
    /// CLOCK_BOOTTIME of the newest reading that NVML answered, milliseconds.
    pub good_at_boottime_ms: Option<u64>,
    /// CLOCK_BOOTTIME at the end of this pass, milliseconds.
    pub ended_boottime_ms: u64,
    /// Counters of the worker process.
    pub sampler: SamplerStats,
    /// GPUs that the newest good reading found and could not name.
    pub unnamed: Vec<Unnamed>,
    /// What went wrong since the start, and whether anybody listens.
    pub trouble: Shown,
    /// Who has device nodes open, while NVML cannot be asked.
    pub open_nodes: Arc<Opened>,
    /// Users and groups of attribution rules whose ids are not known.
    pub unresolved: Arc<BTreeSet<NamedId>>,
}

/// Where the loop leaves a pass and scrapes find it. A scrape never waits for NVML, the disk or the server.
#[derive(Debug)]
pub struct Board {
    pass: Mutex<Pass>,
    interval: Duration,
    pass_deadline: Duration,
    reporting: Option<Ways>,
    /// CLOCK_BOOTTIME until which somebody wants more, milliseconds.
    more_until_ms: AtomicU64,
    /// Which pod was given which device, and when the kubelet said so.
    granted: Mutex<Option<(u64, Arc<Granted>)>>,
}

/// A pass with what was true at the moment of the scrape.
#[derive(Clone, Debug)]
pub struct View {
    /// The newest pass.
    pub pass: Pass,
    /// Which pod was given which device, while that is fresh.
    pub granted: Option<Arc<Granted>>,
    /// Age of the newest good reading.
    pub age: Option<Duration>,
    /// The newest reading is good, and young enough to be shown as true.
    pub fresh: bool,
    /// The loop is going round.
    pub alive: bool,
    /// What the uplink and the spool say; `None` when standalone.
    pub reporting: Option<Reporting>,
}

/// Where the figures of the way to the server are.
#[derive(Clone, Debug)]
pub struct Ways {
    /// Reports.
    pub outbox: Arc<Outbox>,
    /// Policies and steps.
    pub dialogue: Arc<Dialogue>,
    /// What was done about holders that are not justified.
    pub acts: Arc<Acts>,
    /// Commands under leases.
    pub exec: Arc<Figures>,
    /// The stream.
    pub status: Arc<UplinkStatus>,
}

/// State of the way to the server.
#[derive(Clone, Debug)]
pub struct Reporting {
    /// A session is up.
    pub connected: bool,
    /// Sessions after the first one.
    pub reconnects: u64,
    /// End of the certificate in use, seconds since 1970.
    pub certificate_not_after_unix_s: Option<i64>,
    /// The spool.
    pub spool: SpoolFigures,
    /// Policies and steps.
    pub dialogue: DialogueFigures,
    /// What was done.
    pub acts: ActFigures,
    /// Commands under leases: askings by result, and leases that are held.
    pub exec: ([u64; RESULTS.len()], u64),
}

impl Board {
    /// An empty one. A pass may take `pass_deadline` beyond the interval before the loop counts as stuck.
    #[must_use]
    pub fn new(interval: Duration, pass_deadline: Duration, reporting: Option<Ways>) -> Self {
        Self {
            pass: Mutex::default(),
            interval,
            pass_deadline,
            reporting,
            more_until_ms: AtomicU64::new(0),
            granted: Mutex::default(),
        }
    }

    /// Somebody scrapes figures that are not read for nobody.
    pub fn wants_more(&self, now_boottime_ms: u64) {
        let until = now_boottime_ms.saturating_add(MORE_FOR_MS);
        self.more_until_ms.fetch_max(until, Ordering::Relaxed);
    }

    /// Whether somebody did in the last minutes.
    #[must_use]
    pub fn more_wanted(&self, now_boottime_ms: u64) -> bool {
        now_boottime_ms < self.more_until_ms.load(Ordering::Relaxed)
    }

    /// Replaces what scrapes see.
    pub fn post(&self, pass: Pass) {
        *self.pass.lock().unwrap_or_else(PoisonError::into_inner) = pass;
    }

    /// What the kubelet says of devices at this CLOCK_BOOTTIME.
    pub fn post_granted(&self, granted: Granted, now_boottime_ms: u64) {
        let new = Some((now_boottime_ms, Arc::new(granted)));
        *self.granted.lock().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// What a scrape at this moment sees.
    #[must_use]
    pub fn view(&self, now_boottime_ms: u64) -> View {
        let pass = self
            .pass
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |at: u64| Duration::from_millis(now_boottime_ms.saturating_sub(at));
        let age = pass.good_at_boottime_ms.map(since);
        let newest = pass.observation.as_deref();
        let good = newest.is_some_and(|observation| observation.nvml == NvmlState::Ok);
        View {
            granted: granted
                .as_ref()
                .filter(|(at, _)| since(*at) <= GRANTED_FRESH)
                .map(|(_, granted)| Arc::clone(granted)),
            age,
            fresh: good && age.is_some_and(|age| age <= self.interval * STALE_INTERVALS),
            alive: pass.observation.is_some()
                && since(pass.ended_boottime_ms)
                    <= self.interval * STALE_INTERVALS + self.pass_deadline,
            reporting: self.reporting.as_ref().map(|ways| Reporting {
                connected: ways.status.connected(),
                reconnects: ways.status.reconnects(),
                certificate_not_after_unix_s: ways.status.certificate_not_after_unix_s(),
                spool: ways.outbox.figures(),
                dialogue: ways.dialogue.figures(now_boottime_ms),
                acts: ways.acts.figures(),
                exec: (ways.exec.answered(), ways.exec.held()),
            }),
            pass,
        }
    }
}
