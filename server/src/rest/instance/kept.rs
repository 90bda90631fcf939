//! What is in a resource group, kept until a node changes: a group may have thousands of them.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use gpuquota_core::State;
use gpuquota_core::id::{GroupName, Seq};
use gpuquota_core::node::NodeState;

use super::hardware::Hardware;

/// Groups kept at most; a group that is asked for beyond that is counted each time.
const MOST: usize = 4096;

/// The groups that somebody asked for.
#[derive(Debug, Default)]
pub(in crate::rest) struct KeptGroups(RwLock<HashMap<GroupName, (Seq, Figures)>>);

/// What is in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Figures {
    /// Its largest node.
    pub(super) largest: Hardware,
    /// Nodes that are heard.
    pub(super) up: usize,
}

impl KeptGroups {
    /// Figures of a group.
    pub(super) fn of(&self, state: &State, group: &GroupName) -> Figures {
        let changed = state.changes().of_nodes();
        // Figures are put in whole, so a panic elsewhere leaves nothing half done.
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((seq, figures)) = known.get(group)
            && (changed..=state.seq()).contains(seq)
        {
            return *figures;
        }
        drop(known);
        let figures = Figures::of(state, group);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MOST || known.contains_key(group) {
            known.insert(group.clone(), (state.seq(), figures));
        }
        figures
    }
}

impl Figures {
    fn of(state: &State, group: &GroupName) -> Self {
        let nodes = state.nodes_in(group).filter_map(|name| state.node(name));
        Self {
            largest: Hardware::largest(state, group),
            up: nodes.filter(|node| node.state == NodeState::Up).count(),
        }
    }
}
