//! Operations of the native API on enforcement.

use serde_json::json;

use super::body::Body;
use super::operation::Operation;
use crate::rest::names;
use crate::rest::native::enforcement::Confirmation;
use crate::rest::native::steps::Steps;
use crate::rest::status::Kind;

fn for_seconds() -> Body {
    Body::new().required::<names::ConfirmationSeconds>(
        "for_seconds",
        "For so long nothing of it waits for a person; 0: from now on it does again.",
    )
}

/// `POST /api/v1/unattributed/enforcement/confirmation`.
pub(in crate::rest) fn confirm_nobodys() -> Operation {
    Operation::new(
        "confirmEnforcementOfNobody",
        "Let steps against processes of nobody through that wait for a person",
        "Of processes that the agents' rules give to no tenant agents act upon at most so many, and on so many devices, in one \
         minute over all nodes, as `guard.processes` of the settings says; what is beyond waits until this is said. Look first \
         whether the rules are right: without them every holder is nobody.",
    )
    .body(for_seconds(), json!({ "for_seconds": 600 }))
    .answers::<Confirmation<'_>>(json!({ "tenant": null, "until": "2026-11-23T08:00:00Z" }))
}

/// `POST /api/v1/tenants/{tenant}/enforcement/confirmation`.
pub(in crate::rest) fn confirm() -> Operation {
    Operation::new(
        "confirmEnforcement",
        "Let steps through that wait for a person",
        "Agents act upon at most so many processes and so much of a tenant's devices in one minute over all nodes, as the \
         settings say; what is beyond waits until this is said.",
    )
    .path::<names::TenantName>("tenant", "The tenant's slug.")
    .body(for_seconds(), json!({ "for_seconds": 600 }))
    .problem(Kind::NoSuchObject)
    .answers::<Confirmation<'_>>(json!({ "tenant": "demo", "until": "2026-11-23T08:00:00Z" }))
}

/// `GET /api/v1/steps`.
pub(in crate::rest) fn steps() -> Operation {
    let step = json!({
        "id": 3, "node": "gpu01", "tenant": "demo", "device": "GPU-6b1e5b8a-9d53-4b6c-8a7e-2f3b0c9d1e11", "rung": "term",
        "class": "over_quota", "pid": 4711, "quota": 7, "said_by": "tenant", "policy": 4700, "row": 4705,
        "at": "2026-11-22T09:00:00Z", "result": "verified", "detail": "", "ended_at": "2026-11-22T09:00:03Z"
    });
    Operation::new(
        "listSteps",
        "List what agents did about what the ledger does not justify",
        "Against the token's tenants; an admin sees all, also steps against processes of nobody. What was allowed stands here \
         before it happens.",
    )
    .query::<names::Text>("tenant", "Only against this tenant.")
    .query::<names::Text>("node", "Only on this node.")
    .query::<names::After>("after", "Only with a higher number: `next` of the page before.")
    .query::<names::PageLimit>("limit", "So many at most.")
    .past()
    .answers::<Steps<'_>>(json!({ "steps": [step], "next": null, "seq": 4711 }))
}
