//! HTTPS connections: the handshake first, then a place among the open connections, so that handshakes that never end
//! take no place from anybody.

use std::sync::Arc;

use http::uri::Scheme;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::Connection;
use crate::tls::{Certificates, Handshakes, handshake};

/// Handshakes under way at once. More than the agents' listener has: a portal's clients come in bursts, often all from
/// one proxy, and do not dial again as agents do.
const HANDSHAKES: usize = 1024;

/// The HTTPS side of a listener.
pub(super) struct Https {
    certificates: Arc<Certificates>,
    handshakes: Handshakes,
    free: Arc<Semaphore>,
}

impl Https {
    /// `free` are the places for open connections.
    pub(super) fn new(certificates: Arc<Certificates>, free: Arc<Semaphore>) -> Self {
        Self {
            certificates,
            handshakes: Handshakes::new(HANDSHAKES),
            free,
        }
    }

    /// Room for one more handshake.
    pub(super) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        self.handshakes.room().await
    }

    /// Shakes hands and answers, in a task of its own.
    pub(super) fn begin(
        &self,
        stream: TcpStream,
        connection: Connection,
        room: Option<OwnedSemaphorePermit>,
        stop: CancellationToken,
    ) {
        let address = connection.address;
        let Some(begun) = self.handshakes.begin(address.ip()) else {
            tracing::debug!(peer.address = %address, "too many handshakes from one address");
            return;
        };
        let (acceptor, free) = (self.certificates.acceptor(), self.free.clone());
        tokio::spawn(async move {
            let ready = async {
                let shaken = handshake(acceptor, stream).await;
                drop(begun);
                let stream = shaken
                    .inspect_err(|error| {
                        // Everybody's mistakes and every scanner come by here: no line of the usual log.
                        tracing::debug!(peer.address = %address, error = %error, "no TLS connection");
                    })
                    .ok()?;
                let place = free.acquire_owned().await.ok();
                drop(room);
                Some((stream, place))
            };
            let ready = tokio::select! {
                () = stop.cancelled() => None,
                ready = ready => ready,
            };
            if let Some((stream, place)) = ready {
                connection.answer(stream, Scheme::HTTPS, place).await;
            }
        });
    }
}
