//! Drains: who uses more than its quotas grant since they became smaller, until when, and who would have to go.

use gpuquota_core::Group;
use gpuquota_core::State;
use gpuquota_core::id::TenantName;
use gpuquota_core::plan::{Drain, drain_plan};
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::call::{Api, Call};
use crate::rest::names;
use crate::rest::plan::GroupBody;
use crate::rest::reply::Reply;
use crate::rest::status::Problem;
use crate::rest::time;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Drain)]
pub(in crate::rest) struct DrainBody<'a> {
    #[schema(value_type = names::TenantName)]
    tenant: &'a TenantName,
    #[schema(value_type = names::DrainCause)]
    cause: &'static str,
    #[schema(value_type = names::Time)]
    since: String,
    /// From then on leases are ended.
    #[schema(value_type = names::Time)]
    deadline: String,
    /// When they were; absent before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::Time>)]
    enforced_at: Option<String>,
    /// Who would have to go now.
    plan: GroupBody,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct Drains<'a> {
    drains: Vec<DrainBody<'a>>,
    /// Row of the journal that they are as of.
    #[schema(value_type = u64)]
    seq: gpuquota_core::id::Seq,
}

impl<'a> DrainBody<'a> {
    fn of(state: &State, tenant: &'a TenantName, group: &Group, drain: &Drain) -> Self {
        Self {
            tenant,
            cause: drain.cause.as_str(),
            since: time::format(drain.since),
            deadline: time::format(drain.deadline),
            enforced_at: drain.enforced_at.map(time::format),
            plan: GroupBody::of(&drain_plan(state, tenant, group)),
        }
    }
}

/// `GET /api/v1/drains`: those that the caller sees.
pub(in crate::rest) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let committed = call.read(api).await?;
    let state = &committed.state;
    let drains = state.drains();
    let seen = drains.filter(|(tenant, ..)| call.principal.sees(tenant));
    Reply::ok(Drains {
        drains: seen
            .map(|(tenant, group, drain)| DrainBody::of(state, tenant, group, drain))
            .collect(),
        seq: state.seq(),
    })
}
