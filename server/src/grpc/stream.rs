//! One agent's session: hello, reports, heartbeats; acks once a report is in the journal.

use std::sync::Arc;
use std::time::Duration;

use gpuquota_core::event::SilenceReason;
use gpuquota_core::id::{OpId, Region, Seq, SessionId};
use gpuquota_core::node::NodeState;
use gpuquota_core::{Command, Denied, Outcome, State};
use gpuquota_proto::agent_v1::agent_message::Body as FromAgent;
use gpuquota_proto::agent_v1::agent_server::Agent;
use gpuquota_proto::agent_v1::server_message::Body as ToAgent;
use gpuquota_proto::agent_v1::{
    AgentMessage, Heartbeat, Hello, Mark, SendFull, ServerMessage, Welcome,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use super::agreement::{Agreement, Verdict};
use super::convert;
use super::enforcement::{TellPolicy, listen, look_again};
use super::peer::{Caller, Peer};
use super::refusal::{
    Refusal, admitted, expired, left, same_node, status, trusted, unless_retired,
};
use super::sessions::{Sessions, Told};
use super::trust::Trusting;
use crate::clock::Clock;
use crate::service::liveness::Liveness;
use crate::service::{Ledger, LedgerError, Origin};
use crate::webhook::Notices;

const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// Answers that may wait for a slow agent before its reports wait too.
const ANSWERS: usize = 64;

/// What every session needs.
#[derive(Clone)]
pub struct AgentService {
    /// The ledger.
    pub ledger: Ledger,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who was heard when.
    pub liveness: Arc<Liveness>,
    /// Open sessions.
    pub sessions: Sessions,
    /// Whose certificates count.
    pub trusting: Trusting,
    /// How sessions work.
    pub settings: SessionSettings,
    /// Who is told of steps.
    pub(crate) notices: Notices,
    /// The server stops.
    pub stop: CancellationToken,
}

/// How sessions work.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// Region of a node that nobody declared.
    pub default_region: Region,
    /// How often an agent sends a heartbeat.
    pub heartbeat: Duration,
}

type Answers = mpsc::Sender<Result<ServerMessage, Status>>;

#[tonic::async_trait]
impl Agent for AgentService {
    type SessionStream = ReceiverStream<Result<ServerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = request.extensions().get::<Caller>();
        let peer = peer.and_then(|caller| caller.peer.clone());
        let peer = peer.ok_or_else(|| Status::unauthenticated("no client certificate"))?;
        // A connection outlives the handshake that looked at the dates.
        left(&peer, self.clock.wall())?;
        trusted(&peer, &self.trusting)?;
        admitted(&peer, &self.ledger.read().state)?;
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(HELLO_DEADLINE, inbound.message());
        let first = first
            .await
            .map_err(|_| Status::deadline_exceeded("no hello"))??;
        let Some(FromAgent::Hello(hello)) = first.and_then(|message| message.body) else {
            return Err(Status::invalid_argument(
                "the first message must be a hello",
            ));
        };
        let session = self.open(&peer, hello).await?;
        let Told {
            superseded,
            released,
            judged,
            barred,
        } = self.sessions.open(&peer, session);
        let committed = self.ledger.read();
        // What was said while it was opened is not told.
        let counts = self.trusting.counts(peer.authority);
        if !counts || admitted(&peer, &committed.state).is_err() {
            barred.cancel();
        }
        let authorities = &self.liveness.authorities;
        authorities.showed(&peer.node, peer.authority, &peer.serial);
        // It may have gone on to another server while this one registered it.
        let newest = committed.state.session(&peer.node);
        if newest.is_some_and(|newest| newest > session) {
            superseded.cancel();
        }
        tracing::info!(
            node.name = %peer.node, session.id = session.0, peer.address = %peer.address,
            certificate.serial = peer.serial, "an agent connected"
        );
        let (answers, outbound) = mpsc::channel(ANSWERS);
        let welcome = ToAgent::Welcome(Welcome {
            session: session.0,
            heartbeat_interval_ms: u32::try_from(self.settings.heartbeat.as_millis())
                .unwrap_or(u32::MAX),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            // Of what is to end after this row it is told once it is registered.
            mark: Some(mark(session, committed.state.seq())),
        });
        let conversation = Conversation {
            service: self.clone(),
            peer,
            session,
            answers,
            marked: committed.state.seq(),
            spools: Vec::new(),
            agreement: Agreement::default(),
            policy: TellPolicy::default(),
            quiet_until: None,
        };
        conversation.send(welcome).await?;
        tokio::spawn(conversation.run(inbound, superseded, barred, released, judged));
        Ok(Response::new(ReceiverStream::new(outbound)))
    }
}

impl AgentService {
    async fn open(&self, peer: &Peer, hello: Hello) -> Result<SessionId, Status> {
        same_node(&peer.node, &hello.node)?;
        let command = Command::OpenSession {
            node: peer.node.clone(),
            default_region: self.settings.default_region.clone(),
            boot_id: convert::identifier("boot_id", hello.boot_id)?,
            agent_version: convert::text("agent_version", hello.agent_version, 64)?,
        };
        let command = unless_retired(&self.ledger.read().state, &peer.node, command);
        let receipt = self.ledger.submit(command, origin(peer, None)).await;
        match receipt.map_err(status)?.outcome {
            Outcome::Session(session) => {
                self.liveness.heard(&peer.node, self.clock.boot_ms());
                Ok(session)
            }
            _ => Err(Status::internal("the ledger opened no session")),
        }
    }
}

pub(super) struct Conversation {
    pub(super) service: AgentService,
    pub(super) peer: Peer,
    pub(super) session: SessionId,
    answers: Answers,
    /// The last row that the agent was told of.
    marked: Seq,
    /// Spools that reports came from, the last is the present one.
    pub(super) spools: Vec<String>,
    /// What heartbeats said so far against what the ledger has.
    agreement: Agreement,
    /// What it was told of who may hold what.
    pub(super) policy: TellPolicy,
    /// Until then it is not listened to, for its steps came too fast.
    pub(super) quiet_until: Option<Instant>,
}

impl Conversation {
    async fn run(
        mut self,
        mut inbound: Streaming<AgentMessage>,
        superseded: CancellationToken,
        barred: CancellationToken,
        mut released: watch::Receiver<Seq>,
        mut judged: watch::Receiver<Seq>,
    ) {
        let stop = self.service.stop.clone();
        let valid = left(&self.peer, self.service.clock.wall()).unwrap_or(Duration::ZERO);
        let certificate_end = tokio::time::sleep(valid);
        tokio::pin!(certificate_end);
        let mut trust = self.service.trusting.follow();
        trust.mark_changed();
        let end = loop {
            // What ends a session goes before what the agent still says.
            let message = tokio::select! {
                biased;
                () = superseded.cancelled() => {
                    break Err(Status::aborted("a newer session of this node took over"));
                }
                () = barred.cancelled() => break Err(Status::unavailable("connect again")),
                () = stop.cancelled() => break Err(Status::unavailable("the server is stopping")),
                () = &mut certificate_end => {
                    break Err(expired());
                }
                // The sender goes with the session that supersedes this one.
                Ok(()) = released.changed() => {
                    let row = *released.borrow_and_update();
                    if let Err(status) = self.mark(row).await {
                        break Err(status);
                    }
                    continue;
                }
                Ok(()) = trust.changed() => {
                    let told = trust.borrow_and_update().told.clone();
                    if let Err(status) = self.tell_trust(told).await {
                        break Err(status);
                    }
                    continue;
                }
                () = look_again(&mut judged, self.policy.due) => {
                    if let Err(status) = self.tell_policy().await {
                        break Err(status);
                    }
                    continue;
                }
                message = listen(&mut inbound, self.quiet_until) => message,
            };
            match message {
                Ok(Some(message)) => {
                    if let Err(status) = self.handle(message).await {
                        break Err(status);
                    }
                }
                Ok(None) => break Ok(()),
                // Too large or no message at all: the agent must learn why, or it would send the same again for ever.
                Err(status) if matches!(status.code(), Code::OutOfRange | Code::Internal) => {
                    break Err(Status::invalid_argument(status.message()));
                }
                // The connection broke; there is nobody to tell.
                Err(_) => break Ok(()),
            }
        };
        if let Err(status) = end {
            // Whatever noticed it first, who is refused by now learns that.
            let why = admitted(&self.peer, &self.service.ledger.read().state)
                .and_then(|()| trusted(&self.peer, &self.service.trusting));
            let status = why.err().unwrap_or(status);
            tracing::warn!(
                node.name = %self.peer.node, session.id = self.session.0,
                grpc.code = ?status.code(), reason = status.message(), "a session was ended"
            );
            let _ = self.answers.send(Err(status)).await;
        }
        if self.service.sessions.close(&self.peer.node, self.session) {
            self.service.liveness.policies.gone(&self.peer.node);
        }
    }

    async fn handle(&mut self, message: AgentMessage) -> Result<(), Status> {
        let now_ms = self.service.clock.boot_ms();
        let heard_at = self.service.clock.wall();
        self.service.liveness.heard(&self.peer.node, now_ms);
        match message.body {
            Some(FromAgent::Report(report)) => {
                self.agreement.report_came();
                self.report(report, heard_at).await
            }
            Some(FromAgent::Heartbeat(heartbeat)) => self.heartbeat(heartbeat, now_ms).await,
            Some(FromAgent::Goodbye(_)) => {
                let command = Command::MarkSilent {
                    node: self.peer.node.clone(),
                    session: self.session,
                    reason: SilenceReason::Stopped,
                };
                self.submit(command, None).await?;
                Ok(())
            }
            Some(FromAgent::Hello(_)) => Err(Status::invalid_argument("a second hello")),
            Some(FromAgent::PolicyHeld(held)) => self.policy_held(held),
            Some(FromAgent::Intent(intent)) => self.intent(intent).await,
            Some(FromAgent::Outcome(outcome)) => self.outcome(outcome).await,
            Some(FromAgent::TrustHeld(held)) => self.trust_held(&held),
            // A message of a newer agent: it will not rely on an answer that it does not get.
            None => Ok(()),
        }
    }

    async fn heartbeat(&mut self, heartbeat: Heartbeat, now_ms: u64) -> Result<(), Status> {
        let node = &self.peer.node;
        let age = heartbeat.collect_age_ms;
        self.service.liveness.collected(node, now_ms, age);
        let committed = self.service.ledger.read();
        let Some(known) = committed.state.node(node) else {
            return Err(Status::aborted("this node is not known any more"));
        };
        if known.state == NodeState::Silent && known.session == self.session {
            let command = Command::MarkHeard {
                node: node.clone(),
                session: self.session,
            };
            self.submit(command, None).await?;
        }
        match self.agreement.check(&committed.state, node, &heartbeat) {
            // What it agrees with is a reading, or its word is worth nothing.
            Verdict::Agrees if age.is_some() => {
                let settled = known.settled;
                let read_after = self.read_after(heartbeat.read_after);
                self.agree(&committed.state, settled, read_after).await
            }
            Verdict::Agrees => Ok(()),
            Verdict::Unsettled => Ok(()),
            Verdict::Differs(reason) => {
                tracing::warn!(node.name = %node, reason, "a full report is asked for");
                let reason = reason.to_owned();
                self.send(ToAgent::SendFull(SendFull { reason })).await
            }
        }
    }

    // The node was read again and is as the ledger has it: leases that wait for its devices may end.
    async fn agree(
        &self,
        state: &State,
        settled: bool,
        read_after: Option<Seq>,
    ) -> Result<(), Status> {
        let node = &self.peer.node;
        if settled && (read_after.is_none() || !state.awaits(node)) {
            return Ok(());
        }
        let command = Command::Agree {
            node: node.clone(),
            session: self.session,
            read_after,
        };
        self.submit(command, None).await?;
        Ok(())
    }

    async fn mark(&mut self, row: Seq) -> Result<(), Status> {
        self.marked = self.marked.max(row);
        self.send(ToAgent::Mark(mark(self.session, row))).await
    }

    // A mark counts in the session that it was given in, and only one that was given.
    pub(super) fn read_after(&self, said: Option<Mark>) -> Option<Seq> {
        let said = said.filter(|said| said.session == self.session.0);
        said.map(|said| Seq(said.seq))
            .filter(|row| *row <= self.marked)
    }

    pub(super) async fn submit(
        &self,
        command: Command,
        op: Option<OpId>,
    ) -> Result<Outcome, Refusal> {
        let origin = origin(&self.peer, op);
        match self.service.ledger.submit(command, origin).await {
            Ok(receipt) => Ok(receipt.outcome),
            Err(LedgerError::Denied(denied @ Denied::ReportGap { .. })) => {
                Err(Refusal::Gap(denied.to_string()))
            }
            Err(error) => Err(Refusal::End(status(error))),
        }
    }

    pub(super) async fn send(&self, body: ToAgent) -> Result<(), Status> {
        let message = ServerMessage { body: Some(body) };
        let sent = self.answers.send(Ok(message)).await;
        sent.map_err(|_| Status::cancelled("the agent is gone"))
    }
}

fn mark(session: SessionId, row: Seq) -> Mark {
    Mark {
        session: session.0,
        seq: row.0,
    }
}

fn origin(peer: &Peer, op: Option<OpId>) -> Origin {
    Origin {
        actor: format!("node:{}", peer.node),
        request_id: None,
        // A node's address says nothing that its certificate does not, and a row for each report would carry it.
        from: None,
        reason: None,
        op,
        fingerprint: None,
    }
}
