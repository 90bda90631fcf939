//! The node at the other end of a connection.

use std::net::SocketAddr;

use gpuquota_core::id::NodeName;
use gpuquota_proto::pinned::Pin;

/// Who is at the other end of a connection; without a certificate it may only join.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) peer: Option<Peer>,
    pub(super) address: SocketAddr,
}

/// Who is at the other end of a connection, as its certificate says.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) node: NodeName,
    pub(super) serial: String,
    pub(super) not_after_unix_s: i64,
    /// The authority behind its certificate.
    pub(super) authority: Option<Pin>,
    pub(super) address: SocketAddr,
}
