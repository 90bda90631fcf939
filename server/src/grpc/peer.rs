//! The node at the other end of a connection.

use std::net::SocketAddr;

use gpuquota_core::id::NodeName;

/// Who is at the other end of a connection, as its certificate says.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) node: NodeName,
    pub(super) serial: String,
    pub(super) not_after_unix_s: i64,
    pub(super) address: SocketAddr,
}
