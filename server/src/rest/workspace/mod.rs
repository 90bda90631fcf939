//! Document 001, the workspace quota dialect: GET `/v2/{project_id}/quotas`.

mod fault;
mod wire;

use gpuquota_core::id::ProjectId;

use super::call::{Api, Call};
use super::project;
use super::reply::Reply;
use super::status::Problem;

pub(super) use fault::fault;
pub(super) use wire::Answer;

/// What a project may use and uses, at the central site and at each other where it has something.
pub(super) async fn show(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let project = call.named("project_id", ProjectId::new)?;
    let committed = api.ledger.read();
    let state = &committed.state;
    project::check_sight(&call.principal, state, &project)?;
    let tenant = &project::owner(state, &project)?.profile.tenant;
    let numbered = api.dialects.site_id_as_number;
    Reply::ok(wire::answer(state, tenant, &project, numbered))
}
