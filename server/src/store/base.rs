//! A base: the state that stands for rows which were moved into an archive.

use gpuquota_core::id::{Seq, Timestamp};

use super::Hash;

/// The state after some row, as text; what it means is the service's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Last row in it.
    pub seq: Seq,
    /// Time of that row.
    pub at: Timestamp,
    /// Hash of that row.
    pub head: Hash,
    /// Which version of the state's JSON.
    pub format: u32,
    /// Of `state`.
    pub digest: Hash,
    /// The state as JSON.
    pub state: String,
}
