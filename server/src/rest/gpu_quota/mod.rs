//! Document 000, the GPU quota dialect: PUT and DELETE `/api/v1/quotas/:tenant`, GET `/api/v1/quota/user-quotas`.

mod fault;
mod kept;
mod listing;
mod wire;

use gpuquota_core::Command;
use serde::Serialize;
use utoipa::ToSchema;

use super::call::{Api, Call};
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
}

/// Makes or replaces a quota; `num` 0 releases it by force.
pub(super) async fn put(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let command = match wire::read_put(call)? {
        wire::Put::Set(set) => Command::SetQuota(set),
        wire::Put::Release(release) => Command::ReleaseQuota(release),
    };
    call.submit(api, command).await?;
    Reply::ok(Done { code: 0 })
}

/// Releases a quota; while something is in use only with `?force=true`.
pub(super) async fn delete(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let release = wire::read_delete(call)?;
    call.submit(api, Command::ReleaseQuota(release)).await?;
    Reply::ok(Done { code: 0 })
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
