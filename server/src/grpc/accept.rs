//! Accepting agents: TCP, TLS handshake with a deadline, identity, then HTTP/2 by tonic.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use gpuquota_core::id::NodeName;
use gpuquota_proto::MESSAGE_LIMIT_BYTES;
use gpuquota_proto::agent_v1::agent_server::AgentServer;
use gpuquota_proto::identity::peer_identity;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::peer::Peer;
use super::stream::AgentService;
use crate::tls::{Certificates, Handshakes, handshake};

/// Handshakes under way at once.
const HANDSHAKES: usize = 256;
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// Where agents connect, and with which certificates.
#[derive(Debug)]
pub struct AgentListener {
    /// The listening socket.
    pub listener: TcpListener,
    /// Read again for every connection that finds them changed.
    pub certificates: Arc<Certificates>,
}

/// Serves agents until `stop`.
///
/// # Errors
/// When HTTP/2 fails as a whole.
pub async fn serve(
    agents: AgentListener,
    service: AgentService,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (accepted, incoming) = mpsc::channel(64);
    let accepting = tokio::spawn(accept(agents, accepted, stop.clone()));
    let service = AgentServer::new(service)
        .max_decoding_message_size(MESSAGE_LIMIT_BYTES)
        .max_encoding_message_size(MESSAGE_LIMIT_BYTES);
    let served = tonic::transport::Server::builder()
        .max_concurrent_streams(4)
        .concurrency_limit_per_connection(4)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .http2_max_header_list_size(16 * 1024)
        .http2_max_pending_accept_reset_streams(Some(16))
        .http2_max_local_error_reset_streams(Some(64))
        .serve_with_incoming_shutdown(
            service,
            ReceiverStream::new(incoming),
            stop.cancelled_owned(),
        )
        .await;
    accepting.abort();
    Ok(served?)
}

async fn accept(
    agents: AgentListener,
    accepted: mpsc::Sender<io::Result<AgentConnection>>,
    stop: CancellationToken,
) {
    let handshakes = Handshakes::new(HANDSHAKES);
    loop {
        let room = handshakes.room().await;
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = agents.listener.accept() => next,
        };
        let (stream, address) = match next {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept an agent's connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(begun) = handshakes.begin(address.ip()) else {
            tracing::debug!(peer.address = %address, "too many handshakes from one address");
            continue;
        };
        let (acceptor, accepted) = (agents.certificates.acceptor(), accepted.clone());
        tokio::spawn(async move {
            let shaken = identified(acceptor, stream, address).await;
            drop(begun);
            if let Some(connection) = shaken {
                // The server has stopped when nobody takes it.
                let _ = accepted.send(Ok(connection)).await;
            }
            drop(room);
        });
    }
}

async fn identified(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<AgentConnection> {
    let _ = stream.set_nodelay(true);
    let refused = |reason: &dyn std::fmt::Display| {
        tracing::warn!(peer.address = %address, reason = %reason, "an agent's connection was refused");
    };
    let stream = match handshake(acceptor, stream).await {
        Ok(stream) => stream,
        Err(error) => {
            refused(&error);
            return None;
        }
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let identity = match certificates.first().map(|leaf| peer_identity(leaf)) {
        Some(Ok(identity)) => identity,
        Some(Err(error)) => {
            refused(&error);
            return None;
        }
        None => {
            refused(&"no client certificate");
            return None;
        }
    };
    match NodeName::new(&identity.node) {
        Ok(node) => Some(AgentConnection {
            stream,
            peer: Peer {
                node,
                serial: identity.serial,
                not_after_unix_s: identity.not_after_unix_s,
                address,
            },
        }),
        Err(error) => {
            refused(&error);
            None
        }
    }
}

/// A connection whose peer is known.
struct AgentConnection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

impl Connected for AgentConnection {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for AgentConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for AgentConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
