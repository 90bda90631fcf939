//! What the operator says of a node.

use std::collections::BTreeSet;

use crate::id::{GroupName, NodeName, Region};
use crate::pool::Inventory;

/// Say where a node stands and belongs; what is `None` stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclareNode {
    /// Which node.
    pub node: NodeName,
    /// Where it stands.
    pub region: Region,
    /// Its resource groups; empty: its GPU products stand for them.
    pub groups: Option<BTreeSet<GroupName>>,
    /// What is in it, until its agent says so.
    pub inventory: Option<Inventory>,
}

impl DeclareNode {
    /// Says where a node stands and nothing else.
    #[must_use]
    pub fn at(node: NodeName, region: Region) -> Self {
        Self {
            node,
            region,
            groups: None,
            inventory: None,
        }
    }
}
