//! One node's session spoken by the test itself: an agent that says exactly what the test wants.

use std::time::Duration;

use gpuquota_proto::agent_v1::agent_message::Body as ToServer;
use gpuquota_proto::agent_v1::server_message::Body as FromServer;
use gpuquota_proto::agent_v1::{
    AgentMessage, DeviceHealth, DeviceKey, DeviceKind, DeviceState, Hello, Mark, Report,
    ServerMessage,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::mtls::{Papers, client};
use crate::quota::GPU;
use crate::server::Server;

const DEADLINE: Duration = Duration::from_secs(10);

/// An open session.
#[derive(Debug)]
pub struct Session {
    to_server: mpsc::Sender<AgentMessage>,
    from_server: Streaming<ServerMessage>,
    /// Number of the session.
    pub number: u64,
    /// The newest mark that the server gave.
    pub mark: Option<Mark>,
}

impl Session {
    /// Opens a session of `node` with a certificate made by `issue-agent`.
    pub async fn of(server: &Server, node: &str) -> Self {
        let dir = server.home().join(format!("agent-{node}"));
        if !dir.exists() {
            let _ = server.issue_agent(node);
        }
        let papers = Papers::read(&dir, "agent");
        Self::open(server, &papers, hello(node)).await.unwrap()
    }

    /// Opens a session with these papers and this greeting.
    ///
    /// # Errors
    /// With the status that the server gives, or `UNKNOWN` when there is no connection at all.
    pub async fn open(server: &Server, papers: &Papers, hello: Hello) -> Result<Self, Status> {
        let client = client(server.agents, &server.dir, Some(papers)).await;
        let mut client = client.map_err(Status::unknown)?;
        let (to_server, messages) = mpsc::channel(64);
        let first = AgentMessage {
            body: Some(ToServer::Hello(hello)),
        };
        to_server.send(first).await.unwrap();
        let call = client.session(ReceiverStream::new(messages));
        let answer = tokio::time::timeout(DEADLINE, call).await;
        let answer = answer.map_err(|_| Status::unknown("no answer in time"))??;
        let mut session = Self {
            to_server,
            from_server: answer.into_inner(),
            number: 0,
            mark: None,
        };
        match session.next().await? {
            FromServer::Welcome(welcome) => {
                session.number = welcome.session;
                session.mark = welcome.mark;
            }
            other => panic!("no welcome but {other:?}"),
        }
        Ok(session)
    }

    /// Sends a message; whether it can be heard shows in `next`.
    pub async fn send(&self, body: ToServer) {
        let _ = self.to_server.send(AgentMessage { body: Some(body) }).await;
    }

    /// The server's next message that is no mark; marks are kept.
    ///
    /// # Errors
    /// With the status that ends the stream; `OK` when it just ends.
    pub async fn next(&mut self) -> Result<FromServer, Status> {
        loop {
            match self.any().await? {
                FromServer::Mark(mark) => self.mark = Some(mark),
                other => return Ok(other),
            }
        }
    }

    /// Waits for a mark of this row or a later one.
    ///
    /// # Errors
    /// With the status that ends the stream.
    pub async fn marked(&mut self, row: u64) -> Result<(), Status> {
        while self.mark.is_none_or(|mark| mark.seq < row) {
            match self.any().await? {
                FromServer::Mark(mark) => self.mark = Some(mark),
                other => panic!("no mark but {other:?}"),
            }
        }
        Ok(())
    }

    // What it says of policies answers nothing that was said.
    async fn any(&mut self) -> Result<FromServer, Status> {
        loop {
            let heard = tokio::time::timeout(DEADLINE, self.from_server.message()).await;
            match heard {
                Err(_) => return Err(Status::deadline_exceeded("the server says nothing")),
                Ok(Ok(Some(message))) => match message.body.expect("a body") {
                    FromServer::Policy(_) | FromServer::PolicyStands(_) | FromServer::Trust(_) => {}
                    other => return Ok(other),
                },
                Ok(Ok(None)) => return Err(Status::ok("the stream ended")),
                Ok(Err(status)) => return Err(status),
            }
        }
    }

    /// Sends a report and waits for the answer to it.
    ///
    /// # Errors
    /// With the status that ends the stream instead.
    pub async fn report(&mut self, report: Report) -> Result<FromServer, Status> {
        self.send(ToServer::Report(report)).await;
        self.next().await
    }

    /// Sends a report that must be taken, read just now unless it says when.
    pub async fn acked(&mut self, mut report: Report) {
        let number = report.number;
        report.read_after = report.read_after.or(self.mark);
        match self.report(report).await {
            Ok(FromServer::Ack(ack)) => assert_eq!(ack.number, number),
            other => panic!("no ack of {number} but {other:?}"),
        }
    }

    /// The code with which the server ends the stream, whatever it still says before.
    pub async fn end(&mut self) -> Code {
        loop {
            if let Err(status) = self.next().await {
                return status.code();
            }
        }
    }
}

/// A greeting.
#[must_use]
pub fn hello(node: &str) -> Hello {
    Hello {
        node: node.to_owned(),
        agent_version: "test".to_owned(),
        boot_id: "boot-1".to_owned(),
        spool_id: "spool-1".to_owned(),
    }
}

/// A full report of these devices in spool `spool-1`.
#[must_use]
pub fn full(number: u64, devices: Vec<DeviceState>) -> Report {
    Report {
        boot_id: "boot-1".to_owned(),
        spool_id: "spool-1".to_owned(),
        number,
        age_ms: Some(0),
        full: true,
        devices,
        ..Report::default()
    }
}

/// A healthy full GPU held by these tenants.
#[must_use]
pub fn gpu(uuid: &str, tenants: &[&str]) -> DeviceState {
    DeviceState {
        key: Some(DeviceKey {
            gpu_uuid: uuid.to_owned(),
            ..DeviceKey::default()
        }),
        kind: DeviceKind::Gpu.into(),
        health: DeviceHealth::Ok.into(),
        model: "NVIDIA H100 80GB HBM3".to_owned(),
        gpu_model: GPU.to_owned(),
        tenants: tenants.iter().map(|tenant| (*tenant).to_owned()).collect(),
        ..DeviceState::default()
    }
}
