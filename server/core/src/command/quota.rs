//! Quotas as callers name and change them.

use std::collections::BTreeSet;

use crate::id::{GpuModel, NodeName, QuotaId, Reference, Region, TenantName, Timestamp};
use crate::limit::Limit;
use crate::quota::{QuotaSource, QuotaType};

/// How a caller names a quota (dialects D1.2, D1.3, D1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaName {
    /// Whose.
    pub tenant: TenantName,
    /// Where.
    pub region: Region,
    /// From where.
    pub source: QuotaSource,
    /// Which model.
    pub gpu_model: GpuModel,
    /// Type, if the caller says it; else it follows from `reference` or the model.
    pub quota_type: Option<QuotaType>,
    /// The caller's own number.
    pub reference: Option<Reference>,
}

/// Make or replace a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetQuota {
    /// Which.
    pub name: QuotaName,
    /// The new total, not a difference.
    pub limit: Limit,
    /// `None`: it never ends.
    pub expires_at: Option<Timestamp>,
    /// Nodes that serve this tenant alone; makes the quota dedicated.
    pub nodes: Option<BTreeSet<NodeName>>,
    /// What becomes of a change that leaves something in use unjustified.
    pub on_excess: OnExcess,
}

/// What becomes of a change to a quota that leaves something in use unjustified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExcess {
    /// It is refused.
    #[default]
    Deny,
    /// It is taken; what is over has the notice of the settings to leave, and is then drained.
    Drain,
}

/// Put a quota out of force, or back into it; its terms stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchQuota {
    /// Which.
    pub quota: QuotaId,
    /// Whether it is to grant.
    pub active: bool,
    /// What becomes of a change that leaves something in use unjustified.
    pub on_excess: OnExcess,
}

/// Take a quota away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseQuota {
    /// Which.
    pub name: QuotaName,
    /// Also while something is in use.
    pub forced: bool,
    /// Whether there being none is an error.
    pub must_exist: bool,
}
