//! Operations of the native API on settings, and on what the ledger does not justify.

use serde_json::{Value, json};

use super::body::Body;
use super::operation::Operation;
use crate::rest::names;
use crate::rest::native::settings::SettingsBody;
use crate::rest::native::violations::Violations;

/// `GET /api/v1/settings`.
pub(in crate::rest) fn get() -> Operation {
    Operation::new("getSettings", "Show how the ledger decides", "")
        .past()
        .tagged()
        .answers::<SettingsBody>(settings())
}

/// `PUT /api/v1/settings`.
pub(in crate::rest) fn put() -> Operation {
    let body = Body::new()
        .optional::<names::QuotaSource>(
            "consume_first",
            "Quotas of this source are filled before those of the other; left out, `purchase`.",
        )
        .optional::<names::LeaseMode>(
            "lease_mode",
            "Whether leases are needed where neither tenant nor region says; left out, `optional`.",
        )
        .optional::<names::SomeSeconds>(
            "confirm_within_seconds",
            "How long a lease that is to end is charged while its devices are not seen free; the time of a node that \
             is not heard does not count. Left out, 600.",
        )
        .optional::<names::SomeSeconds>(
            "ghost_after_seconds",
            "After how long a leased device on which nothing runs is called a ghost; left out, 3600.",
        )
        .optional::<names::EnforcingFields>(
            "enforcing",
            "How far agents go about what the ledger does not justify; left out, they observe.",
        )
        .optional::<names::Seconds>(
            "drain_notice_seconds",
            "How long those who are over a quota that shrank have to leave; left out, 86400.",
        );
    Operation::new(
        "putSettings",
        "Choose how the ledger decides",
        "All settings: what is left out is at its default.",
    )
    .body(
        body,
        json!({ "lease_mode": "required", "confirm_within_seconds": 300 }),
    )
    .conditional()
    .tagged()
    .answers::<SettingsBody>(settings())
}

/// `GET /api/v1/violations`.
pub(in crate::rest) fn violations() -> Operation {
    let uuid = "GPU-6b1e5b8a-9d53-4b6c-8a7e-2f3b0c9d1e11";
    let row = |class: &str, lease: Option<u64>| {
        json!({
            "class": class, "tenant": "demo", "node": "gpu01", "device": uuid, "since": "2026-11-22T09:00:00Z",
            "lease": lease, "mode": lease.is_none().then_some("warn"),
            "held": lease.is_none().then_some("a maintenance window is open"), "last_step": null
        })
    };
    let example =
        json!({ "violations": [row("over_quota", None), row("ghost", Some(17))], "seq": 4711 });
    Operation::new(
        "listViolations",
        "List what the ledger does not justify, and ghosts",
        "Of the token's tenants; an admin sees all, also tenants that the ledger does not know and processes of nobody. \
         What is held stands here while it is, on a node that is not heard as it was held last.",
    )
    .query::<names::Text>("tenant", "Only this tenant's.")
    .past()
    .answers::<Violations<'_>>(example)
}

fn settings() -> Value {
    json!({
        "consume_first": "purchase", "lease_mode": "required", "confirm_within_seconds": 300,
        "ghost_after_seconds": 3600, "drain_notice_seconds": 86400
    })
}
