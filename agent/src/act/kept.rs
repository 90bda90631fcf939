//! What is denied to whom, written down for the agent that comes after this one: the kernel knows the groups and the nodes, but
//! not for whom.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::plan::Wanted;
use crate::state::{read_own, write_for_this_boot};

const FILE: &str = "restrictions";
/// Largest file that is read, bytes.
const LIMIT: u64 = 1 << 20;

/// The file.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    boot_id: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    boot_id: String,
    valid_for_ms: u64,
    restricted: Vec<Wanted>,
}

/// What the agent before this one left.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// How long its last policy could be followed without the server, milliseconds.
    pub(super) valid_for_ms: u64,
    pub(super) restricted: Vec<Wanted>,
}

impl Kept {
    pub(super) fn new(state: &Path, boot_id: &str) -> Self {
        Self {
            path: state.join(FILE),
            boot_id: boot_id.to_owned(),
        }
    }

    /// Nothing when it is of another boot or cannot be read: what the kernel denies then is taken away, and asked for anew by
    /// the ladder.
    pub(super) fn load(&self) -> Left {
        let read = read_own(&self.path, LIMIT);
        let contents = read
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Contents>(&bytes).ok());
        let contents = contents.filter(|contents| contents.boot_id == self.boot_id);
        let left = |contents: Contents| Left {
            valid_for_ms: contents.valid_for_ms,
            restricted: contents.restricted,
        };
        contents.map(left).unwrap_or_default()
    }

    pub(super) fn save(&self, valid_for_ms: u64, restricted: Vec<Wanted>) {
        let contents = Contents {
            boot_id: self.boot_id.clone(),
            valid_for_ms,
            restricted,
        };
        let written = serde_json::to_vec(&contents)
            .map_err(Into::into)
            .and_then(|bytes| write_for_this_boot(&self.path, &bytes));
        if let Err(error) = written {
            tracing::error!(%error, "what is denied cannot be written down; the next agent takes it away and begins anew");
        }
    }
}
