//! Projects: whose they are, and who may read what concerns them (dialects D0.7).

use gpuquota_core::State;
use gpuquota_core::id::ProjectId;
use gpuquota_core::tenant::Tenant;

use super::status::{Kind, Problem};
use crate::auth::{Principal, Role};

/// Lets those pass who may read what concerns the project.
///
/// # Errors
/// For everybody else, in the same words whether there is such a project or not.
pub(super) fn check_sight(
    principal: &Principal,
    state: &State,
    project: &ProjectId,
) -> Result<(), Problem> {
    let admitted = match principal.role {
        Role::Admin => true,
        Role::TenantAdmin | Role::Viewer => {
            state.tenant_of_project(project).is_some() && principal.sees_project(state, project)
        }
    };
    if admitted {
        Ok(())
    } else {
        Err(out_of_sight())
    }
}

/// What those hear who may not read what concerns a project.
pub(super) fn out_of_sight() -> Problem {
    Problem::new(Kind::Forbidden, "this token gives no right to this project")
}

/// The tenant whose project this is.
///
/// # Errors
/// When it is nobody's; only for callers who may know.
pub(super) fn owner<'a>(state: &'a State, project: &ProjectId) -> Result<&'a Tenant, Problem> {
    let missing = || {
        Problem::new(
            Kind::NoSuchObject,
            "no tenant has this name or this project; make the tenant, or give the project to one",
        )
    };
    state.tenant_of_project(project).ok_or_else(missing)
}
