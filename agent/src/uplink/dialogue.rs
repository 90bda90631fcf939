//! What the server and this node say to each other about policies and steps, besides reports: kept between the stream,
//! which comes and goes, and whoever acts.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gpuquota_proto::agent_v1::agent_message::Body;
use gpuquota_proto::agent_v1::{self as wire, Go, Intent, OutcomeTaken, PolicyHeld, PolicyStands};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::clock::boottime_ms;
use crate::policy::{Held, Policy, Standing, Version};

/// Outcomes that wait to be taken, at most; beyond, those alike are counted together, and then the oldest goes.
const OUTCOMES: usize = 1024;
/// Numbers of outcomes begin anew with the agent; the clock keeps them growing for a boot. One number for so many a millisecond.
const NUMBERS_PER_MS: u64 = 1024;

/// Shared by the stream and whoever acts; every lock is short and never held over a wait.
#[derive(Debug)]
pub struct Dialogue {
    inner: Mutex<Inner>,
    to_send: Notify,
    came: Notify,
    /// The policy that is acted by became another.
    acted: Notify,
}

#[derive(Debug)]
struct Inner {
    boot_id: String,
    held: Held,
    /// The policy that is acted by, and whether this session was told.
    acted_by: Option<(Version, bool)>,
    intent: Option<Asked>,
    next_intent: u64,
    go: Option<Go>,
    outcomes: VecDeque<(wire::Outcome, u64)>,
    /// Of them so many were sent in this session.
    sent: usize,
    last_number: u64,
    /// The last that the server took.
    taken: u64,
    /// The last that it had taken when it said what its policy is.
    settled: u64,
    lost: u64,
    refused: u64,
}

#[derive(Debug)]
struct Asked {
    intent: Intent,
    sent: bool,
}

/// Figures for `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DialogueFigures {
    /// Outcomes that the server has not taken.
    pub waiting: usize,
    /// Outcomes that had to be forgotten.
    pub lost: u64,
    /// Policies that could not be followed.
    pub refused: u64,
    /// The policy that is acted by.
    pub acted_by: Option<Version>,
    /// Whether a policy is there and has not ended.
    pub valid: bool,
}

impl Dialogue {
    /// In this boot.
    #[must_use]
    pub fn new(boot_id: &str) -> Self {
        Self {
            inner: Mutex::new(Inner {
                boot_id: boot_id.to_owned(),
                held: Held::default(),
                acted_by: None,
                intent: None,
                next_intent: 1,
                go: None,
                outcomes: VecDeque::new(),
                sent: 0,
                last_number: boottime_ms().saturating_mul(NUMBERS_PER_MS),
                taken: 0,
                settled: 0,
                lost: 0,
                refused: 0,
            }),
            to_send: Notify::new(),
            came: Notify::new(),
            acted: Notify::new(),
        }
    }

    /// How the newest policy stands.
    #[must_use]
    pub fn standing(&self, now_ms: u64) -> Standing {
        self.lock().held.at(now_ms)
    }

    /// This policy is acted by from now on.
    pub fn act_by(&self, version: Version) {
        let mut inner = self.lock();
        if inner.acted_by.is_none_or(|(known, _)| known != version) {
            inner.acted_by = Some((version, false));
            drop(inner);
            self.to_send.notify_one();
            self.acted.notify_waiters();
        }
    }

    /// The policy that is acted by.
    #[must_use]
    pub fn acted_by(&self) -> Option<Version> {
        self.lock().acted_by.map(|(version, _)| version)
    }

    /// Returns once another policy is acted by than when this was called.
    pub fn acted(&self) -> Notified<'_> {
        self.acted.notified()
    }

    /// Asks for steps; returns the number by which the answer names them. What was asked before is asked no more.
    pub fn ask(&self, version: Version, steps: Vec<wire::Step>) -> u64 {
        let mut inner = self.lock();
        let id = inner.next_intent;
        inner.next_intent += 1;
        let intent = Intent {
            id,
            incarnation: version.incarnation,
            version: version.row,
            steps,
        };
        inner.go = None;
        inner.intent = Some(Asked {
            intent,
            sent: false,
        });
        drop(inner);
        self.to_send.notify_one();
        id
    }

    /// Whether the steps of this number are still asked for: a stream that ended took them along.
    #[must_use]
    pub fn asked(&self, id: u64) -> bool {
        self.lock()
            .intent
            .as_ref()
            .is_some_and(|asked| asked.intent.id == id)
    }

    /// The answer, once.
    #[must_use]
    pub fn take_go(&self) -> Option<Go> {
        let mut inner = self.lock();
        let go = inner.go.take();
        if go.is_some() {
            inner.intent = None;
        }
        go
    }

    /// Nobody waits for an answer any more.
    pub fn forget(&self) {
        let mut inner = self.lock();
        (inner.intent, inner.go) = (None, None);
    }

    /// What came of a step at `now_ms`, CLOCK_BOOTTIME. Its age is given here, and its number, which is returned.
    pub fn tell(&self, mut outcome: wire::Outcome, now_ms: u64) -> u64 {
        let mut inner = self.lock();
        if inner.outcomes.len() >= OUTCOMES {
            let sent = inner.sent;
            let alike = |(known, _): &&mut (wire::Outcome, u64)| {
                let about = |of: &wire::Outcome| {
                    let step = of.step.as_ref();
                    step.map(|step| (step.rung, step.tenant.clone(), step.device.clone()))
                };
                known.kind == outcome.kind && about(known) == about(&outcome)
            };
            if let Some((known, _)) = inner.outcomes.iter_mut().skip(sent).find(alike) {
                known.beside = known.beside.saturating_add(1);
                return known.number;
            }
            inner.outcomes.pop_front();
            inner.sent = sent.saturating_sub(1);
            inner.lost += 1;
        }
        inner.last_number += 1;
        let number = inner.last_number;
        outcome.number = number;
        outcome.boot_id.clone_from(&inner.boot_id);
        inner.outcomes.push_back((outcome, now_ms));
        drop(inner);
        self.to_send.notify_one();
        number
    }

    /// Of outcomes up to this number the newest policy knows: it came, or was said to stand, after the server took them.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.lock().settled
    }

    /// For `/metrics`.
    #[must_use]
    pub fn figures(&self, now_ms: u64) -> DialogueFigures {
        let inner = self.lock();
        DialogueFigures {
            waiting: inner.outcomes.len(),
            lost: inner.lost,
            refused: inner.refused,
            acted_by: inner.acted_by.map(|(version, _)| version),
            valid: matches!(inner.held.at(now_ms), Standing::Valid(_)),
        }
    }

    /// Returns when a policy or an answer may have come.
    pub async fn came(&self) {
        self.came.notified().await;
    }

    /// A new session: what was told before counts, what was asked does not.
    pub(super) fn rewind(&self) {
        let mut inner = self.lock();
        if let Some((_, told)) = &mut inner.acted_by {
            *told = false;
        }
        (inner.intent, inner.go, inner.sent) = (None, None, 0);
        inner.held.session_began();
        drop(inner);
        self.came.notify_one();
    }

    pub(crate) fn policy(&self, told: wire::Policy, now_ms: u64) {
        match Policy::try_from(told) {
            Ok(policy) => {
                let version = policy.version;
                let mut inner = self.lock();
                inner.settled = inner.taken;
                if !inner.held.came(policy, now_ms) {
                    tracing::warn!(policy.row = version.row, "an older policy is not taken");
                }
            }
            Err(error) => {
                self.lock().refused += 1;
                tracing::error!(%error, "a policy cannot be followed; the one before stays");
            }
        }
        self.came.notify_one();
    }

    pub(super) fn stands(&self, told: PolicyStands, now_ms: u64) {
        let version = Version {
            incarnation: told.incarnation,
            row: told.version,
        };
        let mut inner = self.lock();
        inner.settled = inner.taken;
        inner.held.stands(version, told.valid_for_ms, now_ms);
        drop(inner);
        self.came.notify_one();
    }

    pub(super) fn go(&self, go: Go) {
        let mut inner = self.lock();
        if inner
            .intent
            .as_ref()
            .is_some_and(|asked| asked.sent && asked.intent.id == go.id)
        {
            inner.go = Some(go);
            drop(inner);
            self.came.notify_one();
        }
    }

    pub(super) fn taken(&self, taken: &OutcomeTaken) {
        let mut inner = self.lock();
        if taken.boot_id != inner.boot_id {
            return;
        }
        inner.taken = inner.taken.max(taken.number);
        while inner
            .outcomes
            .front()
            .is_some_and(|(first, _)| first.number <= taken.number)
        {
            inner.outcomes.pop_front();
            inner.sent = inner.sent.saturating_sub(1);
        }
    }

    pub(super) fn has_next(&self) -> bool {
        let inner = self.lock();
        inner.acted_by.is_some_and(|(_, told)| !told)
            || inner.intent.as_ref().is_some_and(|asked| !asked.sent)
            || inner.sent < inner.outcomes.len()
    }

    pub(super) fn take_next(&self, now_ms: u64) -> Option<Body> {
        let mut inner = self.lock();
        if let Some((version, told)) = &mut inner.acted_by
            && !*told
        {
            *told = true;
            return Some(Body::PolicyHeld(PolicyHeld {
                incarnation: version.incarnation,
                version: version.row,
            }));
        }
        if let Some(asked) = &mut inner.intent
            && !asked.sent
        {
            asked.sent = true;
            return Some(Body::Intent(asked.intent.clone()));
        }
        let (outcome, at_ms) = inner.outcomes.get(inner.sent)?;
        let outcome = wire::Outcome {
            age_ms: now_ms.saturating_sub(*at_ms),
            ..outcome.clone()
        };
        inner.sent += 1;
        Some(Body::Outcome(outcome))
    }

    /// Returns when something new may be there to send.
    pub(super) async fn changed(&self) {
        self.to_send.notified().await;
    }

    // Nothing panics while it is held; what a panic left behind would still be a whole state.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
