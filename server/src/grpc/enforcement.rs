//! One session's side of enforcement: the policy that its node was told, and leave for the steps that it asks for.

use std::collections::BTreeSet;
use std::time::Duration;

use gpuquota_core::id::{Incarnation, Seq, TenantName, Timestamp};
use gpuquota_core::policy::{NodePolicy, policy_with};
use gpuquota_core::{Command, Outcome};
use gpuquota_proto::agent_v1::server_message::Body as ToAgent;
use gpuquota_proto::agent_v1::{
    self as wire, AgentMessage, Go, OutcomeTaken, PolicyHeld, PolicyStands,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::pace::Pace;
use super::policy_wire;
use super::sessions::Sessions;
use super::stream::Conversation;
use crate::service::Committed;
use crate::webhook::Notice;

/// What the node was told last.
pub(super) struct TellPolicy {
    told: Option<Told>,
    /// When to look again although nothing changed.
    pub(super) due: Instant,
}

struct Told {
    policy: NodePolicy,
    incarnation: Incarnation,
    version: Seq,
    stands_until: Instant,
}

impl Default for TellPolicy {
    fn default() -> Self {
        Self {
            told: None,
            due: Instant::now(),
        }
    }
}

impl TellPolicy {
    // What to send now, if anything.
    fn next(
        &mut self,
        fresh: NodePolicy,
        committed: &Committed,
        now: Timestamp,
    ) -> Option<ToAgent> {
        let mut policy = fresh;
        let until = policy.until.take();
        let state = &committed.state;
        let quarter = Duration::from_millis(policy.valid_for_ms / 4).max(Duration::from_millis(1));
        let (incarnation, clock) = (state.incarnation(), Instant::now());
        let same = self
            .told
            .as_ref()
            .filter(|told| told.policy == policy && told.incarnation == incarnation);
        let (version, message) = match same {
            Some(told) if clock < told.stands_until => (told.version, None),
            Some(told) => {
                let stands = ToAgent::PolicyStands(PolicyStands {
                    incarnation: u64::from(incarnation.0),
                    version: told.version.0,
                    valid_for_ms: policy.valid_for_ms,
                });
                (told.version, Some(stands))
            }
            None => {
                // Where time alone changed it there is no row of its own.
                let last = self
                    .told
                    .as_ref()
                    .filter(|told| told.incarnation == incarnation);
                let version = last.map_or(state.seq(), |told| state.seq().max(told.version.next()));
                let message = policy_wire::policy(&policy, incarnation, version, now);
                (version, Some(ToAgent::Policy(message)))
            }
        };
        let stands_until = match (&message, &self.told) {
            (None, Some(told)) => told.stands_until,
            (_, _) => clock + quarter,
        };
        let edge = until.map(|until| u64::try_from(until.0.saturating_sub(now.0)).unwrap_or(0));
        let edge = edge.map(|ms| clock + Duration::from_millis(ms.min(policy.valid_for_ms)));
        self.due = edge.map_or(stands_until, |edge| edge.min(stands_until));
        self.told = Some(Told {
            policy,
            incarnation,
            version,
            stands_until,
        });
        message
    }
}

/// Ends when the policy may be another, or is due to be said again.
pub(super) async fn look_again(judged: &mut watch::Receiver<Seq>, due: Instant) {
    tokio::select! {
        // The sender goes with the session that supersedes this one.
        Ok(()) = judged.changed() => {}
        () = tokio::time::sleep_until(due) => {}
    }
}

/// The agent's next message, not before it is listened to again.
pub(super) async fn listen(
    inbound: &mut Streaming<AgentMessage>,
    quiet_until: Option<Instant>,
) -> Result<Option<AgentMessage>, Status> {
    if let Some(until) = quiet_until {
        tokio::time::sleep_until(until).await;
    }
    inbound.message().await
}

impl Conversation {
    /// Looks at what the ledger says of the node now, and sends what is new of it.
    pub(super) async fn tell_policy(&mut self) -> Result<(), Status> {
        let committed = self.service.ledger.read();
        let now = self.service.clock.wall();
        let state = &committed.state;
        let sessions: &Sessions = &self.service.sessions;
        let node = &self.peer.node;
        let policy = policy_with(state, node, now, &mut |tenant| {
            sessions.found(state, tenant)
        });
        let Some(policy) = policy else {
            return Err(Status::aborted("this node is not known any more"));
        };
        let Some(message) = self.policy.next(policy, &committed, now) else {
            return Ok(());
        };
        if let ToAgent::Policy(policy) = &message {
            let version = Seq(policy.version);
            let boot_ms = self.service.clock.boot_ms();
            self.service
                .liveness
                .policies
                .sent(node, version, now, boot_ms);
        }
        self.send(message).await
    }

    pub(super) fn policy_held(&self, held: PolicyHeld) -> Result<(), Status> {
        let now = self.service.clock.wall();
        policy_wire::incarnation(held.incarnation)?;
        let policies = &self.service.liveness.policies;
        policies.held(&self.peer.node, Seq(held.version), now);
        Ok(())
    }

    /// Answers which steps may be taken, once that is in the journal; if it cannot be written, there is no answer.
    pub(super) async fn intent(&mut self, intent: wire::Intent) -> Result<(), Status> {
        let id = intent.id;
        let begin = policy_wire::intent(&self.peer.node, self.session, intent)?;
        let asked = begin.steps.len();
        if let Err(early) = self.paced(|pace, now_ms| pace.may(count(asked), now_ms)) {
            let go = Go {
                id,
                allowed: Vec::new(),
                refused: format!(
                    "this node asks for more than the journal takes of one node, again in {early:?}"
                ),
            };
            return self.send(ToAgent::Go(go)).await;
        }
        let against: BTreeSet<Option<TenantName>> = match self.service.notices.wanted() {
            true => begin.steps.iter().map(|step| step.tenant.clone()).collect(),
            false => BTreeSet::new(),
        };
        let before = self.service.ledger.read();
        let outcome = self.submit(Command::BeginSteps(begin), None).await?;
        let after = self.service.ledger.read();
        for tenant in &against {
            let tenant = tenant.as_ref();
            if after.state.hold(tenant) != before.state.hold(tenant)
                && let Some(held) = Notice::held(&after.state, &self.peer.node, tenant)
            {
                self.service.notices.put(held);
            }
        }
        match outcome {
            Outcome::Steps(steps) => {
                if steps.allowed.len() < asked {
                    tracing::info!(
                        node.name = %self.peer.node, steps.asked = asked, steps.allowed = steps.allowed.len(),
                        reason = steps.refused, "an agent may not take all steps that it asked for"
                    );
                }
                let go = Go {
                    id,
                    allowed: steps.allowed,
                    refused: steps.refused,
                };
                self.send(ToAgent::Go(go)).await
            }
            _ => Err(Status::internal("the ledger said nothing of steps")),
        }
    }

    // An agent out of its mind keeps itself waiting, and fills no journal; in a new session, too.
    fn paced<T>(&self, take: impl FnOnce(&mut Pace, u64) -> T) -> T {
        let now_ms = self.service.clock.boot_ms();
        let paced = |pace: &mut Pace| take(pace, now_ms);
        self.service.sessions.paced(&self.peer.node, now_ms, paced)
    }

    pub(super) async fn outcome(&mut self, outcome: wire::Outcome) -> Result<(), Status> {
        let end = policy_wire::outcome(&self.peer.node, self.session, outcome)?;
        let wait = self.paced(|pace, now_ms| pace.take(1, now_ms));
        self.quiet_until = (!wait.is_zero()).then(|| Instant::now() + wait);
        let boot_id = end.boot_id.clone();
        let taken = self
            .service
            .ledger
            .read()
            .state
            .outcome_taken(&end.node, &boot_id);
        let new = taken.is_none_or(|taken| taken < end.number);
        let notice = (new && self.service.notices.wanted())
            .then(|| Notice::step(&end, self.service.clock.wall()));
        match self.submit(Command::EndStep(end), None).await? {
            Outcome::Taken(number) => {
                if let Some(notice) = notice {
                    self.service.notices.put(notice);
                }
                let taken = OutcomeTaken { boot_id, number };
                self.send(ToAgent::OutcomeTaken(taken)).await
            }
            _ => Err(Status::internal("the ledger took no outcome")),
        }
    }
}

// Even one that asks for nothing is work.
fn count(steps: usize) -> u64 {
    u64::try_from(steps).unwrap_or(u64::MAX).max(1)
}
