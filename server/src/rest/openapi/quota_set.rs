//! The operation of document 004, with the document's own example.

use serde_json::json;

use super::operation::Operation;
use crate::rest::names;
use crate::rest::quota_set::Answer;
use crate::rest::status::Kind;

/// `GET /v1.0/{project_id}/quota-sets/{tenant_id}`.
pub(in crate::rest) fn show() -> Operation {
    let example = json!({ "quota_set": [
        { "used": 0, "resource": "c4", "hard_limit": 5 },
        { "used": 0, "resource": "m4", "hard_limit": 5 }
    ] });
    Operation::new(
        "showQuotaSet",
        "Show a tenant's dedicated hosts",
        "`quota_set` is a list though its name is singular. Only an admin asks for another tenant than that of \
         `project_id`. An unknown project is 404 for an admin and 403 for anybody else.",
    )
    .path::<names::ProjectId>("project_id", "The caller's project, or a tenant's slug.")
    .path::<names::ProjectId>("tenant_id", "Whose hosts: a project, or a tenant's slug.")
    .query::<names::Text>("resource", "Only this kind of host; an unknown one leaves an empty list.")
    .problem(Kind::Forbidden)
    .problem(Kind::NoSuchObject)
    .answers::<Answer<'_>>(example)
}
