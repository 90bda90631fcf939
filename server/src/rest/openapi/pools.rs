//! Operations of the native API on regions and kinds of hosts.

use gpuquota_core::catalogue::MOST_NAMES;
use serde_json::{Value, json};

use super::body::Body;
use super::operation::Operation;
use crate::rest::names;
use crate::rest::native::pools::{HostResourceBody, HostResources, RegionBody, Regions};
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

/// `GET /api/v1/regions/{region}`.
pub(in crate::rest) fn get_region() -> Operation {
    Operation::new("getRegion", "Show a region", "One that is described.")
        .path::<names::Region>("region", "The region.")
        .problem(Kind::NoSuchObject)
        .past()
        .tagged()
        .answers::<RegionBody<'_>>(region())
}

/// `PUT /api/v1/regions/{region}`.
pub(in crate::rest) fn put_region() -> Operation {
    let body = Body::new()
        .optional::<names::DisplayName>("name", "For people.")
        .optional::<names::SiteId>(
            "site_id",
            "The site that it is part of; left out, the central one.",
        )
        .optional::<names::EnforcementFields>("enforcement", "How far agents go about what the ledger does not justify there; left out, as the settings say.")
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
    .conditional()
    .tagged()
    .answers::<RegionBody<'_>>(region())
}

/// `GET /api/v1/host-resources`.
pub(in crate::rest) fn list_hosts() -> Operation {
    Operation::new("listHostResources", "List kinds of dedicated hosts", "")
        .past()
        .answers::<HostResources<'_>>(json!({ "host_resources": [host()] }))
}

/// `GET /api/v1/host-resources/{resource}`.
pub(in crate::rest) fn get_host() -> Operation {
    Operation::new("getHostResource", "Show a kind of dedicated host", "")
        .path::<names::HostResourceName>("resource", "The kind of host.")
        .problem(Kind::NoSuchObject)
        .past()
        .tagged()
        .answers::<HostResourceBody<'_>>(host())
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
        .conditional()
        .tagged()
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
    .conditional()
    .answers::<names::Nothing>(json!({}))
}

fn region() -> Value {
    json!({ "region": "edge-1", "name": "Edge 1", "site_id": "147258369", "lease_mode": "required" })
}

fn host() -> Value {
    json!({ "resource": "c4", "resource_groups": ["TeslaM40"] })
}
