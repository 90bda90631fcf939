//! Which worker processes there are: started, put aside, replaced.

use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tokio::time::Instant;

use super::Sampler;
use crate::gpu::event::{Ears, EventsState};
use crate::gpu::library::check_library;
use crate::gpu::link::{Link, Start};
use crate::gpu::protocol::Target;
use crate::gpu::reading::NvmlState;

/// Workers that may be stuck at a time in calls that are about no single GPU. Beside them each GPU may hold one.
const STUCK_LIMIT: usize = 2;
/// How often it is looked whether all have ended.
const LOOK: Duration = Duration::from_millis(10);

impl Sampler {
    pub(super) fn worker(&mut self, now_ms: u64) -> Result<&mut Link, NvmlState> {
        if self
            .worker
            .as_ref()
            .is_some_and(|worker| worker.out_of_step)
        {
            self.discard(true);
        }
        if self.worker.is_none() {
            let stuck = self.morgue.stuck_on_none();
            if stuck >= STUCK_LIMIT {
                return Err(NvmlState::Unresponsive(format!(
                    "{stuck} worker processes are stuck in the driver"
                )));
            }
            let start = self.next_start(now_ms)?;
            self.deaf();
            self.renewal.forget(&mut self.morgue);
            let link = Link::start(&start).map_err(|error| {
                NvmlState::Broken(format!("{}: {error}", start.program.display()))
            })?;
            self.started(link.pid());
            self.worker = Some(link);
        }
        self.worker
            .as_mut()
            .ok_or_else(|| NvmlState::Broken("no worker process".to_owned()))
    }

    /// Ends every worker, probe and trial, and starts none until [`Self::resume`]. Returns the pids of those that are still there
    /// after `within`: the driver does not let go of them.
    pub async fn quiesce(&mut self, why: String, within: Duration) -> Vec<u32> {
        let end = Instant::now() + within;
        self.quiesced = Some(why);
        self.discard(true);
        self.quarantine.abandon_probes(&mut self.morgue);
        self.renewal.forget(&mut self.morgue);
        self.deaf();
        loop {
            self.morgue.sweep();
            self.pids.retain(|pid| is_own_and_lives(*pid));
            if self.pids.is_empty() || Instant::now() >= end {
                return self.pids.clone();
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Reads again with the next sample.
    pub fn resume(&mut self) {
        self.quiesced = None;
        self.failing = None;
        self.retry.reset();
    }

    /// No worker listens.
    fn deaf(&mut self) {
        self.news.state = EventsState::Off;
        self.news.gpus = Ears::default();
    }

    fn started(&mut self, pid: Option<u32>) {
        self.stats.workers_started += 1;
        self.pids.retain(|pid| is_own_and_lives(*pid));
        self.pids.extend(pid);
    }

    /// How the next worker is started.
    fn next_start(&self, now_ms: u64) -> Result<Start, NvmlState> {
        let quarantined = self.quarantine.targets();
        let mut start = self.bare_start()?;
        start.announce = self.announce;
        start.events = self.deafness.listens(now_ms);
        if !quarantined.is_empty() {
            start.only = self.roster.others(&quarantined);
            if start.only.is_empty() {
                start.exclude = quarantined;
            }
        }
        Ok(start)
    }

    /// The library is checked anew each time: it may be another file by now.
    fn bare_start(&self) -> Result<Start, NvmlState> {
        let library = self.config.nvml_library.as_deref().map(check_library);
        let nvml_library = library.transpose().map_err(|refused| {
            let text = refused.to_string();
            if refused.is_absence() {
                NvmlState::Absent(text)
            } else {
                NvmlState::Broken(text)
            }
        })?;
        Ok(Start {
            program: self.config.program.clone(),
            nvml_library,
            proc_root: self.config.proc_root.clone(),
            call_deadline: self.config.call_deadline,
            only: Vec::new(),
            exclude: Vec::new(),
            announce: false,
            events: false,
            leaf: self.config.leaf.clone(),
        })
    }

    /// Gives a GPU back that answers again, and probes those whose time has come.
    pub(super) async fn mind_quarantine(&mut self, now_boottime_ms: u64) {
        let outcome = self
            .quarantine
            .settle(&mut self.morgue, now_boottime_ms)
            .await;
        if outcome.gave_back {
            self.discard(true);
        }
        // While a worker is stuck in the driver, its end is the sign that the driver woke up; another would only join it.
        if self.morgue.stuck_on_none() == 0
            && let Ok(start) = self.bare_start()
        {
            let occupied = self.morgue.occupied();
            for pid in self.quarantine.probe(&start, &occupied, now_boottime_ms) {
                self.started(Some(pid));
            }
        }
    }

    /// Puts a worker with the library on disk in the place of one with another, once it has proved itself.
    pub(super) async fn mind_library(&mut self, now_ms: u64) {
        if !self.renewal.outdated() {
            return;
        }
        let quarantined = self.quarantine.targets();
        let renewed = self.renewal.settle(&quarantined, &mut self.morgue, now_ms);
        if let Some(link) = renewed.await {
            tracing::info!("a worker with the new NVML library takes over");
            self.discard(true);
            self.renewal.forget(&mut self.morgue);
            self.stats.library_changes += 1;
            self.worker = Some(link);
        } else if self.renewal.due(now_ms)
            && self.morgue.stuck_on_none() == 0
            && let Ok(start) = self.next_start(now_ms)
        {
            let pid = self.renewal.try_it(&start, quarantined, now_ms);
            self.started(pid);
        }
    }

    /// Ends a worker that is stuck. `on`: the GPU of its call, if it is about one.
    pub(super) fn give_up(&mut self, on: Option<Target>, now_boottime_ms: u64) {
        if matches!(self.news.state, EventsState::Hung { .. }) {
            self.deafness.hung(now_boottime_ms);
        }
        self.stats.workers_restarted += 1;
        self.put_aside(false, on);
    }

    /// Ends a worker that failed.
    pub(super) fn replace(&mut self) {
        self.stats.workers_restarted += 1;
        self.discard(false);
    }

    pub(super) fn discard(&mut self, gently: bool) {
        self.put_aside(gently, None);
    }

    fn put_aside(&mut self, gently: bool, on: Option<Target>) {
        if let Some(worker) = self.worker.take() {
            self.morgue.take(worker, gently, on);
        }
    }
}

/// Whether a child of this process with this pid may have something open. The kernel says that a child has ended only when its last
/// thread has: one whose first thread is a zombie while another hangs in the driver has all its descriptors still open.
fn is_own_and_lives(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    // Left to be waited for by whoever holds it.
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::Pid(pid), ended) {
        Ok(status) => status.is_none(),
        Err(Errno::CHILD) => false,
        Err(_) => true,
    }
}
