//! Projects in paths: whose they are, and who may read what concerns them (dialects D0.7, D0.12).

use gpuquota_core::State;
use gpuquota_core::id::ProjectId;
use gpuquota_core::tenant::Tenant;

use super::call::Call;
use super::status::{Kind, Problem};
use crate::auth::{Principal, Role};

/// The project in the path under this name of the pattern. A tenant's own name is a project of it too.
///
/// # Errors
/// When the text is no such name.
pub(super) fn in_path(call: &Call, name: &str) -> Result<ProjectId, Problem> {
    ProjectId::new(call.segment(name)).map_err(|e| Problem::new(Kind::InvalidPath, e.to_string()))
}

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
