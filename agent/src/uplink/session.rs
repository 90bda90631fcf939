//! One session: Hello, the unacknowledged reports in order, then changes as they come and heartbeats in between.

use std::time::Duration;

use gpuquota_proto::MESSAGE_LIMIT_BYTES;
use gpuquota_proto::agent_v1::agent_client::AgentClient;
use gpuquota_proto::agent_v1::agent_message::Body;
use gpuquota_proto::agent_v1::server_message::Body as Answer;
use gpuquota_proto::agent_v1::{AgentMessage, Goodbye, Hello, ServerMessage, TrustHeld, Welcome};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::clock::boottime_ms;

use super::Uplink;
use super::dial::{Line, Stamp, dial, stamp};

/// Messages between this task and the connection, at most.
const QUEUE: usize = 8;
/// The server must welcome within this.
const WELCOME_DEADLINE: Duration = Duration::from_secs(10);
/// What the server may ask for as heartbeat interval.
const HEARTBEAT_BOUNDS: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(60));
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(5);
/// Heartbeats without any answer while an answer is due, before the connection is given up.
const SILENT_HEARTBEATS: u32 = 3;
/// How long a stopping agent waits for acknowledgements, and then for the server to end the stream.
const FLUSH_DEADLINE: Duration = Duration::from_millis(1500);
const CLOSE_DEADLINE: Duration = Duration::from_millis(500);

/// How a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The agent stops.
    Stopped,
    /// The certificate was renewed and a connection with it stands.
    Renewed(Line),
    /// The connection or the server went away.
    Lost(String),
    /// A newer session of this node took over.
    Contended,
    /// The server does not want this node.
    Refused(String),
    /// The server will never take what was sent.
    Unacceptable(String),
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        let text = format!("{}: {}", status.code().description(), status.message());
        match status.code() {
            Code::Aborted => Self::Contended,
            Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition => {
                Self::Refused(text)
            }
            Code::InvalidArgument => Self::Unacceptable(text),
            _ => Self::Lost(text),
        }
    }
}

/// Runs one session over `channel` until it ends. `made_from` tells the files of its certificate.
pub(super) async fn run(
    uplink: &Uplink,
    channel: Channel,
    made_from: Stamp,
    stop: &CancellationToken,
) -> Ended {
    match Session::open(uplink, channel, made_from).await {
        Ok(mut session) => {
            let ended = session.talk(stop).await;
            if matches!(ended, Ended::Stopped) {
                session.close().await;
            }
            ended
        }
        Err(ended) => ended,
    }
}

struct Session<'a> {
    uplink: &'a Uplink,
    made_from: Stamp,
    to_server: Option<mpsc::Sender<AgentMessage>>,
    from_server: Streaming<ServerMessage>,
    heartbeat: Duration,
    answer_due_since: Option<Instant>,
    /// What the server is still to be told of the authorities.
    held: Option<TrustHeld>,
}

impl<'a> Session<'a> {
    async fn open(uplink: &'a Uplink, channel: Channel, made_from: Stamp) -> Result<Self, Ended> {
        let (to_server, queue) = mpsc::channel(QUEUE);
        let hello = Hello {
            node: uplink.credentials.node.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: uplink.boot_id.clone(),
            spool_id: uplink.outbox.spool_id(),
        };
        let closed = |_| Ended::Lost("the stream closed at once".to_owned());
        to_server
            .send(message(Body::Hello(hello)))
            .await
            .map_err(closed)?;
        let mut client = AgentClient::new(channel)
            .max_decoding_message_size(MESSAGE_LIMIT_BYTES)
            .max_encoding_message_size(MESSAGE_LIMIT_BYTES);
        let (from_server, welcome) = timeout(WELCOME_DEADLINE, async {
            let mut from_server = client
                .session(ReceiverStream::new(queue))
                .await?
                .into_inner();
            let first = from_server.message().await?;
            Ok::<_, Status>((from_server, first))
        })
        .await
        .map_err(|_| Ended::Lost("the server did not welcome in time".to_owned()))??;
        let Some(Answer::Welcome(welcome)) = welcome.and_then(|first| first.body) else {
            return Err(Ended::Lost(
                "the server did not begin with a welcome".to_owned(),
            ));
        };
        uplink.outbox.rewind(welcome.mark);
        uplink.dialogue.rewind();
        uplink.status.welcomed();
        let heartbeat = heartbeat_interval(&welcome);
        tracing::info!(
            session.id = welcome.session,
            server.version = welcome.server_version,
            heartbeat.ms = heartbeat.as_millis(),
            "session with the server is up"
        );
        Ok(Self {
            uplink,
            made_from,
            to_server: Some(to_server),
            from_server,
            heartbeat,
            answer_due_since: None,
            held: None,
        })
    }

    async fn talk(&mut self, stop: &CancellationToken) -> Ended {
        let Some(to_server) = self.to_server.clone() else {
            return Ended::Stopped;
        };
        let (outbox, dialogue) = (&self.uplink.outbox, &self.uplink.dialogue);
        let mut beat = interval_at(Instant::now() + self.heartbeat, self.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut flush_until: Option<Instant> = None;
        // The first heartbeat goes at once: it tells the digest, by which an old difference is found.
        let _ = to_server.try_send(message(Body::Heartbeat(outbox.heartbeat(boottime_ms()))));
        loop {
            if flush_until.is_some_and(|_| outbox.is_empty() && !dialogue.has_next()) {
                return Ended::Stopped;
            }
            // After the reports that it speaks of.
            if !outbox.has_next() && outbox.take_answer() {
                let heartbeat = outbox.heartbeat(boottime_ms());
                let _ = to_server.try_send(message(Body::Heartbeat(heartbeat)));
            }
            tokio::select! {
                biased;
                answer = self.from_server.message() => match answer {
                    Ok(Some(answer)) => {
                        self.hear(answer);
                        self.tell_held(&to_server);
                    }
                    Ok(None) => return Ended::Lost("the server ended the stream".to_owned()),
                    Err(status) => return status.into(),
                },
                () = stop.cancelled(), if flush_until.is_none() => {
                    flush_until = Some(Instant::now() + FLUSH_DEADLINE);
                }
                () = until(flush_until) => return Ended::Stopped,
                permit = to_server.reserve(), if outbox.has_next() => match permit {
                    Ok(permit) => if let Some(report) = outbox.take_next(boottime_ms()) {
                        self.answer_due_since.get_or_insert_with(Instant::now);
                        permit.send(message(Body::Report(report)));
                    },
                    Err(_) => return self.last_word().await,
                },
                // After the reports by which the server judges it.
                permit = to_server.reserve(), if !outbox.has_next() && dialogue.has_next() => match permit {
                    Ok(permit) => if let Some(body) = dialogue.take_next(boottime_ms()) {
                        permit.send(message(body));
                    },
                    Err(_) => return self.last_word().await,
                },
                () = outbox.changed() => {}
                () = dialogue.changed() => {}
                _ = beat.tick() => {
                    if let Some(ended) = self.beat(&to_server).await {
                        return ended;
                    }
                }
            }
        }
    }

    fn hear(&mut self, answer: ServerMessage) {
        match answer.body {
            Some(Answer::Ack(ack)) => {
                self.uplink.outbox.acked(&ack.spool_id, ack.number);
                self.answer_due_since = (self.uplink.outbox.in_flight() > 0).then(Instant::now);
            }
            Some(Answer::SendFull(wanted)) => {
                tracing::info!(reason = wanted.reason, "server asks for a full report");
                self.uplink.outbox.want_full();
            }
            Some(Answer::Mark(mark)) => self.uplink.outbox.marked(mark),
            Some(Answer::Policy(policy)) => self.uplink.dialogue.policy(policy, boottime_ms()),
            Some(Answer::PolicyStands(told)) => self.uplink.dialogue.stands(told, boottime_ms()),
            Some(Answer::Go(go)) => self.uplink.dialogue.go(go),
            Some(Answer::OutcomeTaken(taken)) => self.uplink.dialogue.taken(&taken),
            Some(Answer::Trust(trust)) => {
                let keeper = self.uplink.authorities.as_ref();
                self.held = keeper.and_then(|keeper| keeper.told(&trust));
            }
            // What a newer server may say is none of this agent's business.
            Some(Answer::Welcome(_)) | None => {}
        }
    }

    fn tell_held(&mut self, to_server: &mpsc::Sender<AgentMessage>) {
        if let Some(held) = &self.held
            && to_server
                .try_send(message(Body::TrustHeld(held.clone())))
                .is_ok()
        {
            self.held = None;
        }
    }

    // Some: the session is over.
    async fn beat(&mut self, to_server: &mpsc::Sender<AgentMessage>) -> Option<Ended> {
        let patience = self.heartbeat * SILENT_HEARTBEATS;
        if self
            .answer_due_since
            .is_some_and(|since| since.elapsed() > patience)
        {
            return Some(Ended::Lost("the server does not acknowledge".to_owned()));
        }
        let heartbeat = self.uplink.outbox.heartbeat(boottime_ms());
        if to_server
            .try_send(message(Body::Heartbeat(heartbeat)))
            .is_err()
        {
            // The queue is full: as good as a report without an answer.
            self.answer_due_since.get_or_insert_with(Instant::now);
        }
        self.tell_held(to_server);
        self.renew().await
    }

    // New files make a new connection while the old one still carries the session.
    async fn renew(&mut self) -> Option<Ended> {
        let credentials = &self.uplink.credentials;
        let now = stamp(&credentials.files);
        if now == self.made_from {
            return None;
        }
        match dial(&self.uplink.server, credentials).await {
            Ok(line) => {
                tracing::info!("certificate files changed, going over to a new connection");
                Some(Ended::Renewed(line))
            }
            Err(error) => {
                // Whoever could not be reached is asked again with the next heartbeat.
                if error.lasts() {
                    tracing::error!(%error, "certificate files changed and do not work, keeping the connection");
                    self.made_from = now;
                }
                None
            }
        }
    }

    // The request side is gone; the server's reason comes on the other one.
    async fn last_word(&mut self) -> Ended {
        match timeout(CLOSE_DEADLINE, self.from_server.message()).await {
            Ok(Err(status)) => status.into(),
            _ => Ended::Lost("the stream closed".to_owned()),
        }
    }

    async fn close(&mut self) {
        let goodbye = Goodbye {
            reason: "the agent stops".to_owned(),
        };
        if let Some(to_server) = self.to_server.take() {
            let sending = to_server.send(message(Body::Goodbye(goodbye)));
            let _ = timeout(CLOSE_DEADLINE, sending).await;
        }
        let rest = async { while let Ok(Some(_)) = self.from_server.message().await {} };
        let _ = timeout(CLOSE_DEADLINE, rest).await;
    }
}

fn message(body: Body) -> AgentMessage {
    AgentMessage { body: Some(body) }
}

fn heartbeat_interval(welcome: &Welcome) -> Duration {
    match welcome.heartbeat_interval_ms {
        0 => HEARTBEAT_DEFAULT,
        ms => Duration::from_millis(ms.into()).clamp(HEARTBEAT_BOUNDS.0, HEARTBEAT_BOUNDS.1),
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
