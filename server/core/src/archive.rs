//! Where a journal ended, and where its old rows went.

use serde::{Deserialize, Serialize};

use crate::id::Seq;

/// Rows that were written to an archive, and the base that stands for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Last row in the archive.
    pub through: Seq,
    /// Hash of that row, hexadecimal.
    pub head: String,
    /// SHA-256 of the archive's file, hexadecimal.
    pub file: String,
    /// SHA-256 of the state after that row as the base holds it, hexadecimal.
    pub base: String,
}

/// A row and its hash: where some journal ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Which row.
    pub seq: Seq,
    /// Its hash, hexadecimal.
    pub hash: String,
}
