//! Document 004, the dedicated-host quota dialect: GET `/v1.0/{project_id}/quota-sets/{tenant_id}`.

mod fault;
mod wire;

use gpuquota_core::id::ProjectId;

use super::call::{Api, Call};
use super::project;
use super::reply::Reply;
use super::status::Problem;
use crate::auth::Role;

pub(super) use fault::fault;
pub(super) use wire::Answer;

/// Hosts that may be and are bound to a tenant, by kind. Only an admin asks from another tenant's project (D5.3).
pub(super) async fn show(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let project = call.named("project_id", ProjectId::new)?;
    let asked = call.named("tenant_id", ProjectId::new)?;
    let committed = api.ledger.read();
    let state = &committed.state;
    project::check_sight(&call.principal, state, &project)?;
    project::check_sight(&call.principal, state, &asked)?;
    let order = |project| state.tenant_of_project(project).map(|owner| owner.order);
    if call.principal.role != Role::Admin && order(&project) != order(&asked) {
        return Err(project::out_of_sight());
    }
    let resource = call.query.single("resource")?;
    project::owner(state, &project)?;
    let tenant = &project::owner(state, &asked)?.profile.tenant;
    Reply::ok(wire::answer(state, tenant, resource))
}
