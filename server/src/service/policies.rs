//! Which policy each node was sent by this server, and which it says it holds. In memory: it glows and decides nothing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gpuquota_core::id::{NodeName, Seq, Timestamp};

/// By node.
#[derive(Debug, Default)]
pub struct Policies(Mutex<HashMap<NodeName, PolicyOf>>);

/// One node's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyOf {
    /// Version that was sent last.
    pub sent: Seq,
    /// When.
    pub sent_at: Timestamp,
    /// When the first was sent that the agent does not hold, by the boot clock; `None`: it holds the last.
    pub behind_since_ms: Option<u64>,
    /// Version that the agent says it plans and acts by, and when it said so.
    pub held: Option<(Seq, Timestamp)>,
}

impl PolicyOf {
    /// How long the agent has not held what it was sent, milliseconds.
    #[must_use]
    pub fn behind_ms(&self, now_ms: u64) -> u64 {
        let since = self.behind_since_ms;
        since.map_or(0, |since| now_ms.saturating_sub(since))
    }
}

impl Policies {
    /// A policy was sent.
    pub fn sent(&self, node: &NodeName, version: Seq, at: Timestamp, boot_ms: u64) {
        let mut nodes = self.lock();
        let old = nodes.get(node);
        let behind = old.and_then(|old| old.behind_since_ms).unwrap_or(boot_ms);
        let policy = PolicyOf {
            sent: version,
            sent_at: at,
            behind_since_ms: Some(behind),
            held: old.and_then(|old| old.held),
        };
        nodes.insert(node.clone(), policy);
    }

    /// The agent says which it holds.
    pub fn held(&self, node: &NodeName, version: Seq, at: Timestamp) {
        if let Some(policy) = self.lock().get_mut(node) {
            policy.held = Some((version, at));
            if version == policy.sent {
                policy.behind_since_ms = None;
            }
        }
    }

    /// The session ended; another server may have the node by now.
    pub fn gone(&self, node: &NodeName) {
        self.lock().remove(node);
    }

    /// What this server knows of a node's policy.
    #[must_use]
    pub fn of(&self, node: &NodeName) -> Option<PolicyOf> {
        self.lock().get(node).copied()
    }

    // The map is plain data: a panic elsewhere leaves nothing half done in it.
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeName, PolicyOf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_behind_from_the_first_policy_that_it_does_not_hold() {
        let (policies, node) = (Policies::default(), NodeName::new("n").unwrap());
        policies.held(&node, Seq(1), Timestamp(0));
        assert_eq!(policies.of(&node), None);
        policies.sent(&node, Seq(2), Timestamp(5), 100);
        policies.sent(&node, Seq(3), Timestamp(6), 200);
        policies.held(&node, Seq(2), Timestamp(7));
        assert_eq!(policies.of(&node).unwrap().behind_ms(250), 150);
        policies.held(&node, Seq(3), Timestamp(8));
        assert_eq!(policies.of(&node).unwrap().behind_ms(900), 0);
        policies.sent(&node, Seq(4), Timestamp(9), 950);
        assert_eq!(policies.of(&node).unwrap().behind_ms(960), 10);
    }
}
