//! Document 000, the GPU quota dialect: PUT and DELETE `/api/v1/quotas/:tenant`, GET `/api/v1/quota/user-quotas`.

mod fault;
mod kept;
mod listing;
mod wire;

use gpuquota_core::Command;
use serde::Serialize;
use serde_json::json;

use super::call::{Api, Call};
use super::reply::Reply;
use super::status::Problem;

pub(super) use fault::fault;
pub(super) use kept::KeptItems;

/// Makes or replaces a quota; `num` 0 releases it by force.
pub(super) async fn put(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let command = match wire::read_put(call)? {
        wire::Put::Set(set) => Command::SetQuota(set),
        wire::Put::Release(release) => Command::ReleaseQuota(release),
    };
    call.submit(api, command).await?;
    Reply::ok(json!({ "code": 0 }))
}

/// Releases a quota; while something is in use only with `?force=true`.
pub(super) async fn delete(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let release = wire::read_delete(call)?;
    call.submit(api, Command::ReleaseQuota(release)).await?;
    Reply::ok(json!({ "code": 0 }))
}

#[derive(Serialize)]
struct Listed<'a> {
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
        return Ok(Reply::written(format!(r#"{{"code":0,"data":{page}}}"#)));
    }
    let page = listing::page(state, &call.principal, &filter);
    Reply::ok(Listed {
        code: 0,
        data: page,
    })
}
