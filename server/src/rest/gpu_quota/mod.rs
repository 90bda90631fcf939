//! Document 000, the GPU quota dialect: PUT and DELETE `/api/v1/quotas/:tenant`, GET `/api/v1/quota/user-quotas`.

mod fault;
mod kept;
mod listing;
mod wire;

use gpuquota_core::Command;
use serde::Serialize;
use utoipa::ToSchema;

use super::call::{Api, Call};
use super::plan::PlanBody;
use super::reply::Reply;
use super::status::Problem;

pub(super) use fault::fault;
pub(super) use kept::KeptItems;

/// What a write answers.
#[derive(Serialize, ToSchema)]
#[schema(as = GpuQuota::Done)]
pub(super) struct Done {
    /// 0.
    #[schema(minimum = 0, maximum = 0)]
    code: u32,
    /// What would happen; only with `dry_run`.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<PlanBody>,
}

/// Makes or replaces a quota; `num` 0 releases it by force.
pub(super) async fn put(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let dry_run = wire::dry_run(call)?;
    let command = match wire::read_put(call)? {
        wire::Put::Set(set) => Command::SetQuota(set),
        wire::Put::Release(release) => Command::ReleaseQuota(release),
    };
    write(api, call, command, dry_run).await
}

async fn write(api: &Api, call: &Call, command: Command, dry_run: bool) -> Result<Reply, Problem> {
    if !dry_run {
        call.submit(api, command).await?;
        return Reply::ok(Done {
            code: 0,
            data: None,
        });
    }
    Reply::ok(Done {
        code: 0,
        data: Some(call.plan(api, &command)?),
    })
}

/// Releases a quota; while something is in use only with `?force=true`.
pub(super) async fn delete(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let dry_run = wire::dry_run(call)?;
    let release = wire::read_delete(call)?;
    write(api, call, Command::ReleaseQuota(release), dry_run).await
}

/// What a listing answers.
#[derive(Serialize, ToSchema)]
#[schema(as = GpuQuota::Listed)]
pub(super) struct Listed<'a> {
    /// 0.
    #[schema(minimum = 0, maximum = 0)]
    code: u32,
    data: listing::Page<'a>,
}

/// Lists quotas, grouped and paged by tenant.
pub(super) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let filter = wire::read_filter(call)?;
    let committed = api.ledger.read();
    let state = &committed.state;
    if filter.source.is_none() && filter.quota_type.is_none() {
        let page = listing::page_text(state, &call.principal, &filter, &api.kept.items)?;
        return Ok(Reply::written(page));
    }
    let page = listing::page(state, &call.principal, &filter);
    Reply::ok(Listed {
        code: 0,
        data: page,
    })
}
