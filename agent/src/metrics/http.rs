//! The listener: `GET /metrics` and `GET /healthz`, a bounded number of connections, little patience.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, VARY, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use gpuquota_proto::exposition::{Format, Misnamed, admits};

use crate::clock::boottime_ms;
use crate::report::wire::nvml_text;

use super::dcgm::{self, Dcgm};
use super::room::Room;
use super::snapshot::{Board, View};
use super::text;

/// A request's head is whole within this after its first byte.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// A connection ends after this, so that nobody can hold one for ever.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(600);
const BUFFER_BYTES: usize = 16 << 10;
/// After an accept failed, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const PLAIN: &str = "text/plain; charset=utf-8";

/// Who answers scrapes, and with what.
#[derive(Debug)]
pub struct Server {
    /// Where the loop leaves its passes.
    pub board: Arc<Board>,
    /// Token that every request must carry.
    pub token: Option<String>,
    /// How rows with DCGM's names are labelled.
    pub dcgm: Dcgm,
}

impl Server {
    /// Answers until `stop`.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let server = Arc::new(self);
        let room = Arc::<Room>::default();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            };
            let end = stop.child_token();
            room.enter(end.clone(), boottime_ms());
            tokio::spawn(Arc::clone(&server).attend(stream, Arc::clone(&room), end));
            // Whoever came is heard before the next one can take its place.
            tokio::task::yield_now().await;
        }
    }

    async fn attend(self: Arc<Self>, stream: TcpStream, room: Arc<Room>, end: CancellationToken) {
        let asked = end.clone();
        let answer = service_fn(move |request| {
            let now_ms = boottime_ms();
            room.asks(&asked, now_ms);
            let response = self.answer(&request, now_ms);
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let conversation = async {
            // Who says nothing needs no buffers.
            if stream.readable().await.is_err() {
                return;
            }
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_DEADLINE)
                .max_buf_size(BUFFER_BYTES)
                .serve_connection(TokioIo::new(stream), answer);
            // How a scraper leaves is its own affair.
            let _ = connection.await;
        };
        tokio::select! {
            _ = tokio::time::timeout(CONNECTION_DEADLINE, conversation) => {}
            () = end.cancelled() => {}
        }
        end.cancel();
    }

    fn answer(&self, request: &Request<Incoming>, now_ms: u64) -> Response<Full<Bytes>> {
        self.respond(request.method(), request.uri(), request.headers(), now_ms)
    }

    fn respond(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        now_ms: u64,
    ) -> Response<Full<Bytes>> {
        let path = uri.path();
        if !matches!(path, "/metrics" | "/healthz") {
            return plain(StatusCode::NOT_FOUND, "not found\n");
        }
        if method != Method::GET && method != Method::HEAD {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allowed);
            return response;
        }
        let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        if !admits(self.token.as_deref(), authorization) {
            let mut response = plain(StatusCode::UNAUTHORIZED, "unauthorized\n");
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            return response;
        }
        let view = self.board.view(now_ms);
        if path == "/healthz" {
            return health(&view);
        }
        match compat(uri.query().unwrap_or_default()) {
            None => {
                let format = Format::wanted(headers.get(ACCEPT).map(HeaderValue::as_bytes));
                let mut response = scraped(text::render(&view, format), format);
                let varies = HeaderValue::from_static("Accept");
                response.headers_mut().insert(VARY, varies);
                response
            }
            Some("dcgm") => {
                self.board.wants_more(now_ms);
                scraped(dcgm::render(&view, &self.dcgm), Format::Text)
            }
            Some(_) => plain(StatusCode::BAD_REQUEST, "compat knows only dcgm\n"),
        }
    }
}

/// The value of `compat` in a query; the last one, as nobody writes two.
fn compat(query: &str) -> Option<&str> {
    let pairs = query.rsplit('&').filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(name, _)| *name == "compat")
        .map(|(_, value)| value)
        .next()
}

fn scraped(text: Result<Vec<u8>, Misnamed>, format: Format) -> Response<Full<Bytes>> {
    match text {
        Ok(text) => with_type(StatusCode::OK, format.content_type(), text),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n")
        }
    }
}

// Alive means that the loop goes round; what else is wrong is told, but restarting the agent would not cure it.
fn health(view: &View) -> Response<Full<Bytes>> {
    let mut text = String::new();
    let _ = writeln!(text, "{}", if view.alive { "ok" } else { "stuck" });
    if let Some(observation) = &view.pass.observation {
        let (state, _) = nvml_text(&observation.nvml);
        let _ = writeln!(text, "nvml {state}");
    }
    let server = match &view.reporting {
        None => "none",
        Some(reporting) if reporting.connected => "connected",
        Some(_) => "away",
    };
    let _ = writeln!(text, "server {server}");
    let spool = view
        .reporting
        .as_ref()
        .is_some_and(|r| r.spool.in_memory_only);
    if spool {
        let _ = writeln!(text, "spool memory only");
    }
    let _ = writeln!(text, "mode report only");
    let status = if view.alive {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    with_type(status, PLAIN, text.into_bytes())
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    with_type(status, PLAIN, text.as_bytes().to_vec())
}

fn with_type(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a scrape");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
