//! Operations of the native API on resource groups and their card limits.

use serde_json::{Value, json};

use super::body::Body;
use super::operation::Operation;
use crate::rest::json::LONGEST_LIST;
use crate::rest::names;
use crate::rest::native::groups::{CardLimitBody, GroupBody, GroupSaid, Groups};
use crate::rest::status::Kind;

/// `GET /api/v1/resource-groups`.
pub(in crate::rest) fn list() -> Operation {
    Operation::new(
        "listResourceGroups",
        "List resource groups",
        "Those that are described or have nodes.",
    )
    .past()
    .answers::<Groups<'_>>(json!({ "resource_groups": [group()] }))
}

/// `GET /api/v1/resource-groups/{group}`.
pub(in crate::rest) fn get() -> Operation {
    Operation::new(
        "getResourceGroup",
        "Show a resource group",
        "One that is described.",
    )
    .path::<names::GroupName>("group", "The group.")
    .problem(Kind::NoSuchObject)
    .past()
    .tagged()
    .answers::<GroupBody<'_>>(group())
}

/// `PUT /api/v1/resource-groups/{group}`.
pub(in crate::rest) fn put() -> Operation {
    let body = Body::new()
        .optional::<names::RunTime>("max_time", "Longest run of a job; left out, unlimited.")
        .optional_list::<names::TenantName>(
            "tenants",
            0..=LONGEST_LIST,
            "Who may use it; left out, everybody.",
        );
    Operation::new(
        "putResourceGroup",
        "Describe a resource group",
        "The whole description: what is left out is taken away.",
    )
    .path::<names::GroupName>("group", "The group.")
    .body(
        body,
        json!({ "max_time": "7-00:00:00", "tenants": ["demo"] }),
    )
    .conditional()
    .tagged()
    .answers::<GroupSaid<'_>>(
        json!({ "resource_group": "TeslaM40", "max_time": "7-00:00:00", "tenants": ["demo"] }),
    )
}

/// `DELETE /api/v1/resource-groups/{group}`.
pub(in crate::rest) fn delete() -> Operation {
    Operation::new(
        "deleteResourceGroup",
        "Forget a resource group's description",
        "Its card limits go too; its nodes stay in it.",
    )
    .path::<names::GroupName>("group", "The group.")
    .problem(Kind::NoSuchObject)
    .conditional()
    .answers::<names::Nothing>(json!({}))
}

/// `PUT /api/v1/resource-groups/{group}/card-limits/{accelerator}`.
pub(in crate::rest) fn put_card_limit() -> Operation {
    let body = Body::new()
        .optional::<names::TenantName>(
            "tenant",
            "Whose limit it is; left out, everybody's who has none.",
        )
        .required_or_null::<names::Number>(
            "cards",
            "Cards on one node; null takes the limit away.",
        );
    let example = json!({ "tenant": "demo", "cards": 2 });
    Operation::new("putCardLimit", "Limit cards on one node of a group", "")
        .path::<names::GroupName>("group", "The group.")
        .path::<names::Accelerator>("accelerator", "The make of card.")
        .body(body, example)
        .problem(Kind::NoSuchObject)
        .answers::<CardLimitBody<'_>>(json!({ "accelerator": "gpu", "tenant": "demo", "cards": 2 }))
}

fn group() -> Value {
    json!({
        "resource_group": "TeslaM40", "max_time": "unlimited", "tenants": null, "nodes": ["gpu02"],
        "card_limits": [{ "accelerator": "gpu", "tenant": "demo", "cards": 2 }]
    })
}
