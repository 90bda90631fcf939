//! Operations of the native API on counters of projects and on seats.

use serde_json::{Value, json};

use super::body::Body;
use super::operation::Operation;
use crate::rest::names;
use crate::rest::native::projects::{CounterBody, Resources};
use crate::rest::native::seats::{SeatBody, Seats};
use crate::rest::status::Kind;

/// `GET /api/v1/projects/{project}/resources`.
pub(in crate::rest) fn list() -> Operation {
    Operation::new(
        "listProjectResources",
        "List what other systems count for a project",
        "As it was reported.",
    )
    .path::<names::ProjectId>("project", "The project.")
    .problem(Kind::NoSuchObject)
    .past()
    .answers::<Resources<'_>>(
        json!({ "project": "29dfe82ada564ac2b927e1ff036d9a9b", "resources": [counter()] }),
    )
}

/// `PUT /api/v1/projects/{project}/resources/{type}`.
pub(in crate::rest) fn put() -> Operation {
    let body = Body::new()
        .optional::<names::Limit>("quota", "The limit; left out, none is said.")
        .optional::<names::Count>("used", "What is used; left out, nothing is said.")
        .optional::<names::DisplayName>("unit", "Unit of both.")
        .optional::<names::SiteId>("site_id", "The site; left out, the central one.");
    Operation::new(
        "putProjectResource",
        "Report what another system counts for a project",
        "Replaces what was reported of this type at this site. What gpuquota counts itself is refused: `gpu_instances` \
         and `deh`, and `used` of `cores` and `Memory`.",
    )
    .path::<names::ProjectId>("project", "The project.")
    .path::<names::ResourceKind>("type", "The type.")
    .body(body, json!({ "quota": 3000, "used": 29 }))
    .problem(Kind::NoSuchObject)
    .problem(Kind::Contradiction)
    .answers::<CounterBody<'_>>(counter())
}

/// `DELETE /api/v1/projects/{project}/resources/{type}`.
pub(in crate::rest) fn delete() -> Operation {
    Operation::new(
        "deleteProjectResource",
        "Forget what was reported",
        "Also when nothing was.",
    )
    .path::<names::ProjectId>("project", "The project.")
    .path::<names::ResourceKind>("type", "The type.")
    .query::<names::SiteId>("site_id", "The site; left out, the central one.")
    .problem(Kind::NoSuchObject)
    .problem(Kind::Contradiction)
    .answers::<names::Nothing>(json!({}))
}

/// `GET /api/v1/seats`.
pub(in crate::rest) fn list_seats() -> Operation {
    Operation::new(
        "listSeats",
        "List seats",
        "Those of the token's tenants; an admin sees all.",
    )
    .query::<names::Text>("tenant", "Only this tenant's.")
    .query::<names::Number>("software_product", "Only of this product.")
    .past()
    .answers::<Seats<'_>>(json!({ "seats": [seat()] }))
}

/// `GET /api/v1/seats/{id}`.
pub(in crate::rest) fn get_seat() -> Operation {
    Operation::new(
        "getSeat",
        "Show a seat",
        "A seat of another token's tenant is answered as one that is not there.",
    )
    .path::<names::Number>("id", "The seat's number.")
    .problem(Kind::NoSuchObject)
    .past()
    .tagged()
    .answers::<SeatBody<'_>>(seat())
}

/// `POST /api/v1/seats`.
pub(in crate::rest) fn post_seat() -> Operation {
    let body = Body::new()
        .required::<names::TenantName>("tenant", "Whose licence it is.")
        .required::<names::Number>("software_product", "The product's number.")
        .required::<names::DisplayName>("owner", "Who sits there.")
        .required::<names::SeatSeconds>("ttl_seconds", "When it ends unless it is renewed.");
    let example = json!({ "tenant": "demo", "software_product": 1, "owner": "alice@ws-17", "ttl_seconds": 3600 });
    Operation::new(
        "checkOutSeat",
        "Check a licence out",
        "Refused with 409 when the quota has none left.",
    )
    .body(body, example)
    .problem(Kind::NoSuchObject)
    .problem(Kind::OverLimit)
    .problem(Kind::Frozen)
    .creates::<SeatBody<'_>>(seat())
}

/// `POST /api/v1/seats/{id}/renew`.
pub(in crate::rest) fn renew_seat() -> Operation {
    let body = Body::new()
        .required::<names::SeatSeconds>("ttl_seconds", "When it ends unless it is renewed.");
    Operation::new(
        "renewSeat",
        "Keep a seat",
        "It ends so many seconds from now.",
    )
    .path::<names::Number>("id", "The seat's number.")
    .body(body, json!({ "ttl_seconds": 3600 }))
    .problem(Kind::NoSuchObject)
    .problem(Kind::OverLimit)
    .problem(Kind::Frozen)
    .conditional()
    .tagged()
    .answers::<SeatBody<'_>>(seat())
}

/// `DELETE /api/v1/seats/{id}`.
pub(in crate::rest) fn delete_seat() -> Operation {
    Operation::new("giveBackSeat", "Give a seat back", "")
        .path::<names::Number>("id", "The seat's number.")
        .problem(Kind::NoSuchObject)
        .conditional()
        .answers::<names::Nothing>(json!({}))
}

fn counter() -> Value {
    json!({ "type": "users", "site_id": null, "quota": 3000, "used": 29, "unit": null })
}

fn seat() -> Value {
    json!({
        "id": 7, "tenant": "demo", "software_product": 1, "owner": "alice@ws-17", "expires_at": "2026-11-22T09:00:00Z"
    })
}
