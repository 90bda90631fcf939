//! Operations of document 000, with the document's own examples.

use serde_json::{Value, json};

use super::body::Body;
use super::operation::Operation;
use crate::rest::gpu_quota::{Done, Listed};
use crate::rest::json::LONGEST_LIST;
use crate::rest::names;
use crate::rest::status::Kind;

const DRY_RUN: &str = "Change nothing and answer in `data` whom it would hit and by when, and whether it would be taken.";

/// `PUT /api/v1/quotas/{tenant}`.
pub(in crate::rest) fn put() -> Operation {
    let body = named()
        .required::<names::Count>(
            "num",
            "The new total, not a difference; 0 releases by force and always succeeds.",
        )
        .optional::<names::TimeOrDate>("expired_at", "When the quota ends; left out, it does not.")
        .optional_list::<names::NodeName>(
            "node_name",
            1..=LONGEST_LIST,
            "The nodes of a dedicated quota, which it makes it; only then, and then at least one.",
        );
    let example = json!({
        "region": "TW", "quota_source": "purchase", "gpu_model": "nvidia.com/gpu", "num": 1,
        "expired_at": "2025-12-03", "id": 212
    });
    Operation::new(
        "putGpuQuota",
        "Make or replace a quota",
        "Names the quota by tenant, region, source, type and model. An `id` that is known for the tenant picks the \
         type of its quota; known under another key it is 409. `num` below what is in use is 409 and changes nothing, unless `on_excess` is drain: then it is \
         taken, and what is over has the server's notice to leave before leases are ended. `num` 0 ends them at once. \
         Naming nodes on which others have leases is 409 too, and with drain those leases have the notice.",
    )
    .path::<names::TenantName>("tenant", "Whose quota it is.")
    .query::<names::OnExcess>("on_excess", "Deny where it is left out.")
    .query::<names::Flag>("dry_run", DRY_RUN)
    .body(body, example)
    .problem(Kind::Contradiction)
    .problem(Kind::BelowUse)
    .problem(Kind::InUse)
    .problem(Kind::IdTaken)
    .problem(Kind::NodeBound)
    .answers::<Done>(json!({ "code": 0 }))
}

/// `DELETE /api/v1/quotas/{tenant}`.
pub(in crate::rest) fn delete() -> Operation {
    let example = json!({
        "region": "TW", "quota_source": "purchase", "gpu_model": "nvidia.com/gpu", "id": 212
    });
    Operation::new(
        "deleteGpuQuota",
        "Release a quota",
        "Refused with 409 while something is in use, unless `force` is true. For clients that drop the body of a \
         DELETE the same fields count as query parameters when the body is empty.",
    )
    .path::<names::TenantName>("tenant", "Whose quota it is.")
    .query::<names::Flag>("force", "Release it although it is in use.")
    .query::<names::Flag>("dry_run", DRY_RUN)
    .body(named(), example)
    .problem(Kind::Contradiction)
    .problem(Kind::Unsupported)
    .problem(Kind::NoSuchObject)
    .problem(Kind::InUse)
    .answers::<Done>(json!({ "code": 0 }))
}

/// `GET /api/v1/quota/user-quotas`.
pub(in crate::rest) fn list() -> Operation {
    Operation::new(
        "listGpuQuotas",
        "List quotas",
        "By tenant, in order of creation; `total` counts tenants and a page is cut between tenants. Shows what the \
         token's tenants have; an admin sees all. The parameters count as fields of a JSON body too, as the document \
         has it; given in both and different they are refused.",
    )
    .query::<names::QuotaSource>("quota_source", "Only quotas of this source.")
    .query::<names::QuotaType>("quota_type", "Only quotas of this type.")
    .query::<names::Number>("page", "Page, from 1; past the end there are no items.")
    .query::<names::PageSize>("page_size", "Tenants on a page, 10 where it is left out.")
    .problem(Kind::MalformedBody)
    .problem(Kind::Contradiction)
    .answers::<Listed<'_>>(listed())
}

fn named() -> Body {
    Body::new()
        .required::<names::Region>("region", "Where the devices stand.")
        .optional::<names::TenantName>(
            "tenant",
            "The tenant of the path; anything else is refused.",
        )
        .required::<names::QuotaSource>("quota_source", "Where the quota comes from.")
        .required::<names::GpuModel>("gpu_model", "What it is a quota of.")
        .optional::<names::QuotaType>(
            "quota_type",
            "Of which type it is; left out, it follows from the model.",
        )
        .optional::<names::Count>(
            "id",
            "The caller's own number of the quota, unique for the tenant.",
        )
}

// The document's example; its expiry is a layout string there, and its total counts tenants (dialects D1.12, D1.14).
fn listed() -> Value {
    let detail = |model: &str| json!({ "region": "US", "gpu_model": model, "count": 1 });
    let bought = |model: &str, quota_type: &str| {
        json!({
            "tenant_name": "platform-operator", "quota_source": "purchase", "gpu_model": model,
            "quota_types": [{
                "quota_type": quota_type, "quota_details": [detail(model)], "used_count": 0, "total_count": 1
            }]
        })
    };
    json!({
        "code": 0,
        "data": {
            "total": 3, "page": 1, "page_size": 10,
            "items": [
                bought("nvidia.com/gpu", "flexible"),
                bought("nvidia.com/mig-1c10g", "mig"),
                {
                    "tenant_name": "test1015", "quota_source": "assign", "gpu_model": "tyui-3", "region": "US",
                    "quota_types": [{
                        "quota_type": "vgpu",
                        "quota_details": [{
                            "region": "US", "id": 212, "gpu_model": "tyui-3", "count": 2,
                            "expire_time": "2026-01-02T15:04:05Z"
                        }],
                        "used_count": 1, "total_count": 2
                    }]
                },
                {
                    "tenant_name": "zjw1029", "quota_source": "assign", "region": "US",
                    "quota_types": [{
                        "quota_type": "dedicated", "gpu_model": "nvidia.com/gpu",
                        "quota_details": [{
                            "region": "US", "id": 214, "gpu_model": "nvidia.com/gpu", "node_name": ["gpu02"], "count": 1
                        }],
                        "used_count": 0, "total_count": 1
                    }]
                }
            ]
        }
    })
}
