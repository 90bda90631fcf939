//! A server for tests: real TLS and HTTP/2 with certificates made on the spot, and a switch for each way to misbehave.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use gpuquota_proto::agent_v1::agent_message::Body;
use gpuquota_proto::agent_v1::agent_server::{Agent, AgentServer};
use gpuquota_proto::agent_v1::server_message::Body as Answer;
use gpuquota_proto::agent_v1::{
    Ack, AgentMessage, Go, Heartbeat, Intent, Mark, Outcome, OutcomeTaken, Policy, PolicyHeld,
    Report, SendFull, ServerMessage, Welcome,
};
use gpuquota_proto::identity::node_uri;
use gpuquota_proto::tls::{TlsFiles, server_config};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// A certificate authority and the files of everybody it names.
pub(crate) struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self(Issuer::new(params, key), pem)
    }

    fn issue(&self, dir: &Path, name: &str, san: SanType, server: bool, days: i64) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![san];
        params.extended_key_usages = vec![if server {
            ExtendedKeyUsagePurpose::ServerAuth
        } else {
            ExtendedKeyUsagePurpose::ClientAuth
        }];
        let day = i64::from(24 * 3600);
        let now = crate::clock::unix_s();
        let date = |unix_s: i64| {
            let (year, month, of_month) = civil(unix_s.div_euclid(day));
            rcgen::date_time_ymd(year, month, of_month)
        };
        params.not_before = date(now - 10 * day);
        params.not_after = date(now + days * day);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let files = TlsFiles {
            ca: dir.join("ca.crt"),
            certificate: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
        };
        fs::write(&files.ca, &self.1).unwrap();
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        files
    }

    /// Files of an agent; they end in `days`, which may be past.
    pub(crate) fn agent(&self, dir: &Path, node: &str, days: i64) -> TlsFiles {
        let uri = node_uri(node).as_str().try_into().unwrap();
        self.issue(dir, "agent", SanType::URI(uri), false, days)
    }

    pub(crate) fn server(&self, dir: &Path) -> TlsFiles {
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        self.issue(dir, "server", address, true, 2)
    }
}

// Days since 1970 as year, month, day.
fn civil(days: i64) -> (i32, u8, u8) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    let day = doy - (153 * mp + 2) / 5 + 1;
    let small = |n: i64| u8::try_from(n).unwrap();
    (i32::try_from(year).unwrap(), small(month), small(day))
}

/// What the server has seen and how it behaves.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) sessions: u64,
    pub(crate) deliveries: Vec<Report>,
    pub(crate) applied: Vec<Report>,
    pub(crate) last: BTreeMap<String, u64>,
    pub(crate) heartbeats: Vec<Heartbeat>,
    pub(crate) goodbyes: u64,
    /// Applies the next report and then cuts the connection instead of acknowledging it.
    pub(crate) lose_next_ack: bool,
    pub(crate) held: Vec<PolicyHeld>,
    pub(crate) intents: Vec<Intent>,
    pub(crate) outcomes: Vec<Outcome>,
    /// No step is allowed.
    pub(crate) allow_nothing: bool,
    /// Sent after each welcome.
    pub(crate) policy: Option<Policy>,
    /// Takes everything and acknowledges nothing.
    pub(crate) mute: bool,
    /// Ends each session with this after the Hello.
    pub(crate) refuse: Option<Status>,
    /// Asks for a full report after the next heartbeat.
    pub(crate) ask_full: bool,
    /// Says after the next heartbeat that its journal has gone on to this row.
    pub(crate) tell_mark: Option<u64>,
}

#[derive(Clone)]
struct Service(Arc<Mutex<Book>>, Arc<Mutex<Vec<AbortHandle>>>);

/// The server; it ends with this value.
pub(crate) struct FakeServer {
    pub(crate) address: SocketAddr,
    service: Service,
    tasks: JoinSet<()>,
}

impl FakeServer {
    pub(crate) async fn start(files: &TlsFiles) -> Self {
        Self::start_at(files, "127.0.0.1:0".parse().unwrap(), Arc::default()).await
    }

    pub(crate) async fn start_at(
        files: &TlsFiles,
        address: SocketAddr,
        book: Arc<Mutex<Book>>,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server_config(files).unwrap()));
        let service = Service(book, Arc::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, acceptor, service.clone()));
        Self {
            address,
            service,
            tasks,
        }
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.service.0.lock().unwrap()
    }

    /// Stops listening, cuts every connection, and gives what it knows to its successor.
    pub(crate) async fn stop(mut self) -> Arc<Mutex<Book>> {
        self.tasks.shutdown().await;
        self.cut();
        self.service.0.clone()
    }

    pub(crate) fn cut(&self) {
        self.service.cut();
    }

    /// Waits until the book satisfies this.
    pub(crate) async fn until(&self, what: &str, mut holds: impl FnMut(&Book) -> bool) {
        for _ in 0..1000 {
            if holds(&self.book()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not within 10 s: {what}");
    }
}

impl Service {
    fn cut(&self) {
        for connection in self.1.lock().unwrap().drain(..) {
            connection.abort();
        }
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, service: Service) {
    let mut connections = JoinSet::new();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let acceptor = acceptor.clone();
        let shared = service.clone();
        let connection = connections.spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else {
                return;
            };
            let service = TowerToHyperService::new(AgentServer::new(shared));
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(tls), service)
                .await;
        });
        service.1.lock().unwrap().push(connection);
    }
}

#[tonic::async_trait]
impl Agent for Service {
    type SessionStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<ServerMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let service = self.clone();
        let (answers, stream) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                for answer in service.hear(message) {
                    if answers.send(answer).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

impl Service {
    fn hear(&self, message: AgentMessage) -> Vec<Result<ServerMessage, Status>> {
        let mut book = self.0.lock().unwrap();
        let answer = |body| Ok(ServerMessage { body: Some(body) });
        match message.body.unwrap() {
            Body::Hello(_) => {
                book.sessions += 1;
                let welcome = Welcome {
                    session: book.sessions,
                    heartbeat_interval_ms: 100,
                    server_version: "test".into(),
                    mark: Some(Mark {
                        session: book.sessions,
                        seq: 1,
                    }),
                };
                let refusal = book.refuse.clone().map(Err);
                let policy = book
                    .policy
                    .clone()
                    .map(|policy| answer(Answer::Policy(policy)));
                std::iter::once(answer(Answer::Welcome(welcome)))
                    .chain(policy)
                    .chain(refusal)
                    .collect()
            }
            Body::PolicyHeld(held) => {
                book.held.push(held);
                Vec::new()
            }
            Body::Intent(intent) => {
                let allowed = (0..).zip(&intent.steps).map(|(at, _)| at);
                let go = Go {
                    id: intent.id,
                    allowed: allowed.filter(|_| !book.allow_nothing).collect(),
                    refused: String::new(),
                };
                book.intents.push(intent);
                match book.mute {
                    true => Vec::new(),
                    false => vec![answer(Answer::Go(go))],
                }
            }
            Body::Outcome(outcome) => {
                let taken = OutcomeTaken {
                    boot_id: outcome.boot_id.clone(),
                    number: outcome.number,
                };
                book.outcomes.push(outcome);
                match book.mute {
                    true => Vec::new(),
                    false => vec![answer(Answer::OutcomeTaken(taken))],
                }
            }
            Body::Report(report) => {
                let Report {
                    spool_id, number, ..
                } = report.clone();
                book.deliveries.push(report.clone());
                let last = book.last.entry(spool_id.clone()).or_default();
                if number > *last {
                    if number != *last + 1 && !report.full {
                        let reason = "a gap".to_owned();
                        return vec![answer(Answer::SendFull(SendFull { reason }))];
                    }
                    *last = number;
                    book.applied.push(report);
                }
                if std::mem::take(&mut book.lose_next_ack) {
                    self.cut();
                    return Vec::new();
                }
                if book.mute {
                    return Vec::new();
                }
                vec![answer(Answer::Ack(Ack { spool_id, number }))]
            }
            Body::Heartbeat(heartbeat) => {
                book.heartbeats.push(heartbeat);
                let ask = std::mem::take(&mut book.ask_full);
                let reason = "test".to_owned();
                let session = book.sessions;
                let mark = book.tell_mark.take();
                let mark = mark.map(|seq| answer(Answer::Mark(Mark { session, seq })));
                ask.then(|| answer(Answer::SendFull(SendFull { reason })))
                    .into_iter()
                    .chain(mark)
                    .collect()
            }
            // It tells nobody of authorities.
            Body::TrustHeld(_) => Vec::new(),
            Body::Goodbye(_) => {
                book.goodbyes += 1;
                Vec::new()
            }
        }
    }
}
