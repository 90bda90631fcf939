//! The REST surface on a running ledger, and its listener where that is easier told from inside.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use gpuquota_core::id::{ProjectId, TenantName, Timestamp};
use gpuquota_server::auth::token::{Grant, TokenKey};
use gpuquota_server::auth::{Authenticator, Limiter, Role};
use gpuquota_server::config::Dialects;
use gpuquota_server::rest::{Api, Kept, ServeLimits, router, serve};
use gpuquota_server::service::liveness::Liveness;
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::running::{Running, START, SetClock};

/// The router over a ledger, and an admin's token.
pub(crate) struct Rest {
    router: Router,
    token: String,
}

/// One answer, whole.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Told {
    async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// Status and text, to compare two answers.
    pub(crate) fn said(&self) -> (u16, &str) {
        (self.status, &self.text)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

fn key() -> TokenKey {
    TokenKey::new(&[7; 32]).unwrap()
}

/// A token of this role for these tenants and projects.
pub(crate) fn token(role: Role, tenants: &[&str], projects: &[&str]) -> String {
    let tenants = tenants.iter().map(|name| TenantName::new(name).unwrap());
    let projects = projects.iter().map(|id| ProjectId::new(id).unwrap());
    let grant = Grant {
        subject: "t".into(),
        role,
        tenants: tenants.collect(),
        projects: projects.collect(),
        user: None,
        container: None,
    };
    key().issue(&grant, "id", Timestamp(START), 60).unwrap()
}

impl Rest {
    pub(crate) fn on(running: &Running) -> Self {
        Self::with(running, Dialects::default())
    }

    pub(crate) fn with(running: &Running, dialects: Dialects) -> Self {
        Self::of(running, dialects, Authenticator::own(key()))
    }

    pub(crate) fn of(running: &Running, dialects: Dialects, tokens: Authenticator) -> Self {
        let api = Api {
            ledger: running.ledger.clone(),
            clock: running.clock.clone(),
            liveness: Arc::new(Liveness::new(0)),
            tokens: Arc::new(tokens),
            dialects,
            limiter: Arc::new(Limiter::default()),
            kept: Kept::default(),
        };
        Self {
            router: router(Arc::new(api)),
            token: token(Role::Admin, &[], &[]),
        }
    }

    /// Sends any request.
    pub(crate) async fn send(&self, request: http::request::Builder, body: &str) -> Response {
        let request = request.body(Body::from(body.to_owned())).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn ask(&self, method: &str, target: &str) -> Response {
        let bearer = format!("Bearer {}", self.token);
        let headers = [
            ("authorization", bearer.as_str()),
            ("x-request-id", "mine-1"),
        ];
        self.plain(method, target, &headers).await
    }

    async fn plain(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = http::Request::builder().method(method).uri(target);
        for (name, value) in headers {
            // Bytes, as a caller may send what is not ASCII.
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request = request.header(*name, value);
        }
        let request = request.body(Body::empty()).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// A request with these headers and no others.
    pub(crate) async fn told(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Told {
        Told::of(self.plain(method, target, headers).await).await
    }

    /// A write by an admin.
    pub(crate) async fn write(&self, method: &str, target: &str, body: &str) -> Told {
        let request = http::Request::builder().method(method).uri(target);
        let request = request.header("authorization", format!("Bearer {}", self.token));
        Told::of(self.send(request, body).await).await
    }

    /// A read by an admin.
    pub(crate) async fn read(&self, target: &str, headers: &[(&str, &str)]) -> Told {
        let bearer = format!("Bearer {}", self.token);
        let headers = [headers, &[("authorization", bearer.as_str())]].concat();
        self.told("GET", target, &headers).await
    }

    /// GET with this token in `X-Auth-Token`.
    pub(crate) async fn get(&self, target: &str, token: &str) -> Told {
        self.told("GET", target, &[("x-auth-token", token)]).await
    }

    /// The same with an admin's token.
    pub(crate) async fn admin(&self, target: &str) -> Told {
        self.get(target, &self.token).await
    }
}

#[tokio::test]
async fn health_too_echoes_the_request_id_and_says_which_methods_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    let rest = Rest::on(&running);
    for (method, status) in [("GET", 200), ("POST", 405), ("TRACE", 405)] {
        let answer = rest.ask(method, "/healthz").await;
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["x-request-id"], "mine-1", "{method}");
        let allowed = answer.headers().get("allow");
        assert_eq!(allowed.is_some(), status == 405, "{method}");
    }
    running.end().await;
}

#[tokio::test]
async fn case_28_a_parameter_that_is_no_utf_8_is_refused_and_not_read_as_another() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    let rest = Rest::on(&running);
    let target = "/api/v1/quotas/a?quota_source=assign&gpu_model=m&region=";
    let absent = rest.ask("DELETE", &format!("{target}US")).await;
    assert_eq!(absent.status(), 404);
    for bytes in ["%FF", "%C3", "US%80"] {
        let refused = rest.ask("DELETE", &format!("{target}{bytes}")).await;
        assert_eq!(refused.status(), 400, "{bytes}");
    }
    running.end().await;
}

#[tokio::test]
async fn a_listener_with_all_its_connections_taken_still_stops() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = ServeLimits {
        connections: 1,
        ..ServeLimits::default()
    };
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(listener.into(), Router::new(), limits, stop.clone()));
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    assert!(idle.read(&mut [0; 512]).await.unwrap() > 0);
    stop.cancel();
    let stopped = tokio::time::timeout(Duration::from_secs(4), served).await;
    assert!(stopped.is_ok(), "it waits for a connection to end");
}

#[tokio::test]
async fn a_token_of_40000_characters_fits_however_it_arrives() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let limits = ServeLimits::default();
    let served = tokio::spawn(serve(listener.into(), Router::new(), limits, stop.clone()));
    for piece in [1000, 50_000] {
        let mut caller = TcpStream::connect(address).await.unwrap();
        caller.set_nodelay(true).unwrap();
        let token = "t".repeat(40_000);
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {token}\r\n\r\n");
        for part in head.as_bytes().chunks(piece) {
            // A server that has enough of it hangs up.
            let _ = caller.write_all(part).await;
            tokio::task::yield_now().await;
        }
        let mut answer = [0; 12];
        caller.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 404", "pieces of {piece}");
    }
    stop.cancel();
    served.await.unwrap();
}

#[tokio::test]
async fn whoever_never_reads_its_answer_gives_its_place_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = ServeLimits {
        connections: 1,
        write_deadline: Duration::from_millis(50),
        ..ServeLimits::default()
    };
    // More than any socket's buffers hold.
    let router = Router::new().fallback(|| async { vec![0_u8; 64 * 1024 * 1024] });
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(listener.into(), router, limits, stop.clone()));
    let mut first = Vec::new();
    for _ in 0..2 {
        let mut asking = TcpStream::connect(address).await.unwrap();
        asking
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut byte = [0; 1];
        let begun = tokio::time::timeout(Duration::from_secs(20), asking.read(&mut byte)).await;
        assert!(matches!(begun, Ok(Ok(1))), "the place is not given back");
        first.push(asking);
    }
    stop.cancel();
    served.await.unwrap();
}
