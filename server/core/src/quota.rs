//! Quotas: what a tenant may hold.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::enforcement::Enforcement;
use crate::id::{GpuModel, NodeName, QuotaId, Reference, Region, TenantName, Timestamp};
use crate::limit::Limit;
use crate::profile::CanonicalModel;
use crate::state::Group;

/// Where an entitlement comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaSource {
    /// Bought; consumed first.
    Purchase,
    /// Given by the platform.
    Assign,
}

impl QuotaSource {
    /// The word of the wire and of metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Purchase => "purchase",
            Self::Assign => "assign",
        }
    }
}

impl std::str::FromStr for QuotaSource {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "purchase" => Ok(Self::Purchase),
            "assign" => Ok(Self::Assign),
            _ => Err(()),
        }
    }
}

/// Which devices a quota is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaType {
    /// Full GPUs of the region.
    Flexible,
    /// Devices of the nodes it names, which serve nobody else.
    Dedicated,
    /// MIG instances of the region.
    Mig,
    /// vGPU instances of the region.
    Vgpu,
}

impl QuotaType {
    /// The word of the wire and of metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flexible => "flexible",
            Self::Dedicated => "dedicated",
            Self::Mig => "mig",
            Self::Vgpu => "vgpu",
        }
    }
}

impl fmt::Display for QuotaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for QuotaType {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "flexible" => Ok(Self::Flexible),
            "dedicated" => Ok(Self::Dedicated),
            "mig" => Ok(Self::Mig),
            "vgpu" => Ok(Self::Vgpu),
            _ => Err(()),
        }
    }
}

/// What makes a quota that quota (dialects D1.2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaKey {
    /// Whose it is.
    pub tenant: TenantName,
    /// Where it holds.
    pub region: Region,
    /// Where it comes from.
    pub source: QuotaSource,
    /// Which devices it is about.
    #[serde(rename = "type")]
    pub quota_type: QuotaType,
    /// Which model, as the caller spelled it.
    pub gpu_model: GpuModel,
}

/// One entitlement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Our number.
    pub id: QuotaId,
    /// What makes it that quota.
    pub key: QuotaKey,
    /// The model it matches, whatever its spelling.
    pub model: CanonicalModel,
    /// How much.
    pub limit: Limit,
    /// From then on it grants nothing.
    pub expires_at: Option<Timestamp>,
    /// `expires_at` has been reached.
    pub expired: bool,
    /// Not active: somebody took it out of force, and may put it back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub switched_off: bool,
    /// The caller's own number.
    pub reference: Option<Reference>,
    /// Nodes of a dedicated quota; empty for every other type.
    pub nodes: BTreeSet<NodeName>,
    /// Days before its end at which the tenant was last told of it; `None`: not yet.
    pub noticed: Option<u32>,
    /// What agents do about what is over it; `None`: its tenant says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Quota {
    /// What it is a quota of.
    #[must_use]
    pub fn group(&self) -> Group {
        Group {
            region: self.key.region.clone(),
            quota_type: self.key.quota_type,
            model: self.model.clone(),
        }
    }

    /// Whether it grants and binds anything: it has not ended and is active.
    #[must_use]
    pub fn in_force(&self) -> bool {
        !self.expired && !self.switched_off
    }

    /// What it lets the tenant hold now.
    #[must_use]
    pub fn grants(&self) -> Limit {
        if !self.in_force() {
            Limit::Finite(0)
        } else {
            self.limit
        }
    }

    /// It keeps other tenants off this node.
    #[must_use]
    pub fn binds(&self, node: &NodeName) -> bool {
        self.in_force() && self.nodes.contains(node)
    }
}
