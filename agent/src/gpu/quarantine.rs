//! GPUs that took a worker with them, and the workers that look whether they answer again.

use std::time::Duration;

use super::backoff::Backoff;
use super::errand::{Errand, Outcome};
use super::link::Start;
use super::morgue::Morgue;
use super::protocol::Target;

#[derive(Debug, Default)]
pub(super) struct Quarantine {
    patients: Vec<Patient>,
}

#[derive(Debug)]
struct Patient {
    target: Target,
    backoff: Backoff,
    probe: Option<Errand>,
}

/// What became of the probes that have ended.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// At least one GPU answers again and is no longer in quarantine.
    pub(super) gave_back: bool,
}

impl Quarantine {
    pub(super) fn targets(&self) -> Vec<Target> {
        self.patients
            .iter()
            .map(|patient| patient.target.clone())
            .collect()
    }

    pub(super) fn add(&mut self, target: Target, pauses: (Duration, Duration), now_ms: u64) {
        if self.patients.iter().any(|patient| patient.target == target) {
            return;
        }
        let mut backoff = Backoff::new(pauses);
        backoff.arm(now_ms);
        self.patients.push(Patient {
            target,
            backoff,
            probe: None,
        });
    }

    /// Collects the probes that have ended; waits for none.
    pub(super) async fn settle(&mut self, morgue: &mut Morgue, now_ms: u64) -> Settled {
        let mut settled = Settled::default();
        let mut kept = Vec::with_capacity(self.patients.len());
        for mut patient in self.patients.drain(..) {
            let ended = patient.probe.take_if(|probe| probe.is_finished());
            let mut answers = false;
            if let Some(probe) = ended {
                let on = || Some(patient.target.clone());
                match probe.outcome().await {
                    // That it answers "lost" is an answer, too.
                    Some(Outcome::Read(link)) => {
                        answers = true;
                        morgue.take(link, true, on());
                    }
                    Some(Outcome::Failed(how)) => {
                        if let Some(child) = how.stuck {
                            morgue.keep(child, on());
                        }
                    }
                    None => {}
                }
                patient.backoff.arm(now_ms);
            }
            if answers {
                tracing::info!(gpu = %patient.target, "the GPU answers again");
                settled.gave_back = true;
            } else {
                kept.push(patient);
            }
        }
        self.patients = kept;
        settled
    }

    /// Starts a probe for each GPU whose pause is over, but for those that are `occupied`; returns their pids.
    pub(super) fn probe(&mut self, start: &Start, occupied: &[Target], now_ms: u64) -> Vec<u32> {
        let mut started = Vec::new();
        for patient in &mut self.patients {
            let free = patient.probe.is_none() && !occupied.contains(&patient.target);
            if free && patient.backoff.due(now_ms) {
                let start = Start {
                    only: vec![patient.target.clone()],
                    events: false,
                    ..start.clone()
                };
                match Errand::start(&start) {
                    Ok((probe, pid)) => {
                        started.extend(pid);
                        patient.probe = Some(probe);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "no probe");
                        patient.backoff.arm(now_ms);
                    }
                }
            }
        }
        started
    }

    /// Calls all probes back.
    pub(super) fn abandon_probes(&mut self, morgue: &mut Morgue) {
        for patient in &mut self.patients {
            if let Some(probe) = patient.probe.take() {
                probe.recall(morgue, Some(patient.target.clone()));
            }
        }
    }
}
