//! Steps that agents asked leave for or told of: who, what, why, by whose word, and what came of it.

use gpuquota_core::State;
use gpuquota_core::device::DeviceKey;
use gpuquota_core::id::{NodeName, QuotaId, Seq, TenantName};
use gpuquota_core::step::{StepId, StepRow};
use serde::Serialize;
use utoipa::ToSchema;

use super::page;
use crate::auth::Role;
use crate::rest::call::{Api, Call};
use crate::rest::names;
use crate::rest::reply::Reply;
use crate::rest::status::Problem;
use crate::rest::time;

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct Steps<'a> {
    /// In order; the newest 4096 of the ledger are kept here, the journal has all.
    steps: Vec<StepBody<'a>>,
    /// `after` of the next page; null on the last one.
    #[schema(value_type = Option<u64>, required)]
    next: Option<u64>,
    /// The journal's row up to which this holds.
    #[schema(value_type = u64)]
    seq: Seq,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Step)]
struct StepBody<'a> {
    id: u64,
    #[schema(value_type = names::NodeName)]
    node: &'a NodeName,
    /// Null: to nobody that the agent's rules know.
    #[schema(value_type = Option<names::TenantName>, required)]
    tenant: Option<&'a TenantName>,
    #[schema(value_type = names::DeviceKey)]
    device: &'a DeviceKey,
    /// `warn`, `restrict`, `term`, `kill`, `kill_scope` or `lift`.
    rung: &'static str,
    /// `squatter`, `foreign`, `over_quota`, `over_node_limit`, `unattributed` or `ghost`.
    class: &'static str,
    /// The process; null where it is about none.
    #[schema(required)]
    pid: Option<u32>,
    /// The quota that the device counted against.
    #[schema(value_type = Option<names::QuotaId>, required)]
    quota: Option<QuotaId>,
    /// Who says how far to go: `quota`, `tenant`, `region` or `settings`; null: it needed no leave.
    #[schema(required)]
    said_by: Option<&'static str>,
    /// Version of the policy that the agent acted by.
    #[schema(value_type = u64)]
    policy: Seq,
    /// The journal's row that allowed it, or told of it where it needed no leave.
    #[schema(value_type = u64)]
    row: Seq,
    /// When that was.
    #[schema(value_type = names::Time)]
    at: String,
    /// `done`, `verified`, `gone`, `refused`, `failed` or `impossible`; null: not known yet.
    #[schema(required)]
    result: Option<&'static str>,
    /// One line for a person.
    detail: &'a str,
    #[schema(value_type = Option<names::Time>, required)]
    ended_at: Option<String>,
}

impl<'a> StepBody<'a> {
    fn of(row: &'a StepRow) -> Self {
        let ended = row.ended.as_ref();
        Self {
            id: row.id.0,
            node: &row.node,
            tenant: row.step.tenant.as_ref(),
            device: &row.step.device,
            rung: row.step.rung.as_str(),
            class: row.step.class.as_str(),
            pid: row.step.pid,
            quota: row.quota,
            said_by: row.said_by.map(|said_by| said_by.as_str()),
            policy: row.version,
            row: row.row,
            at: time::format(row.at),
            result: ended.map(|ended| ended.result.as_str()),
            detail: ended.map_or("", |ended| ended.detail.as_str()),
            ended_at: ended.map(|ended| time::format(ended.at)),
        }
    }
}

/// `GET /api/v1/steps`: those against tenants that the caller sees; against nobody's processes an admin's only.
pub(in crate::rest) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let (tenant, node) = (call.query.single("tenant")?, call.query.single("node")?);
    let (after, limit) = (page::after(&call.query)?, page::limit(&call.query)?);
    let committed = call.read(api).await?;
    let state: &State = &committed.state;
    let is = |wanted: Option<&str>, own: &str| wanted.is_none_or(|it| it == own);
    let wanted = state.steps_after(after.map(StepId)).filter(|row| {
        let of = row.step.tenant.as_ref();
        let seen = match of {
            Some(tenant) => call.principal.sees(tenant),
            None => call.principal.role == Role::Admin,
        };
        seen && is(tenant, of.map_or("", TenantName::as_str)) && is(node, row.node.as_str())
    });
    let mut shown: Vec<&StepRow> = wanted.take(limit + 1).collect();
    let more = shown.len() > limit;
    shown.truncate(limit);
    Reply::ok(Steps {
        next: shown.last().map(|row| row.id.0).filter(|_| more),
        steps: shown.into_iter().map(StepBody::of).collect(),
        seq: state.seq(),
    })
}
