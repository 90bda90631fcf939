//! Operations of the native API on quotas of all sources and types.

use serde_json::{Value, json};

use super::body::Body;
use super::operation::Operation;
use crate::rest::names;
use crate::rest::native::quotas::{QuotaBody, QuotaOrPlan, Quotas};
use crate::rest::status::Kind;

/// `GET /api/v1/entitlements`.
pub(in crate::rest) fn list() -> Operation {
    Operation::new(
        "listEntitlements",
        "List quotas as the ledger counts them",
        "Those of the token's tenants in order of their making; an admin sees all. What is over all quotas of a tenant \
         counts on the last of them, so `used` may be above `limit`.",
    )
    .query::<names::Text>("tenant", "Only this tenant's.")
    .query::<names::Text>("region", "Only in this region.")
    .query::<names::Text>("gpu_model", "Only of this model, as its quota spells it.")
    .query::<names::After>("after", "Only with a higher number: `next` of the page before.")
    .query::<names::PageLimit>("limit", "So many at most.")
    .past()
    .answers::<Quotas<'_>>(json!({ "quotas": [quota()], "next": null, "seq": 4711 }))
}

/// `GET /api/v1/entitlements/{id}`.
pub(in crate::rest) fn get() -> Operation {
    Operation::new(
        "getEntitlement",
        "Show a quota as the ledger counts it",
        "One of the token's tenants; an admin sees all.",
    )
    .path::<names::QuotaId>("id", "The quota's number.")
    .problem(Kind::NoSuchObject)
    .past()
    .tagged()
    .answers::<QuotaBody<'_>>(quota())
}

/// `PUT /api/v1/entitlements/{id}/enforcement`.
pub(in crate::rest) fn put_enforcement() -> Operation {
    let body = Body::new().required::<names::QuotaEnforcement>(
        "enforcement",
        "What is left out of it is at its default; null: as the tenant says, else the region, else the settings.",
    );
    Operation::new(
        "setEntitlementEnforcement",
        "Say how far agents go about what is beyond a quota",
        "It is nearer than what the tenant, the region and the settings say.",
    )
    .path::<names::QuotaId>("id", "The quota's number.")
    .body(
        body,
        json!({ "enforcement": { "mode": "restrict", "grace_seconds": 300 } }),
    )
    .problem(Kind::NoSuchObject)
    .conditional()
    .tagged()
    .answers::<QuotaBody<'_>>(quota())
}

/// `PATCH /api/v1/entitlements/{id}`.
pub(in crate::rest) fn patch() -> Operation {
    let body = Body::new().required::<names::Flag>(
        "is_active",
        "`false`: it grants and binds nothing until it is put back; limit, nodes and end stay.",
    );
    Operation::new(
        "switchEntitlement",
        "Put a quota out of force, or back",
        "Out of force it is as if its limit were 0, so what is in use refuses it with 409 unless `on_excess` is drain: \
         then what is over has the server's notice to leave. Put back, its nodes are bound as if it were made anew. \
         A repetition under one key answers with the quota as it is by then, and with 404 when it was released.",
    )
    .path::<names::QuotaId>("id", "The quota's number.")
    .query::<names::OnExcess>("on_excess", "Deny where it is left out.")
    .query::<names::Flag>("dry_run", "Change nothing and answer whom it would hit and by when, and whether it would be taken.")
    .body(body, json!({ "is_active": false }))
    .problem(Kind::NoSuchObject)
    .problem(Kind::BelowUse)
    .problem(Kind::InUse)
    .problem(Kind::NodeBound)
    .problem(Kind::OverLimit)
    .conditional()
    .tagged()
    .answers::<QuotaOrPlan<'_>>(quota())
}

fn quota() -> Value {
    json!({
        "id": 7, "tenant": "research", "region": "US", "source": "purchase", "type": "flexible",
        "gpu_model": "nvidia.com/gpu", "limit": 8, "used": 5, "leased": 3, "observed": 4, "nodes": [],
        "expires_at": "2027-01-01T00:00:00Z", "expired": false, "is_active": true, "noticed_days": 28,
        "enforcement": null
    })
}
