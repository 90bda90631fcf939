//! Operations of document 003, with the document's own examples.

use serde_json::{Value, json};

use super::body::Body;
use super::licence_answers::{Changed, Counted, Created, Page, Shown};
use super::operation::Operation;
use crate::rest::names;
use crate::rest::status::Kind;

/// `GET /api/v1/licenses/admin/quotas/`.
pub(in crate::rest) fn list() -> Operation {
    let example = json!({
        "success": true,
        "data": { "count": 25, "next": null, "previous": null, "results": [row(100, 75, 75.0, "2024-12-31T23:59:59Z")] }
    });
    Operation::new(
        "listLicenceQuotas",
        "List licence quotas",
        "Those of the token's tenants; an admin sees all. `next` and `previous` are on the host that was called, which \
         must be the listener's or one of the server's configuration. A page that is not there is 404.",
    )
    .query::<names::Number>("page", "Page, from 1.")
    .query::<names::LicencePageSize>("page_size", "Rows on a page, 50 where it is left out.")
    .query::<names::Count>("tenant", "Only of the tenant with this number.")
    .query::<names::Count>("software_product", "Only of the product with this number.")
    .query::<names::SwitchWord>("is_active", "Only those that are active, or that are not.")
    .query::<names::TimeOrDate>("expires_before", "Only those that end before.")
    .query::<names::Fraction>("usage_rate_gte", "Only those of which at least this fraction is used: 0.8 is 80 percent.")
    .query::<names::LicenceOrder>("ordering", "Order, with `-` downwards; ties by id.")
    .problem(Kind::NoSuchObject)
    .answers::<Page>(example)
}

/// `POST /api/v1/licenses/admin/quotas/`.
pub(in crate::rest) fn create() -> Operation {
    let body = Body::new()
        .required::<names::Number>("tenant", "The tenant's number.")
        .required::<names::Number>("software_product", "The product's number.")
        .required::<names::Count>("max_licenses", "Licences.")
        .optional::<names::TimeOrDate>(
            "expires_at",
            "When the quota ends; left out or null, it does not.",
        )
        .optional_not_null::<names::Flag>(
            "is_active",
            "Whether it grants anything; left out, it does.",
        );
    let example = json!({
        "tenant": 2, "software_product": 1, "max_licenses": 200, "expires_at": "2024-12-31T23:59:59Z"
    });
    let answer = json!({
        "success": true,
        "data": {
            "id": 15,
            "tenant": { "id": 2, "name": "示例公司" },
            "software_product": { "id": 1, "name": "MyApplication Pro" },
            "max_licenses": 200, "used_licenses": 0, "usage_rate": 0.0, "remaining_licenses": 200,
            "expires_at": "2024-12-31T23:59:59Z", "is_active": true
        },
        "message": "租户配额创建成功"
    });
    Operation::new(
        "createLicenceQuota",
        "Make a licence quota",
        "Several quotas of a tenant and a product add up. Made by admins, and by tenant-admins of their tenants where \
         the server's configuration lets them.",
    )
    .body(body, example)
    .creates::<Created>(answer)
}

/// `GET /api/v1/licenses/admin/quotas/usage_statistics/`.
pub(in crate::rest) fn statistics() -> Operation {
    let example = json!({
        "success": true,
        "data": {
            "total_quotas": 25, "active_quotas": 23, "expired_quotas": 2,
            "usage_overview": { "total_allocated": 2500, "total_used": 1875, "overall_usage_rate": 75.0 },
            "by_tenant": [{
                "tenant_id": 2, "tenant_name": "示例公司", "total_quota": 300, "total_used": 225, "usage_rate": 75.0,
                "products_count": 3
            }],
            "high_usage_quotas": [{
                "id": 1, "tenant_name": "示例公司", "product_name": "MyApplication Pro", "usage_rate": 95.0,
                "remaining_licenses": 5
            }]
        }
    });
    Operation::new(
        "showLicenceStatistics",
        "Show how much of all licence quotas is used",
        "Of what the token sees. High usage is at least 90 percent, highest first, 50 at most.",
    )
    .answers::<Counted>(example)
}

/// `GET /api/v1/licenses/admin/quotas/{id}/`.
pub(in crate::rest) fn get() -> Operation {
    let example = json!({ "success": true, "data": row(100, 75, 75.0, "2024-12-31T23:59:59Z") });
    Operation::new(
        "getLicenceQuota",
        "Show a licence quota",
        "A quota of another token's tenant is answered as one that is not there.",
    )
    .path::<names::LicenceQuotaId>("id", "The quota's number; anything else is 404.")
    .problem(Kind::NoSuchObject)
    .tagged()
    .answers::<Shown>(example)
}

/// `PATCH /api/v1/licenses/admin/quotas/{id}/`.
pub(in crate::rest) fn patch() -> Operation {
    let body = Body::new()
        .optional_not_null::<names::Count>(
            "max_licenses",
            "Licences; below what is used it is 409.",
        )
        .optional::<names::TimeOrDate>(
            "expires_at",
            "When the quota ends; null takes the end away.",
        )
        .optional_not_null::<names::Flag>("is_active", "Whether it grants anything.");
    let example = json!({ "max_licenses": 300, "expires_at": "2025-12-31T23:59:59Z" });
    let answer = json!({
        "success": true, "data": row(300, 75, 25.0, "2025-12-31T23:59:59Z"), "message": "租户配额更新成功"
    });
    Operation::new(
        "changeLicenceQuota",
        "Change a licence quota",
        "What the body leaves out stays. `tenant` and `software_product` never change: any other number than the \
         quota's own is refused. What is only ever read, such as `used_licenses`, is ignored.",
    )
    .path::<names::LicenceQuotaId>("id", "The quota's number; anything else is 404.")
    .body(body, example)
    .problem(Kind::Contradiction)
    .problem(Kind::NoSuchObject)
    .problem(Kind::BelowUse)
    .conditional()
    .tagged()
    .answers::<Changed>(answer)
}

fn row(max: u32, used: u32, rate: f64, expires_at: &str) -> Value {
    json!({
        "id": 1,
        "tenant": { "id": 2, "name": "示例公司", "code": "DEMO_COMPANY" },
        "software_product": { "id": 1, "name": "MyApplication Pro", "code": "MYAPP_PRO" },
        "max_licenses": max, "used_licenses": used, "usage_rate": rate, "remaining_licenses": max - used,
        "expires_at": expires_at, "is_active": true,
        "created_at": "2024-01-15T10:30:00Z", "updated_at": "2024-01-20T14:25:00Z"
    })
}
