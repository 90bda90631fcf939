//! The operation of the native API on quotas of all sources and types.

use serde_json::json;

use super::operation::Operation;
use crate::rest::names;
use crate::rest::native::quotas::Quotas;

/// `GET /api/v1/entitlements`.
pub(in crate::rest) fn list() -> Operation {
    let quota = json!({
        "id": 7, "tenant": "research", "region": "US", "source": "purchase", "type": "flexible",
        "gpu_model": "nvidia.com/gpu", "limit": 8, "used": 5, "leased": 3, "observed": 4, "nodes": [],
        "expires_at": "2027-01-01T00:00:00Z", "expired": false, "noticed_days": 28
    });
    Operation::new(
        "listEntitlements",
        "List quotas as the ledger counts them",
        "Those of the token's tenants in order of their making; an admin sees all. What is over all quotas of a tenant \
         counts on the last of them, so `used` may be above `limit`.",
    )
    .query::<names::Text>("tenant", "Only this tenant's.")
    .query::<names::Text>("region", "Only in this region.")
    .query::<names::Text>("gpu_model", "Only of this model, as its quota spells it.")
    .query::<names::QuotaId>("after", "Only with a higher number: `next` of the page before.")
    .query::<names::LeasePage>("limit", "So many at most.")
    .past()
    .answers::<Quotas<'_>>(json!({ "quotas": [quota], "next": null, "seq": 4711 }))
}
