//! Plans of drains as bodies: who would have to go, of one tenant only.

use gpuquota_core::Preview;
use gpuquota_core::device::DeviceKey;
use gpuquota_core::id::{LeaseId, NodeName, Region, TenantName};
use gpuquota_core::plan::{Activity, Displaced, GroupPlan, Plan, Target, Victim};
use gpuquota_core::profile::CanonicalModel;
use gpuquota_core::quota::QuotaType;
use serde::Serialize;
use utoipa::ToSchema;

use super::names;
use super::time;
use crate::auth::Role;

/// What a change to a quota would do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuotaPlan)]
pub(super) struct PlanBody {
    /// Whether the change would be taken as it was asked for.
    taken: bool,
    /// Why it would not.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// Why something has to go; absent where nothing has to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::DrainCause>)]
    cause: Option<&'static str>,
    /// Until when what is over may stay, if the change is made now; absent where nothing has to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::Time>)]
    deadline: Option<String>,
    /// Where limits change or more would be over than is now.
    groups: Vec<GroupBody>,
    /// What else the end of the quota does, where the change alone has its victims before that.
    #[serde(skip_serializing_if = "Option::is_none")]
    at_end: Option<EndBody>,
    /// Others on the nodes of the quota; left out where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<OtherBody>,
}

/// A lease of another tenant on nodes that are to serve one alone, or a device that one holds there without a lease.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DisplacedHolding)]
pub(super) struct OtherBody {
    /// Whose; for administrators only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::TenantName>)]
    tenant: Option<TenantName>,
    #[serde(flatten)]
    holding: VictimBody,
    /// From then on the lease is to end; absent for a device without one, which the ledger cannot end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::Time>)]
    until: Option<String>,
}

impl OtherBody {
    fn of(other: &Displaced, role: Role) -> Self {
        let tenant = match role {
            Role::Admin => Some(other.tenant.clone()),
            Role::TenantAdmin | Role::Viewer => None,
        };
        let count = match &other.what {
            Target::Lease { devices, .. } => devices.iter().fold(0, |count, _| count + 1),
            Target::Device { .. } => 1,
        };
        Self {
            tenant,
            holding: VictimBody::of(&Victim {
                what: other.what.clone(),
                count,
                activity: other.activity,
                since: other.since,
            }),
            until: other.until.map(time::format),
        }
    }
}

/// What the end of a quota does to who is left by then.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuotaEndPlan)]
pub(super) struct EndBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::DrainCause>)]
    cause: Option<&'static str>,
    /// Until when what is over may stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::Time>)]
    deadline: Option<String>,
    /// Where limits change or more would be over than before the end.
    groups: Vec<GroupBody>,
}

impl EndBody {
    fn of(plan: &Plan) -> Self {
        Self {
            cause: plan.due.map(|due| due.cause.as_str()),
            deadline: plan.due.map(|due| time::format(due.deadline)),
            groups: plan.groups.iter().map(GroupBody::of).collect(),
        }
    }
}

impl PlanBody {
    pub(super) fn of(preview: &Preview, role: Role) -> Self {
        let EndBody {
            cause,
            deadline,
            groups,
        } = EndBody::of(&preview.plan);
        Self {
            taken: preview.refused.is_none(),
            message: preview.refused.as_ref().map(ToString::to_string),
            cause,
            deadline,
            groups,
            at_end: preview.at_end.as_ref().map(EndBody::of),
            others: (preview.others.iter())
                .map(|other| OtherBody::of(other, role))
                .collect(),
        }
    }
}

/// What would have to go of one region, type and model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DrainPlan)]
pub(super) struct GroupBody {
    #[schema(value_type = names::Region)]
    region: Region,
    #[schema(value_type = names::QuotaType)]
    quota_type: QuotaType,
    /// In the spelling that the ledger compares.
    #[schema(value_type = names::GpuModel)]
    gpu_model: CanonicalModel,
    /// Devices that the quotas grant together; -1 is unlimited.
    #[schema(minimum = -1)]
    limit_before: i64,
    /// The same after the change.
    #[schema(minimum = -1)]
    limit_after: i64,
    /// Devices charged.
    used: u64,
    /// Devices beyond the limit after the change.
    excess: u64,
    /// Those of them that leave by themselves: their leases are ending, or end by the deadline.
    leaving: u64,
    /// From then on the victims are ended, if they are still there; absent where nothing is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::Time>)]
    deadline: Option<String>,
    /// What goes, in this order: leases, the longest idle first, then the newest; then devices without a lease.
    victims: Vec<VictimBody>,
}

impl GroupBody {
    pub(super) fn of(plan: &GroupPlan) -> Self {
        Self {
            region: plan.group.region.clone(),
            quota_type: plan.group.quota_type,
            gpu_model: plan.group.model.clone(),
            limit_before: limit(plan.limit_before),
            limit_after: limit(plan.limit_after),
            used: plan.used,
            excess: plan.excess,
            leaving: plan.leaving,
            deadline: plan.due.map(|due| time::format(due.deadline)),
            victims: plan.victims.iter().map(VictimBody::of).collect(),
        }
    }
}

fn limit(granted: Option<u64>) -> i64 {
    granted.map_or(-1, |granted| i64::try_from(granted).unwrap_or(i64::MAX))
}

/// A lease, or a device that is held without one.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DrainVictim)]
pub(super) struct VictimBody {
    /// The lease, which goes whole; absent for a device without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1)]
    lease: Option<LeaseId>,
    /// Its devices; none for a lease of a number only.
    devices: Vec<PlaceBody>,
    /// Devices that it is charged for here.
    count: u64,
    #[schema(value_type = names::DrainActivity)]
    activity: &'static str,
    /// Since when no process is on any of its devices; only while it is idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::Time>)]
    idle_since: Option<String>,
    /// Granted, or held, since.
    #[schema(value_type = names::Time)]
    since: String,
}

/// A device and where it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DrainDevice)]
pub(super) struct PlaceBody {
    #[schema(value_type = names::DeviceKey)]
    device: DeviceKey,
    #[schema(value_type = names::NodeName)]
    node: NodeName,
}

impl VictimBody {
    fn of(victim: &Victim) -> Self {
        let place = |device: &DeviceKey, node: &NodeName| PlaceBody {
            device: device.clone(),
            node: node.clone(),
        };
        let (lease, devices) = match &victim.what {
            Target::Lease { lease, devices } => {
                let devices = devices.iter().map(|(device, node)| place(device, node));
                (Some(*lease), devices.collect())
            }
            Target::Device { device, node } => (None, vec![place(device, node)]),
        };
        let (activity, idle_since) = match victim.activity {
            Activity::Idle { since } => ("idle", Some(time::format(since))),
            Activity::InUse => ("in_use", None),
            Activity::Unknown => ("unknown", None),
        };
        Self {
            lease,
            devices,
            count: victim.count,
            activity,
            idle_since,
            since: time::format(victim.since),
        }
    }
}
