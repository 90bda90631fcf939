//! Why nothing was granted, as a tree: what stood against it, in figures, and the smallest change that would admit it.

use serde::{Deserialize, Serialize};

use crate::device::DeviceKey;
use crate::id::{
    HostResourceName, LeaseId, LicenceQuotaId, NodeName, QuotaId, SeatId, TenantName, Timestamp,
};
use crate::limit::Limit;

/// Holdings named in one explanation at most.
pub const MOST_NAMED: usize = 16;

/// Which rule spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The ledger does not know the tenant.
    UnknownTenant,
    /// The project is not the tenant's.
    UnknownProject,
    /// Nothing new is granted to the tenant.
    Frozen,
    /// The tenant is kept on its dedicated nodes.
    Confined,
    /// No quota of the tenant fits.
    NoQuota,
    /// A quota that would fit has ended.
    QuotaEnded,
    /// A quota that would fit is not active.
    QuotaInactive,
    /// More than the quotas that fit.
    OverQuota,
    /// The quota has room, but no device can be given.
    NoDevice,
    /// There is no device of this model in the region.
    UnknownModel,
    /// Devices of nodes that are not heard.
    NodeSilent,
    /// Devices of nodes that are heard again and have not said yet who is on them.
    NodeUnsettled,
    /// Devices of nodes that serve another tenant.
    NodeDedicated,
    /// Devices of nodes of a resource group that the tenant may not use.
    NodeGroup,
    /// Devices of nodes that the request does not name.
    NodeNotNamed,
    /// More than the tenant may have on one node.
    NodeLimit,
    /// Too few CPUs or too little memory on the node, or not known.
    NodeRoom,
    /// Devices that are leased.
    DeviceLeased,
    /// Devices that somebody holds.
    DeviceHeld,
    /// Devices that cannot be read.
    DeviceUnreadable,
    /// They do not fit on so few nodes.
    TooFewNodes,
    /// A limit below what is in use.
    BelowUse,
    /// A release of what is in use.
    InUse,
    /// No GPU has the slice; it has other slices or is whole.
    NoSlice,
    /// More hosts of a kind than the tenant may have.
    HostLimit,
    /// All licences of a product are in use.
    LicencesExhausted,
    /// Fewer licences than are in use.
    LicencesInUse,
    /// A tenant has as many seats as any may have.
    TooManySeats,
    /// The lease is to end or has ended.
    LeaseOver,
}

/// Something held or leased that stands against a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holding {
    /// Which device; `None` for a count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceKey>,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// By which lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
    /// By which seat, of a licence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seat: Option<SeatId>,
    /// Devices, or licences.
    pub count: u64,
    /// Since when; `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Until when, when it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// The smallest change that would admit a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Ask for so many.
    AskFor {
        /// Devices.
        count: u64,
    },
    /// Let the quotas that fit grant so many in all.
    RaiseLimit {
        /// The quota to raise; `None`: there is none, make one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quota: Option<QuotaId>,
        /// Its new limit.
        limit: u64,
    },
    /// Set this limit, or a larger one.
    SetLimit {
        /// The limit of which quota.
        quota: QuotaId,
        /// The smallest limit that is accepted.
        limit: u64,
    },
    /// Give a quota that has ended a later end, and at least this limit.
    ExtendQuota {
        /// Which.
        quota: QuotaId,
        /// Its limit.
        limit: u64,
    },
    /// Put a quota back in force, with at least this limit.
    ActivateQuota {
        /// Which.
        quota: QuotaId,
        /// Its limit.
        limit: u64,
    },
    /// Let the tenant have so many hosts of a kind.
    SetHostLimit {
        /// Which kind.
        resource: HostResourceName,
        /// The smallest limit that is accepted.
        limit: u64,
    },
    /// Let a licence quota grant so many, and be active and not ended.
    SetLicences {
        /// Which; `None`: there is none, make one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quota: Option<LicenceQuotaId>,
        /// The smallest number that is accepted.
        max: u64,
    },
    /// Wait: enough ends by itself.
    WaitUntil {
        /// From when on there is room, at the latest: what ends is charged until its nodes show it free, or are waited
        /// for no more.
        at: Timestamp,
    },
    /// Give back, or end, so many of what the tenant has.
    GiveBack {
        /// Devices.
        count: u64,
    },
    /// Ask for a new lease of so many; what this one has cannot be kept longer.
    LeaseElsewhere {
        /// Devices.
        count: u64,
    },
    /// Nothing that the caller could ask for.
    AskOperator,
}

/// One node of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// Which rule spoke.
    pub rule: Rule,
    /// For a person.
    pub text: String,
    /// What the rule allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// What is charged already: devices, licences or hosts, whatever the rule counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// What is leased, devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leased: Option<u64>,
    /// What nodes say is held, devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<u64>,
    /// What was asked for, devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<u64>,
    /// What of the tenant's own stands against it, at most [`MOST_NAMED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own: Vec<Holding>,
    /// Devices of others that stand against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<u64>,
    /// Who the others are; for administrators only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<TenantName>,
    /// Nodes that it is about, at most [`MOST_NAMED`]; for administrators only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeName>,
    /// When the first of what stands against it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soonest: Option<Timestamp>,
    /// What would admit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admit: Option<Change>,
    /// What it follows from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<Explanation>,
}

impl Explanation {
    /// A rule with nothing but its text.
    #[must_use]
    pub fn new(rule: Rule, text: impl Into<String>) -> Self {
        Self {
            rule,
            text: text.into(),
            limit: None,
            used: None,
            leased: None,
            observed: None,
            asked: None,
            own: Vec::new(),
            others: None,
            tenants: Vec::new(),
            nodes: Vec::new(),
            soonest: None,
            admit: None,
            because: Vec::new(),
        }
    }

    /// As a caller may see it who is no administrator: without other tenants' names and without nodes.
    #[must_use]
    pub fn redacted(&self) -> Self {
        Self {
            tenants: Vec::new(),
            nodes: Vec::new(),
            because: self.because.iter().map(Self::redacted).collect(),
            ..self.clone()
        }
    }
}
