//! Operations of the native API on tenants.

use gpuquota_core::tenant::MOST_PROJECTS;
use serde_json::{Value, json};

use super::body::Body;
use super::operation::Operation;
use crate::rest::names;
use crate::rest::native::tenants::{HostLimitBody, TenantBody, Tenants};
use crate::rest::status::Kind;

/// `GET /api/v1/tenants`.
pub(in crate::rest) fn list() -> Operation {
    Operation::new(
        "listTenants",
        "List tenants",
        "Those of the token; an admin sees all.",
    )
    .past()
    .answers::<Tenants<'_>>(json!({ "tenants": [tenant()] }))
}

/// `GET /api/v1/tenants/{tenant}`.
pub(in crate::rest) fn get() -> Operation {
    Operation::new(
        "getTenant",
        "Show a tenant",
        "A tenant of another token is answered as one that is not there.",
    )
    .path::<names::TenantName>("tenant", "The tenant's slug.")
    .problem(Kind::NoSuchObject)
    .past()
    .tagged()
    .answers::<TenantBody<'_>>(tenant())
}

/// `PUT /api/v1/tenants/{tenant}`.
pub(in crate::rest) fn put() -> Operation {
    let body = Body::new()
        .optional::<names::Number>(
            "id",
            "Its number in portals, unique; a new tenant without one gets a free number.",
        )
        .optional::<names::DisplayName>("name", "For people.")
        .optional::<names::Code>("code", "A short technical name, unique.")
        .optional_list::<names::ProjectId>(
            "projects",
            0..=MOST_PROJECTS,
            "All its projects; none may be another tenant's.",
        )
        .optional::<names::Flag>("frozen", "While it is, nothing new is granted to it.")
        .optional::<names::Flag>(
            "confined",
            "While it has dedicated nodes it is granted nothing elsewhere.",
        )
        .optional::<names::EnforcementFields>(
            "enforcement",
            "How far agents go about what it holds beyond its right; null: as its region says.",
        )
        .optional::<names::ChosenLeaseMode>(
            "lease_mode",
            "Whether what it runs needs a lease; `default` is as its region says.",
        );
    let example = json!({ "id": 2, "name": "示例公司", "code": "DEMO_COMPANY", "projects": ["29dfe82ada564ac2b927e1ff036d9a9b"] });
    Operation::new(
        "putTenant",
        "Make or change a tenant",
        "What the body leaves out stays as it is.",
    )
    .path::<names::TenantName>("tenant", "The tenant's slug.")
    .body(body, example)
    .problem(Kind::IdTaken)
    .conditional()
    .tagged()
    .answers::<TenantBody<'_>>(tenant())
}

/// `PUT /api/v1/tenants/{tenant}/host-limits/{resource}`.
pub(in crate::rest) fn put_host_limit() -> Operation {
    let body = Body::new().required_or_null::<names::Limit>(
        "hard_limit",
        "Hosts; -1 is unlimited, null is none set.",
    );
    Operation::new(
        "putHostLimit",
        "Limit a tenant's dedicated hosts of a kind",
        "How many hosts may be bound to the tenant; below what is bound it is 409.",
    )
    .path::<names::TenantName>("tenant", "The tenant's slug.")
    .path::<names::HostResourceName>("resource", "The kind of host.")
    .body(body, json!({ "hard_limit": 5 }))
    .problem(Kind::NoSuchObject)
    .problem(Kind::OverLimit)
    .answers::<HostLimitBody<'_>>(json!({ "tenant": "demo", "resource": "c4", "hard_limit": 5 }))
}

fn tenant() -> Value {
    json!({
        "tenant": "demo", "id": 2, "name": "示例公司", "code": "DEMO_COMPANY",
        "projects": ["29dfe82ada564ac2b927e1ff036d9a9b"], "frozen": false,
        "confined": false, "lease_mode": "default",
        "created_at": "2024-01-15T10:30:00Z", "updated_at": "2024-01-20T14:25:00Z"
    })
}
