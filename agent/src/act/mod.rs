//! Steps that are due are told, asked for and done: the only place where a policy becomes an act.
//!
//! Every step above a warning is in the journal before it happens (`Intent`, `Go`), done by the privileged half, which checks
//! it again, and told with what came of it. A server that is away, a node that cannot, a reading that is not certain: then
//! nothing is done.

mod config;
mod figures;
mod kept;
pub(crate) mod kernel;
mod neighbours;
mod obey;
mod terminals;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::clock::boottime_ms;
use crate::enforce::protocol::{Order, Reply};
use crate::observation::Observation;
use crate::plan::step::{Outcome, Rung, Step, Told};
use crate::plan::{Able, Plan};
use crate::policy::{Policy, Standing};
use crate::process::group::GroupId;
use crate::uplink::dialogue::Dialogue;

pub use config::{EnforcementConfig, OnSilence};
pub use figures::{ActFigures, Acts};
use kept::Kept;
use kernel::{Host, Inhabited};
pub use neighbours::Neighbours;
use obey::Strange;

/// Between two looks when nothing new came, for what falls due by the clock.
const TICK: Duration = Duration::from_millis(250);
/// The server answers an intent within this, or it is asked for anew. Milliseconds.
const GO_MS: u64 = 10_000;
/// How often it is compared what the kernel denies with what it is to deny, and a privileged half that was away is looked
/// for; and when there is nothing to compare. Milliseconds.
const COMPARE_MS: (u64, u64) = (5_000, 60_000);

/// Who obeys orders; the privileged half, or in a test somebody else.
pub trait Hands {
    /// Gives an order; the text says why there is no answer.
    fn ask(&self, order: Order) -> impl Future<Output = Result<Reply, String>> + Send;
}

/// All that acting needs.
#[derive(Debug)]
pub struct Acting<H> {
    /// What the operator allows here.
    pub config: EnforcementConfig,
    /// What is said with the server.
    pub dialogue: Arc<Dialogue>,
    /// The newest reading.
    pub seen: watch::Receiver<Option<Arc<Observation>>>,
    /// The privileged half.
    pub hands: H,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// The agent's folder for what outlives a restart.
    pub state: PathBuf,
    /// Where the proc file system tells of the node as a whole.
    pub proc_root: PathBuf,
    /// Who else is in a group.
    pub neighbours: Neighbours,
    /// For `/metrics`.
    pub figures: Arc<Acts>,
}

impl<H: Hands> Acting<H> {
    /// Acts until `stop`, and ends between two steps. What is denied stays denied, and is written down.
    pub async fn run(self, stop: CancellationToken) {
        let mut actor = Actor {
            plan: Plan::default(),
            able: None,
            compared_ms: None,
            pending: None,
            kept: Kept::new(&self.state, &self.boot_id),
            valid_for_ms: 0,
            began_ms: boottime_ms(),
            tried: BTreeMap::new(),
            folders: BTreeMap::new(),
            stop: stop.clone(),
            of: self,
        };
        let left = actor.kept.load();
        actor.valid_for_ms = left.valid_for_ms;
        actor.plan.restrictions_mut().adopt(left.restricted);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = actor.of.seen.changed() => if changed.is_err() {
                    return;
                },
                () = actor.of.dialogue.came() => {}
                _ = ticks.tick(), if actor.busy() => {}
            }
            actor.turn().await;
        }
    }
}

struct Pending {
    id: u64,
    steps: Vec<Step>,
    since_ms: u64,
}

struct Actor<H> {
    of: Acting<H>,
    plan: Plan,
    able: Option<Able>,
    compared_ms: Option<u64>,
    pending: Option<Pending>,
    kept: Kept,
    /// How long the last policy can be followed without the server, milliseconds.
    valid_for_ms: u64,
    began_ms: u64,
    /// The agent stops: no further step is begun.
    stop: CancellationToken,
    /// Restrictions that were put back by comparing, by group, and when. Milliseconds, CLOCK_BOOTTIME.
    tried: BTreeMap<String, (BTreeSet<String>, u64)>,
    /// Folders of restricted groups as they were compared last.
    folders: BTreeMap<String, Option<GroupId>>,
}

impl<H: Hands> Actor<H> {
    // While nobody is in the wrong and nothing is denied, readings are enough to wake it.
    fn busy(&self) -> bool {
        self.pending.is_some()
            || !self.plan.violations().is_empty()
            || !self.plan.restrictions().is_empty()
    }

    async fn turn(&mut self) {
        let now = boottime_ms();
        let policy = match self.of.dialogue.standing(now) {
            // An agent that begins without its server goes by what the last one was told of how long that may be.
            Standing::Never => {
                if now.saturating_sub(self.began_ms) >= self.valid_for_ms {
                    self.silent(&Policy::default(), now).await;
                }
                self.uphold(now).await;
                return;
            }
            Standing::Ended(policy) => {
                self.pending = None;
                self.of.dialogue.forget();
                // Whether a holder is justified is not known any more.
                self.of.figures.violations(&BTreeMap::new());
                self.silent(&policy, now).await;
                self.uphold(now).await;
                return;
            }
            Standing::Valid(policy) => policy,
        };
        self.of.dialogue.act_by(policy.version);
        self.valid_for_ms = policy.valid_for_ms;
        self.settle(&policy);
        self.compare(now, Strange::Lifted).await;
        self.follow_up(&policy).await;
        let seen = self.of.seen.borrow_and_update().clone();
        let (Some(seen), Some(able)) = (seen, self.able.clone()) else {
            return;
        };
        let mut kernel = Inhabited {
            host: self.host(&seen),
            neighbours: &mut self.of.neighbours,
        };
        let mut due = self.plan.look(now, &seen, &policy, &able, &mut kernel);
        self.of.figures.violations(self.plan.violations());
        for told in due.tell {
            self.tell(&told, &policy);
            if told.step.rung == Rung::Warn && self.of.config.tell_terminals {
                let told = terminals::tell(&seen, &policy, able.most, &told.step);
                tracing::debug!(terminals = told, "the warning was told");
            }
        }
        if due.renamed {
            self.keep();
            self.compared_ms = None;
            self.compare(now, Strange::Lifted).await;
        }
        self.lift(due.lift, &policy).await;
        if self.pending.is_some() || due.ask.is_empty() {
            return;
        }
        self.plan.spare(&able, now, &mut due.ask);
        if due.ask.is_empty() {
            return;
        }
        let steps = due.ask.iter().map(wire::step).collect();
        let id = self.of.dialogue.ask(policy.version, steps);
        self.pending = Some(Pending {
            id,
            steps: due.ask,
            since_ms: now,
        });
    }

    fn host(&self, seen: &Arc<Observation>) -> Host {
        Host {
            seen: Arc::clone(seen),
            proc_root: self.of.proc_root.clone(),
        }
    }

    // The answer to what was asked for, or that there will be none.
    async fn follow_up(&mut self, policy: &Policy) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        let now = boottime_ms();
        let go = self.of.dialogue.take_go().filter(|go| go.id == pending.id);
        let Some(go) = go else {
            let lost = !self.of.dialogue.asked(pending.id);
            if lost || now >= pending.since_ms.saturating_add(GO_MS) {
                self.of.dialogue.forget();
                for step in &pending.steps {
                    self.plan.refused(step, now);
                }
            } else {
                self.pending = Some(pending);
            }
            return;
        };
        let allowed: BTreeSet<usize> = go
            .allowed
            .iter()
            .filter_map(|at| usize::try_from(*at).ok())
            .collect();
        if !go.refused.is_empty() {
            tracing::warn!(
                reason = go.refused,
                "the server does not allow all steps that are due"
            );
        }
        for (at, step) in pending.steps.iter().enumerate() {
            // What changed since it was asked for counts.
            let now = boottime_ms();
            if self.stop.is_cancelled() || !allowed.contains(&at) || !self.still_due(step, now) {
                self.plan.refused(step, now);
                continue;
            }
            let (outcome, detail) = self.obey(step, policy).await;
            self.plan.done(step, outcome, &detail, boottime_ms());
            let told = Told {
                step: step.clone(),
                outcome,
                detail,
            };
            let number = self.tell(&told, policy);
            if (step.rung, outcome) == (Rung::Restrict, Outcome::Done) {
                self.plan.restrictions_mut().told(step, number);
                // At once: of what is not written down the next agent knows nothing, and takes it away.
                self.keep();
            }
        }
        self.keep();
    }

    // What the server says nothing of although it knows of it may end.
    fn settle(&mut self, policy: &Policy) {
        for told in self.plan.restrictions().untold() {
            let number = self.tell(&told, policy);
            self.plan.restrictions_mut().told(&told.step, number);
        }
        let settled = self.of.dialogue.settled();
        if self.plan.restrictions_mut().settle(settled) {
            self.keep();
        }
    }

    async fn silent(&mut self, policy: &Policy, now_ms: u64) {
        if self.of.config.on_silence == OnSilence::Lift {
            self.lift(self.plan.restrictions().all(now_ms), policy)
                .await;
        }
    }

    // What is denied stays so without the server, also where a slice was made anew or a driver counts its devices anew.
    async fn uphold(&mut self, now_ms: u64) {
        let seen = self.of.seen.borrow_and_update().clone();
        if let Some(seen) = seen {
            let mut kernel = Inhabited {
                host: self.host(&seen),
                neighbours: &mut self.of.neighbours,
            };
            if self.plan.restrictions_mut().follow(&seen, &mut kernel) {
                self.keep();
                self.compared_ms = None;
            }
        }
        self.compare(now_ms, Strange::Left).await;
    }

    fn still_due(&self, step: &Step, now_ms: u64) -> bool {
        let Standing::Valid(policy) = self.of.dialogue.standing(now_ms) else {
            return false;
        };
        let ladder = policy.ladder(&step.whom);
        ladder.is_some_and(|ladder| ladder.mode >= step.rung.needs())
    }

    fn keep(&self) {
        let restricted = self.plan.restrictions().wanted();
        self.of.figures.restricted(restricted.len());
        self.kept.save(self.valid_for_ms, restricted);
    }

    fn tell(&self, told: &Told, policy: &Policy) -> u64 {
        let Told {
            step,
            outcome,
            detail,
        } = told;
        let tenant = step.whom.tenant.as_deref().unwrap_or("");
        let pid = step.process.map(|process| process.pid);
        self.of.figures.did(step, *outcome);
        tracing::warn!(
            tenant, device = %step.whom.device, class = step.class.as_str(), rung = step.rung.as_str(), result = outcome.as_str(),
            pid, group = step.group, policy.row = policy.version.row, detail, "enforcement"
        );
        self.of
            .dialogue
            .tell(wire::outcome(told, policy.version), boottime_ms())
    }
}
