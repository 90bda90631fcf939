//! The HTTP listeners: HTTP/1.1 with bounds on connections, on the time for headers, on the time for which a peer
//! takes nothing of its answer, and on shutdown.
//!
//! With a certificate a listener speaks HTTPS and nothing else; plain HTTP on it is no handshake and gets no answer.
//! An offered `Upgrade: h2c` is answered as HTTP/1.1.

mod https;
mod lingering;
mod stalled;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use http::uri::Scheme;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::reached::Endpoint;
use crate::tls::Certificates;
use https::Https;
use lingering::Lingering;
use stalled::Stalling;

pub(super) use lingering::Unread;

/// Request line and headers at most, bytes; a token of 40000 characters fits.
const LONGEST_HEAD: usize = 48 * 1024;

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// Open connections; further ones wait in the listen queue.
    pub connections: usize,
    /// Time for a request's headers, from its connection or the answer before it.
    pub header_deadline: Duration,
    /// Time for which a peer may take nothing of its answer.
    pub write_deadline: Duration,
    /// Time for answers under way when the server stops.
    pub grace: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            header_deadline: Duration::from_secs(30),
            write_deadline: Duration::from_secs(30),
            grace: Duration::from_secs(5),
        }
    }
}

/// Where clients connect.
#[derive(Debug)]
pub struct HttpListener {
    /// The listening socket.
    pub listener: TcpListener,
    /// With them HTTPS only, without them plain HTTP.
    pub certificates: Option<Arc<Certificates>>,
}

impl From<TcpListener> for HttpListener {
    /// Plain HTTP.
    fn from(listener: TcpListener) -> Self {
        Self {
            listener,
            certificates: None,
        }
    }
}

/// Serves until `stop`, then lets answers under way finish.
pub async fn serve(at: HttpListener, router: Router, limits: ServeLimits, stop: CancellationToken) {
    let bound = at.listener.local_addr().ok();
    let graceful = GracefulShutdown::new();
    let free = Arc::new(Semaphore::new(limits.connections));
    let https = at
        .certificates
        .map(|certificates| Https::new(certificates, free.clone()));
    loop {
        let next = async {
            let room = match &https {
                Some(https) => https.room().await,
                // Never closed, so a permit always comes.
                None => free.clone().acquire_owned().await.ok(),
            };
            (room, at.listener.accept().await)
        };
        let (room, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => next,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: wait for some to be closed.
                tracing::warn!(error = %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Small answers must not wait for the peer's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let endpoint = bound.map(|bound| Endpoint {
            bound,
            local: stream.local_addr().unwrap_or(bound),
        });
        let connection = Connection {
            address,
            endpoint,
            router: router.clone(),
            limits,
            watcher: graceful.watcher(),
        };
        match &https {
            Some(https) => https.begin(stream, connection, room, stop.clone()),
            None => {
                tokio::spawn(connection.answer(stream, Scheme::HTTP, room));
            }
        }
    }
    drop(at.listener);
    if tokio::time::timeout(limits.grace, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("some connections did not end in time");
    }
}

/// A connection before its first request.
struct Connection {
    address: SocketAddr,
    endpoint: Option<Endpoint>,
    router: Router,
    limits: ServeLimits,
    watcher: Watcher,
}

impl Connection {
    // Answers until it ends; `place` is its place among the open connections.
    async fn answer<S>(self, stream: S, scheme: Scheme, place: Option<OwnedSemaphorePermit>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (address, endpoint, router) = (self.address, self.endpoint, self.router);
        let unread = Unread::default();
        let marked = unread.clone();
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            let extensions = request.extensions_mut();
            extensions.insert(ConnectInfo(address));
            extensions.insert(scheme.clone());
            extensions.insert(marked.clone());
            if let Some(endpoint) = endpoint {
                extensions.insert(endpoint);
            }
            router.clone().oneshot(request.map(axum::body::Body::new))
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_deadline)
            .max_headers(64)
            .max_buf_size(LONGEST_HEAD)
            .half_close(false);
        let stream = Stalling::new(stream, self.limits.write_deadline);
        let stream = Lingering::new(stream, unread);
        let connection = http.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = self.watcher.watch(connection).await {
            tracing::debug!(error = %error, peer.address = %address, "connection ended");
        }
        drop(place);
    }
}
