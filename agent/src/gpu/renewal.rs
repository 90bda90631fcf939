//! Changing over to a library that was replaced on disk. The worker that runs has the old one loaded, which goes on working with
//! the driver that is loaded; it is given up only when a worker with the new one has given a reading.

use std::time::Duration;

use super::backoff::Backoff;
use super::errand::{Errand, Outcome};
use super::link::{Link, Start};
use super::morgue::Morgue;
use super::protocol::Target;

#[derive(Debug)]
pub(super) struct Renewal {
    /// What is different on disk.
    why: Option<String>,
    pause: Backoff,
    trial: Option<Trial>,
}

#[derive(Debug)]
struct Trial {
    errand: Errand,
    /// The quarantine that it was started with.
    quarantined: Vec<Target>,
}

impl Renewal {
    pub(super) fn new(pauses: (Duration, Duration)) -> Self {
        Self {
            why: None,
            pause: Backoff::new(pauses),
            trial: None,
        }
    }

    /// Another library lies on disk than runs.
    pub(super) fn outdated(&self) -> bool {
        self.why.is_some()
    }

    pub(super) fn noticed(&mut self, why: String) {
        if self.why.as_ref() != Some(&why) {
            tracing::info!(
                why,
                "the NVML library has changed; a worker tries the new one"
            );
            self.pause.reset();
            self.why = Some(why);
        }
    }

    /// A worker was started, which has what is on disk.
    pub(super) fn forget(&mut self, morgue: &mut Morgue) {
        self.why = None;
        self.pause.reset();
        if let Some(trial) = self.trial.take() {
            trial.errand.recall(morgue, None);
        }
    }

    /// Whether a trial is to be started now.
    pub(super) fn due(&self, now_ms: u64) -> bool {
        self.why.is_some() && self.trial.is_none() && self.pause.due(now_ms)
    }

    /// Starts a worker with the library on disk; returns its pid.
    pub(super) fn try_it(
        &mut self,
        start: &Start,
        quarantined: Vec<Target>,
        now_ms: u64,
    ) -> Option<u32> {
        let Ok((errand, pid)) = Errand::start(start) else {
            self.pause.arm(now_ms);
            return None;
        };
        self.trial = Some(Trial {
            errand,
            quarantined,
        });
        pid
    }

    /// The worker of a trial that has succeeded; waits for none.
    pub(super) async fn settle(
        &mut self,
        quarantined: &[Target],
        morgue: &mut Morgue,
        now_ms: u64,
    ) -> Option<Link> {
        let ended = self.trial.take_if(|trial| trial.errand.is_finished())?;
        match ended.errand.outcome().await {
            Some(Outcome::Read(link)) if ended.quarantined == quarantined => return Some(link),
            // It would touch a GPU that has hung since.
            Some(Outcome::Read(link)) => morgue.take(link, true, None),
            Some(Outcome::Failed(how)) => {
                tracing::warn!("the new NVML library gives no reading; the loaded one goes on");
                if let Some(child) = how.stuck {
                    morgue.keep(child, how.on);
                }
            }
            None => {}
        }
        self.pause.arm(now_ms);
        None
    }
}
