//! The operation of document 001, with the document's own example.

use serde_json::{Value, json};

use super::operation::Operation;
use crate::rest::names;
use crate::rest::status::Kind;
use crate::rest::workspace::Answer;

/// `GET /v2/{project_id}/quotas`.
pub(in crate::rest) fn show() -> Operation {
    Operation::new(
        "showWorkspaceQuotas",
        "Show what a project may use and uses",
        "`gpu_instances` are what the ledger grants and what is held; `cores` and `Memory` what agents say of the \
         nodes that are held; the others what their own systems reported. Types are told apart by upper and lower \
         case. An unknown project is 404 for an admin and 403 for anybody else.",
    )
    .path::<names::ProjectId>("project_id", "The project, or a tenant's slug.")
    .problem(Kind::Forbidden)
    .problem(Kind::NoSuchObject)
    .answers::<Answer<'_>>(shown())
}

// The document's example; its site is a number there and a text in its table (dialects D2.5).
fn shown() -> Value {
    let row =
        |kind: &str, quota: u32, used: u32| json!({ "type": kind, "quota": quota, "used": used });
    let in_gb = |kind: &str, quota: u32, used: u32| json!({ "type": kind, "quota": quota, "unit": "GB", "used": used });
    json!({
        "quotas": { "resources": [
            row("general_instances", 10, 3),
            row("volumes", 500, 33),
            in_gb("volume_gigabytes", 21500, 2090),
            row("cores", 80, 10),
            in_gb("Memory", 100, 19),
            row("gpu_instances", 10, 0),
            row("users", 3000, 29),
            row("policy_groups", 10, 0),
            row("Cores", 80, 0)
        ] },
        "site_quotas": [{
            "site_id": "147258369",
            "resources": [row("gpu_instances", 50, 0), row("ies_instances", 500, 0)]
        }]
    })
}
