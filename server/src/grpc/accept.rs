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
use gpuquota_proto::agent_v1::joining_server::JoiningServer;
use gpuquota_proto::agent_v1::leasing_server::LeasingServer;
use gpuquota_proto::authorities::behind_client;
use gpuquota_proto::form::NodeForm;
use gpuquota_proto::identity::peer_identity_as;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::joining::JoinService;
use super::leasing::LeaseService;
use super::peer::{Caller, Peer};
use super::route::Route;
use super::stream::AgentService;
use crate::tls::{AgentConfigs, Certificates, Handshakes, agents_handshake};

/// Handshakes under way at once.
const HANDSHAKES: usize = 256;
/// Connections without a certificate at once, and how long one may last: a node joins in one call.
const JOINING: usize = 64;
const JOIN_DEADLINE: Duration = Duration::from_secs(30);
/// Largest message of joining either way, and of asking for leases, in bytes.
const SMALL_MESSAGE: usize = 64 * 1024;
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// Where agents connect, and with which certificates.
#[derive(Debug)]
pub struct AgentListener {
    /// The listening socket.
    pub listener: TcpListener,
    /// Read again for every connection that finds them changed.
    pub certificates: Arc<Certificates>,
    /// How certificates name nodes.
    pub form: NodeForm,
}

/// Serves agents until `stop`.
///
/// # Errors
/// When HTTP/2 fails as a whole.
pub async fn serve(
    listener: AgentListener,
    service: AgentService,
    (joining, leasing): (JoinService, LeaseService),
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (accepted, incoming) = mpsc::channel(64);
    let accepting = tokio::spawn(accept(listener, accepted, stop.clone()));
    let agents = AgentServer::new(service)
        .max_decoding_message_size(MESSAGE_LIMIT_BYTES)
        .max_encoding_message_size(MESSAGE_LIMIT_BYTES);
    let joining = JoiningServer::new(joining)
        .max_decoding_message_size(SMALL_MESSAGE)
        .max_encoding_message_size(SMALL_MESSAGE);
    let leasing = LeasingServer::new(leasing)
        .max_decoding_message_size(SMALL_MESSAGE)
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
            Route {
                agents,
                joining,
                leasing,
            },
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
    let joining = Arc::new(Semaphore::new(JOINING));
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
        let (configs, accepted) = (agents.certificates.configs(), accepted.clone());
        let (joining, form) = (joining.clone(), agents.form.clone());
        tokio::spawn(async move {
            let shaken = identified(configs, &form, joining, stream, address).await;
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
    configs: AgentConfigs,
    form: &NodeForm,
    joining: Arc<Semaphore>,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<AgentConnection> {
    let _ = stream.set_nodelay(true);
    let refused = |reason: &dyn std::fmt::Display| {
        tracing::warn!(peer.address = %address, reason = %reason, "an agent's connection was refused");
    };
    let authorities = configs.authorities.clone();
    let (stream, joins) = match agents_handshake(configs, stream).await {
        Ok(stream) => stream,
        Err(error) => {
            refused(&error);
            return None;
        }
    };
    if joins {
        return match joining.try_acquire_owned() {
            Ok(room) => Some(AgentConnection {
                stream,
                caller: Caller {
                    peer: None,
                    address,
                },
                joining: Some((room, Box::pin(tokio::time::sleep(JOIN_DEADLINE)))),
            }),
            Err(_) => {
                refused(&"too many are joining");
                None
            }
        };
    }
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let identity = match certificates
        .first()
        .map(|leaf| peer_identity_as(leaf, form))
    {
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
    let authority = behind_client(certificates, &authorities);
    match NodeName::new(&identity.node) {
        Ok(node) => Some(AgentConnection {
            stream,
            caller: Caller {
                peer: Some(Peer {
                    node,
                    serial: identity.serial,
                    not_after_unix_s: identity.not_after_unix_s,
                    authority,
                    address,
                }),
                address,
            },
            joining: None,
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
    caller: Caller,
    /// Its place among those that join, and its end.
    joining: Option<(OwnedSemaphorePermit, Pin<Box<Sleep>>)>,
}

impl Connected for AgentConnection {
    type ConnectInfo = Caller;
    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for AgentConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some((_, end)) = &mut self.joining
            && end.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
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
