//! Operations of the native API on regions, resource groups and kinds of hosts.

use gpuquota_core::catalogue::MOST_NAMES;
use serde_json::{Value, json};

use super::body::Body;
use super::operation::Operation;
use crate::rest::json::LONGEST_LIST;
use crate::rest::names;
use crate::rest::native::pools::{
    CardLimitBody, GroupSaid, Groups, HostResourceBody, HostResources, RegionBody, Regions,
};
use crate::rest::status::Kind;

/// `GET /api/v1/regions`.
pub(in crate::rest) fn list_regions() -> Operation {
    Operation::new(
        "listRegions",
        "List regions",
        "Those that are described, or that a quota or a node names.",
    )
    .past()
    .answers::<Regions<'_>>(json!({ "regions": [region()] }))
}

/// `PUT /api/v1/regions/{region}`.
pub(in crate::rest) fn put_region() -> Operation {
    let body = Body::new()
        .optional::<names::DisplayName>("name", "For people.")
        .optional::<names::SiteId>(
            "site_id",
            "The site that it is part of; left out, the central one.",
        )
        .optional::<names::ChosenLeaseMode>(
            "lease_mode",
            "Whether what runs there needs a lease; left out, `default`: as the settings say.",
        );
    Operation::new(
        "putRegion",
        "Describe a region",
        "The whole description: what is left out is taken away.",
    )
    .path::<names::Region>("region", "The region.")
    .body(
        body,
        json!({ "name": "Edge 1", "site_id": "147258369", "lease_mode": "required" }),
    )
    .answers::<RegionBody<'_>>(region())
}

/// `GET /api/v1/resource-groups`.
pub(in crate::rest) fn list_groups() -> Operation {
    let example = json!({ "resource_groups": [{
        "resource_group": "TeslaM40", "max_time": "unlimited", "tenants": null, "nodes": ["gpu02"],
        "card_limits": [{ "accelerator": "gpu", "tenant": "demo", "cards": 2 }]
    }] });
    Operation::new(
        "listResourceGroups",
        "List resource groups",
        "Those that are described or have nodes.",
    )
    .past()
    .answers::<Groups<'_>>(example)
}

/// `PUT /api/v1/resource-groups/{group}`.
pub(in crate::rest) fn put_group() -> Operation {
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
    .answers::<GroupSaid<'_>>(
        json!({ "resource_group": "TeslaM40", "max_time": "7-00:00:00", "tenants": ["demo"] }),
    )
}

/// `DELETE /api/v1/resource-groups/{group}`.
pub(in crate::rest) fn delete_group() -> Operation {
    Operation::new(
        "deleteResourceGroup",
        "Forget a resource group's description",
        "Its card limits go too; its nodes stay in it.",
    )
    .path::<names::GroupName>("group", "The group.")
    .problem(Kind::NoSuchObject)
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

/// `GET /api/v1/host-resources`.
pub(in crate::rest) fn list_hosts() -> Operation {
    Operation::new("listHostResources", "List kinds of dedicated hosts", "")
        .past()
        .answers::<HostResources<'_>>(json!({ "host_resources": [host()] }))
}

/// `PUT /api/v1/host-resources/{resource}`.
pub(in crate::rest) fn put_host() -> Operation {
    let body = Body::new().required_list::<names::GroupName>(
        "resource_groups",
        0..=MOST_NAMES,
        "Whose nodes are such hosts.",
    );
    Operation::new("putHostResource", "Describe a kind of dedicated host", "")
        .path::<names::HostResourceName>("resource", "The kind of host.")
        .body(body, json!({ "resource_groups": ["TeslaM40"] }))
        .answers::<HostResourceBody<'_>>(host())
}

/// `DELETE /api/v1/host-resources/{resource}`.
pub(in crate::rest) fn delete_host() -> Operation {
    Operation::new(
        "deleteHostResource",
        "Forget a kind of dedicated host",
        "Every tenant's limit of it goes too.",
    )
    .path::<names::HostResourceName>("resource", "The kind of host.")
    .problem(Kind::NoSuchObject)
    .answers::<names::Nothing>(json!({}))
}

fn region() -> Value {
    json!({ "region": "edge-1", "name": "Edge 1", "site_id": "147258369", "lease_mode": "required" })
}

fn host() -> Value {
    json!({ "resource": "c4", "resource_groups": ["TeslaM40"] })
}
