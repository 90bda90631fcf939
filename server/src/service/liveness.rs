//! When each node was last heard. Heartbeats change nothing in the ledger, so this lives in memory only.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gpuquota_core::id::NodeName;

use super::authorities::Authorities;
use super::policies::Policies;

/// Last signs of life, in milliseconds of the boot clock.
#[derive(Debug)]
pub struct Liveness {
    started_ms: u64,
    nodes: Mutex<HashMap<NodeName, Heard>>,
    /// Which policy each node was sent, and holds.
    pub policies: Policies,
    /// Whose certificate each node has, and whom it trusts.
    pub authorities: Authorities,
}

/// One node's last signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Last message.
    pub at_ms: u64,
    /// When the newest good reading that the node spoke of was taken; `None`: it has none yet.
    pub collected_ms: Option<u64>,
}

impl Liveness {
    /// Nobody was heard yet; `now_ms` counts as the last sign of every node that the journal knows.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self {
            started_ms: now_ms,
            nodes: Mutex::default(),
            policies: Policies::default(),
            authorities: Authorities::default(),
        }
    }

    /// A message came.
    pub fn heard(&self, node: &NodeName, now_ms: u64) {
        let mut nodes = self.lock();
        if let Some(heard) = nodes.get_mut(node) {
            heard.at_ms = now_ms;
        } else {
            let heard = Heard {
                at_ms: now_ms,
                collected_ms: None,
            };
            nodes.insert(node.clone(), heard);
        }
    }

    /// A message came that says how old the node's newest good reading is.
    pub fn collected(&self, node: &NodeName, now_ms: u64, age_ms: Option<u64>) {
        let collected_ms = age_ms.map(|age| now_ms.saturating_sub(age));
        let heard = Heard {
            at_ms: now_ms,
            collected_ms,
        };
        self.lock().insert(node.clone(), heard);
    }

    /// What is known of a node since this server runs.
    #[must_use]
    pub fn of(&self, node: &NodeName) -> Option<Heard> {
        self.lock().get(node).copied()
    }

    /// How long nothing was heard of a node.
    #[must_use]
    pub fn silent_ms(&self, node: &NodeName, now_ms: u64) -> u64 {
        let last = self.of(node).map_or(self.started_ms, |heard| heard.at_ms);
        now_ms.saturating_sub(last)
    }

    // The map is plain data: a panic elsewhere leaves nothing half done in it.
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeName, Heard>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
