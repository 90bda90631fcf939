//! The ledger's explanation of a denial as a body: a tree of rules with their figures.

use gpuquota_core::device::DeviceKey;
use gpuquota_core::explanation::{Change, Explanation, Holding, Rule};
use gpuquota_core::id::{
    HostResourceName, LeaseId, LicenceQuotaId, NodeName, QuotaId, SeatId, TenantName,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::names;
use super::native::wire::LimitField;
use super::time;

/// Why the ledger denied, or one of the reasons below that. What is not known, or does not apply, is left out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Explanation)]
pub(super) struct ExplainBody {
    /// Which rule spoke.
    #[schema(value_type = names::RuleName)]
    rule: Rule,
    /// For a person.
    text: String,
    /// What the rule allows: devices, licences or hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::Limit>)]
    limit: Option<LimitField>,
    /// What is charged already.
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    /// Devices that are leased.
    #[serde(skip_serializing_if = "Option::is_none")]
    leased: Option<u64>,
    /// Devices that nodes say are held.
    #[serde(skip_serializing_if = "Option::is_none")]
    observed: Option<u64>,
    /// What was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<u64>,
    /// What of the tenant's own stands against it, soonest end first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    own: Vec<HoldingBody>,
    /// Devices of others that stand against it.
    #[serde(skip_serializing_if = "Option::is_none")]
    others: Option<u64>,
    /// Who the others are; for administrators only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<names::TenantName>)]
    tenants: Vec<TenantName>,
    /// Nodes that it is about; for administrators only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<names::NodeName>)]
    nodes: Vec<NodeName>,
    /// When the first of what stands against it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::Time>)]
    soonest: Option<String>,
    /// The smallest change that would admit it.
    #[serde(skip_serializing_if = "Option::is_none")]
    admit: Option<ChangeBody>,
    /// What it follows from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    because: Vec<ExplainBody>,
}

impl ExplainBody {
    /// All of it; what a caller may not see is taken out before.
    pub(super) fn of(explanation: &Explanation) -> Self {
        Self {
            rule: explanation.rule,
            text: explanation.text.clone(),
            limit: explanation.limit.map(|limit| LimitField(Some(limit))),
            used: explanation.used,
            leased: explanation.leased,
            observed: explanation.observed,
            asked: explanation.asked,
            own: explanation.own.iter().map(HoldingBody::of).collect(),
            others: explanation.others,
            tenants: explanation.tenants.clone(),
            nodes: explanation.nodes.clone(),
            soonest: explanation.soonest.map(time::format),
            admit: explanation.admit.as_ref().map(ChangeBody::of),
            because: explanation.because.iter().map(Self::of).collect(),
        }
    }
}

/// Something held, leased or checked out that stands against a request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Holding)]
struct HoldingBody {
    /// Which device.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::DeviceKey>)]
    device: Option<DeviceKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::NodeName>)]
    node: Option<NodeName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::LeaseId>)]
    lease: Option<LeaseId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    seat: Option<SeatId>,
    /// Devices, or licences.
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::Time>)]
    since: Option<String>,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::Time>)]
    until: Option<String>,
}

impl HoldingBody {
    fn of(holding: &Holding) -> Self {
        Self {
            device: holding.device.clone(),
            node: holding.node.clone(),
            lease: holding.lease,
            seat: holding.seat,
            count: holding.count,
            since: holding.since.map(time::format),
            until: holding.until.map(time::format),
        }
    }
}

/// The smallest change that would admit a request.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "change", rename_all = "snake_case")]
#[schema(as = Change)]
enum ChangeBody {
    /// Ask for so many.
    AskFor { count: u64 },
    /// Raise the limit of this quota, or make one where none is named.
    RaiseLimit {
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<names::QuotaId>)]
        quota: Option<QuotaId>,
        limit: u64,
    },
    /// Set this limit, or a larger one.
    SetLimit {
        #[schema(value_type = names::QuotaId)]
        quota: QuotaId,
        limit: u64,
    },
    /// Give a quota that has ended a later end, and at least this limit.
    ExtendQuota {
        #[schema(value_type = names::QuotaId)]
        quota: QuotaId,
        limit: u64,
    },
    /// Put a quota back in force, with at least this limit.
    ActivateQuota {
        #[schema(value_type = names::QuotaId)]
        quota: QuotaId,
        limit: u64,
    },
    /// Let the tenant have so many hosts of a kind.
    SetHostLimit {
        #[schema(value_type = names::HostResourceName)]
        resource: HostResourceName,
        limit: u64,
    },
    /// Let a licence quota grant so many, active and not ended; or make one where none is named.
    SetLicences {
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<names::LicenceQuotaId>)]
        quota: Option<LicenceQuotaId>,
        max: u64,
    },
    /// Wait until then at the latest: enough ends by itself.
    WaitUntil {
        #[schema(value_type = names::Time)]
        at: String,
    },
    /// Give back, or end, so many of what the tenant has.
    GiveBack { count: u64 },
    /// Ask for a new lease of so many; what this one has cannot be kept longer.
    LeaseElsewhere { count: u64 },
    /// Nothing that the caller could ask for.
    AskOperator,
}

impl ChangeBody {
    fn of(change: &Change) -> Self {
        match change.clone() {
            Change::AskFor { count } => Self::AskFor { count },
            Change::RaiseLimit { quota, limit } => Self::RaiseLimit { quota, limit },
            Change::SetLimit { quota, limit } => Self::SetLimit { quota, limit },
            Change::ExtendQuota { quota, limit } => Self::ExtendQuota { quota, limit },
            Change::ActivateQuota { quota, limit } => Self::ActivateQuota { quota, limit },
            Change::SetHostLimit { resource, limit } => Self::SetHostLimit { resource, limit },
            Change::SetLicences { quota, max } => Self::SetLicences { quota, max },
            Change::WaitUntil { at } => Self::WaitUntil {
                at: time::format(at),
            },
            Change::GiveBack { count } => Self::GiveBack { count },
            Change::LeaseElsewhere { count } => Self::LeaseElsewhere { count },
            Change::AskOperator => Self::AskOperator,
        }
    }
}
