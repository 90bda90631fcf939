//! Whose certificate each node showed last, whose it was given since, and whom it trusts. It tells this itself with each session, so it
//! lives in memory only.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gpuquota_core::id::{NodeName, Timestamp};
use gpuquota_proto::pinned::Pin;

/// By node.
#[derive(Debug, Default)]
pub struct Authorities(Mutex<HashMap<NodeName, Held>>);

/// Of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Whose certificate it showed.
    pub certificate_by: Option<Pin>,
    /// What this server gave it and it has not shown yet.
    pub given: Option<Given>,
    /// Whom it trusts; `None`: it did not say.
    pub trusts: Option<Vec<Pin>>,
}

/// A certificate that a node was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Who signed it.
    pub by: Pin,
    /// Its serial number.
    pub serial: String,
    /// Its end.
    pub until: Timestamp,
}

impl Authorities {
    /// A session began with the certificate of this serial number, of this one.
    pub fn showed(&self, node: &NodeName, certificate_by: Option<Pin>, serial: &str) {
        let mut all = self.lock();
        let held = all.entry(node.clone()).or_default();
        held.certificate_by = certificate_by;
        held.given.take_if(|given| given.serial == serial);
    }

    /// The node was given a certificate, and with it those whom to trust. Until it says otherwise it trusts them.
    pub fn gave(&self, node: &NodeName, given: Given, trust: Vec<Pin>) {
        let mut all = self.lock();
        let held = all.entry(node.clone()).or_default();
        held.given = Some(given);
        held.trusts.get_or_insert(trust);
    }

    /// Nodes that have not shown yet what they were given, at `now`.
    #[must_use]
    pub fn given(&self, now: Timestamp) -> Vec<NodeName> {
        let mut all = self.lock();
        for held in all.values_mut() {
            held.given.take_if(|given| given.until <= now);
        }
        let waiting = all.iter().filter(|(_, held)| held.given.is_some());
        waiting.map(|(node, _)| node.clone()).collect()
    }

    /// The node said whom it trusts.
    pub fn trusts(&self, node: &NodeName, trusts: Vec<Pin>) {
        self.lock().entry(node.clone()).or_default().trusts = Some(trusts);
    }

    /// What is known of a node.
    #[must_use]
    pub fn of(&self, node: &NodeName) -> Option<Held> {
        self.lock().get(node).cloned()
    }

    /// How many of these nodes have a certificate of each authority, and how many trust it.
    #[must_use]
    pub fn counts<'a>(
        &self,
        nodes: impl Iterator<Item = &'a NodeName>,
    ) -> BTreeMap<Pin, (u32, u32)> {
        let all = self.lock();
        let mut counts = BTreeMap::<Pin, (u32, u32)>::new();
        for held in nodes.filter_map(|node| all.get(node)) {
            if let Some(by) = held.certificate_by {
                counts.entry(by).or_default().0 += 1;
            }
            for pin in held.trusts.iter().flatten() {
                counts.entry(*pin).or_default().1 += 1;
            }
        }
        counts
    }

    // Plain data: a panic elsewhere leaves nothing half done in it.
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeName, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
