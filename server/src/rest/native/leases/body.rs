//! A lease as it is shown: all of it from the lease itself, so that an answer that is repeated is the same to the byte.

use std::collections::BTreeMap;

use gpuquota_core::device::DeviceKey;
use gpuquota_core::id::{
    DisplayName, Epoch, GpuModel, LabelName, LeaseId, NodeName, ProjectId, Region, Seq, TenantName,
};
use gpuquota_core::lease::{Lease, LeasePhase, Unconfirmed};
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::names;
use crate::rest::time;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Lease)]
pub(in crate::rest) struct LeaseBody<'a> {
    #[schema(value_type = names::LeaseId)]
    id: LeaseId,
    /// Fencing epoch: each grant's is above all before it, so of two claims to a device the higher one counts.
    #[schema(value_type = u64, minimum = 1)]
    epoch: Epoch,
    #[serde(flatten)]
    terms: TermsBody<'a>,
}

impl<'a> LeaseBody<'a> {
    pub(super) fn of(lease: &'a Lease) -> Self {
        Self {
            id: lease.id,
            epoch: lease.epoch,
            terms: TermsBody::of(lease),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LeaseTerms)]
pub(in crate::rest) struct TermsBody<'a> {
    #[schema(value_type = names::TenantName)]
    tenant: &'a TenantName,
    #[schema(value_type = names::Region)]
    region: &'a Region,
    #[schema(value_type = names::GpuModel)]
    gpu_model: &'a GpuModel,
    #[serde(rename = "type")]
    #[schema(value_type = names::QuotaType)]
    quota_type: &'static str,
    /// Source of the quota that had room first when it was granted.
    #[schema(value_type = names::QuotaSource)]
    source: &'static str,
    #[schema(value_type = names::LeaseCount)]
    count: u32,
    #[schema(value_type = names::LeasePlacement)]
    placement: &'static str,
    #[schema(value_type = Option<names::ProjectId>, required)]
    project: Option<&'a ProjectId>,
    /// Empty where the placement is `count_only`.
    devices: Vec<LeasedDevice<'a>>,
    /// The nodes of its devices.
    #[schema(value_type = Vec<names::NodeName>)]
    nodes: Vec<&'a NodeName>,
    /// Logical CPUs that go with it on each of its nodes.
    #[schema(value_type = Option<names::Count>, required)]
    cpu_cores: Option<u32>,
    /// Main memory that goes with it on each of its nodes.
    #[schema(value_type = Option<names::Bytes>, required)]
    memory_bytes: Option<u64>,
    /// The caller's own words.
    #[schema(value_type = names::Labels)]
    labels: &'a BTreeMap<LabelName, DisplayName>,
    #[schema(value_type = names::LeaseState)]
    state: &'static str,
    #[schema(value_type = names::Time)]
    granted_at: String,
    /// From then on it is to end; null is until it is given back.
    #[schema(value_type = Option<names::Time>, required)]
    expires_at: Option<String>,
    /// From then on it is to end, because a node of it serves another tenant alone by now; ask for a new lease elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = names::Time, required = false)]
    leave_by: Option<String>,
    /// Why it is to end, or ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = names::EndReason, required = false)]
    reason: Option<&'static str>,
    /// While it is releasing: since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = names::Time, required = false)]
    releasing_since: Option<String>,
    /// While it is releasing: when waiting ends, unless a node is not heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = names::Time, required = false)]
    deadline: Option<String>,
    /// While it is releasing: the devices that were not seen free yet, and are charged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<names::DeviceKey>, required = false)]
    waiting: Option<Vec<&'a DeviceKey>>,
    /// Once it has ended: when.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = names::Time, required = false)]
    ended_at: Option<String>,
    /// Devices that are charged no more though they were never seen free, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    unconfirmed: Option<Vec<UnconfirmedDevice<'a>>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnconfirmedDevice)]
struct UnconfirmedDevice<'a> {
    #[schema(value_type = names::DeviceKey)]
    device: &'a DeviceKey,
    #[schema(value_type = names::UnconfirmedReason)]
    reason: Unconfirmed,
}

impl<'a> UnconfirmedDevice<'a> {
    fn of((device, reason): (&'a DeviceKey, &Unconfirmed)) -> Self {
        Self {
            device,
            reason: *reason,
        }
    }
}

/// A device, with the parts of its address as `gpuquota-agent devices --json` names them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LeasedDevice)]
struct LeasedDevice<'a> {
    #[schema(value_type = names::DeviceKey)]
    id: &'a DeviceKey,
    #[schema(value_type = names::NodeName)]
    node: &'a NodeName,
    #[schema(value_type = names::DeviceKind)]
    kind: &'static str,
    /// UUID of the GPU or of the vGPU instance; null of a MIG instance, whose address is its GPU and two numbers.
    #[schema(required)]
    uuid: Option<&'a str>,
    /// UUID of the GPU that a MIG instance is on.
    #[schema(required)]
    parent_uuid: Option<&'a str>,
    /// GPU instance.
    #[schema(required)]
    gi: Option<u32>,
    /// Compute instance.
    #[schema(required)]
    ci: Option<u32>,
    /// Product of the GPU, or type of the vGPU instance, as NVML gave it when it was leased. A lease that an earlier
    /// version granted has neither this nor `profile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    model: Option<&'a str>,
    /// Profile of a MIG instance; null of anything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, required = false)]
    profile: Option<Option<&'a str>>,
}

impl<'a> LeasedDevice<'a> {
    fn of(lease: &'a Lease, id: &'a DeviceKey, node: &'a NodeName) -> Self {
        let make = lease.make_of(id);
        let (uuid, mig) = match id {
            DeviceKey::Gpu(uuid) | DeviceKey::Vgpu(uuid) => (Some(uuid.as_str()), None),
            DeviceKey::Mig { gpu, gi, ci } => (None, Some((gpu.as_str(), *gi, *ci))),
        };
        Self {
            id,
            node,
            kind: id.kind().as_str(),
            uuid,
            parent_uuid: mig.map(|(gpu, _, _)| gpu),
            gi: mig.map(|(_, gi, _)| gi),
            ci: mig.map(|(_, _, ci)| ci),
            model: make.map(|make| make.model.as_str()),
            profile: make.map(|make| make.profile.as_deref()),
        }
    }
}

impl<'a> TermsBody<'a> {
    fn of(lease: &'a Lease) -> Self {
        let terms = &lease.terms;
        let device = |(id, node)| LeasedDevice::of(lease, id, node);
        let body = Self {
            tenant: &terms.tenant,
            region: &terms.region,
            gpu_model: &terms.gpu_model,
            quota_type: terms.quota_type.as_str(),
            source: lease.source.as_str(),
            count: terms.count,
            placement: terms.placement.as_str(),
            project: terms.project.as_ref(),
            devices: lease.devices.iter().map(device).collect(),
            nodes: lease.nodes().into_iter().collect(),
            cpu_cores: terms.cpu_cores,
            memory_bytes: terms.memory_bytes,
            labels: &terms.labels,
            state: lease.state(),
            granted_at: time::format(lease.granted_at),
            expires_at: lease.expires_at.map(time::format),
            leave_by: lease.leave_by.map(time::format),
            reason: None,
            releasing_since: None,
            deadline: None,
            waiting: None,
            ended_at: None,
            unconfirmed: None,
        };
        match &lease.phase {
            LeasePhase::Active => body,
            LeasePhase::Releasing {
                since,
                since_row: _,
                reason,
                deadline,
                waiting,
                unconfirmed,
            } => Self {
                reason: Some(reason.as_str()),
                releasing_since: Some(time::format(*since)),
                deadline: Some(time::format(*deadline)),
                waiting: Some(waiting.iter().collect()),
                unconfirmed: Some(unconfirmed.iter().map(UnconfirmedDevice::of).collect()),
                ..body
            },
            LeasePhase::Ended {
                at,
                reason,
                unconfirmed,
            } => Self {
                reason: Some(reason.as_str()),
                ended_at: Some(time::format(*at)),
                unconfirmed: Some(unconfirmed.iter().map(UnconfirmedDevice::of).collect()),
                ..body
            },
        }
    }
}

/// What would be, were it asked for now. It promises nothing, so it names neither number nor epoch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DryRun)]
pub(in crate::rest) struct DryRun<'a> {
    #[schema(value_type = names::True)]
    dry_run: bool,
    lease: TermsBody<'a>,
}

impl<'a> DryRun<'a> {
    pub(super) fn of(lease: &'a Lease) -> Self {
        Self {
            dry_run: true,
            lease: TermsBody::of(lease),
        }
    }
}

/// What a write answers that may be a dry run.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = LeaseOrDryRun)]
#[expect(dead_code, reason = "describes what the two answers are")]
pub(in crate::rest) enum LeaseOrDryRun<'a> {
    Lease(LeaseBody<'a>),
    DryRun(DryRun<'a>),
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct Leases<'a> {
    pub(super) leases: Vec<LeaseBody<'a>>,
    /// What `after` must be for the next page; null where there is none.
    #[schema(value_type = Option<names::LeaseId>, required)]
    pub(super) next: Option<LeaseId>,
    /// The journal's row up to which this holds.
    #[schema(value_type = u64)]
    pub(super) seq: Seq,
}
