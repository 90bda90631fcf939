//! Operations of the native API on nodes and tokens, and what needs no token.

use serde_json::{Value, json};

use super::body::Body;
use super::operation::Operation;
use crate::rest::json::LONGEST_LIST;
use crate::rest::names;
use crate::rest::native::Health;
use crate::rest::native::nodes::{Declared, Listed};
use crate::rest::native::tokens::Revoked;
use crate::rest::native::usage::UsageBody;
use crate::rest::status::Kind;

/// `GET /api/v1/nodes`.
pub(in crate::rest) fn list_nodes() -> Operation {
    let device = json!({
        "device": "GPU-8a56a4bc-6b3f-4e0f-9a3d-3f6a3a1c0b11", "gpu_model": "nvidia.com/gpu", "model": "Tesla M40",
        "health": "ok", "partitioned": false, "tenants": ["demo"], "unattributed": false, "licence": null
    });
    let node = json!({
        "name": "gpu02", "region": "US", "state": "up", "bound_tenant": null, "resource_groups": ["TeslaM40"],
        "inventory": null,
        "facts": { "cpu_cores": 40, "memory_bytes": 33_436_991_488_u64, "driver_version": "580.95.05", "nvml": "ok" },
        "observed_at": "2026-11-22T08:00:00Z", "devices": [device]
    });
    Operation::new(
        "listNodes",
        "List nodes with their devices",
        "What a node says of itself, where it belongs and what it has. Unknown is absent or null, never 0.",
    )
    .answers::<Listed<'_>>(json!({ "nodes": [node], "seq": 42 }))
}

/// `PUT /api/v1/nodes/{name}`.
pub(in crate::rest) fn put_node() -> Operation {
    let inventory = Body::new()
        .optional::<names::Count>("cpu_cores", "Logical CPUs.")
        .optional::<names::Bytes>("memory_bytes", "Main memory.")
        .optional::<names::HardwareName>("gpu_product", "Product of its GPUs.")
        .optional::<names::Count>("gpus", "How many GPUs.");
    let body = Body::new()
        .required::<names::Region>("region", "Where it stands.")
        .optional_list::<names::GroupName>(
            "resource_groups",
            0..=LONGEST_LIST,
            "Its groups besides that of its hardware; left out, they stay.",
        )
        .optional_object(
            "inventory",
            inventory,
            "What is in it, until its agent says it; left out, it stays.",
        );
    Operation::new(
        "putNode",
        "Say where a node stands and belongs",
        "A node may be declared before it is heard.",
    )
    .path::<names::NodeName>("name", "The node.")
    .body(body, declared())
    .answers::<Declared<'_>>(declared())
}

/// `GET /api/v1/usage`.
pub(in crate::rest) fn list_usage() -> Operation {
    let row = |tenant: Value, class: &str, ms: u64| {
        json!({
            "from": "2026-11-22T08:00:00Z", "to": "2026-11-22T09:00:00Z", "open": false, "tenant": tenant, "region": "US",
            "gpu_model": "nvidia.com/gpu", "class": class, "node": null, "device": null, "milliseconds": ms,
            "seconds": ms / 1000
        })
    };
    let example = json!({
        "from": "2026-11-22T08:00:00Z", "to": "2026-11-22T09:00:00Z", "open": false,
        "usage": [row(Value::Null, "free", 1_000_000), row(json!("demo"), "busy", 2_600_000)],
        "totals": {
            "busy": 2_600_000, "leased_idle": 0, "free": 1_000_000, "squatter": 0, "unknown": 0, "wall": 3_600_000
        },
        "rows": 2, "next_offset": null, "seq": 42
    });
    Operation::new(
        "listUsage",
        "GPU-seconds by class, tenant, region and model",
        "Every millisecond of every device is of exactly one class, so the classes add up to the time for which the devices \
         existed (`totals.wall`). `milliseconds` are exact; the `seconds` of a period add up to its milliseconds in whole \
         seconds, the largest remainders rounded up. A tenant's token sees its own busy and leased idle time. As CSV with \
         `format=csv` or `Accept: text/csv`, all rows at once unless `limit` says otherwise, and a row of class `wall` for \
         the whole answer at its end where `totals.wall` is not null; a cell that a spreadsheet would take for a formula has \
         an apostrophe in front.",
    )
    .query::<names::TimeOrDate>("from", "Down to the beginning of its period; else a day before `to`, or 31 by day.")
    .query::<names::TimeOrDate>(
        "to",
        "Up to the end of its period; else the end of the present one. At most 31 days after `from`, 400 by day.",
    )
    .query::<names::UsagePeriod>("by", "Length of a period.")
    .query::<names::UsageGroups>(
        "group_by",
        "What to tell apart; else tenant, region, gpu_model and class. Node and device: administrators only.",
    )
    .query::<names::TenantName>("tenant", "Only this tenant's.")
    .query::<names::Region>("region", "Only in this region.")
    .query::<names::GpuModel>("gpu_model", "Only this model, in any spelling.")
    .query::<names::UsageClass>("class", "Only this class.")
    .query::<names::NodeName>("node", "Only on this node; administrators only.")
    .query::<names::DeviceKey>("device", "Only on this device; administrators only.")
    .query::<names::UsageFormat>("format", "JSON or CSV.")
    .query::<names::UsageOffset>("offset", "Rows to leave out at the beginning.")
    .query::<names::UsageLimit>("limit", "Rows at most; else 1000, as CSV all.")
    .problem(Kind::InvalidField)
    .problem(Kind::Forbidden)
    .answers::<UsageBody>(example)
    .answers_file("text/csv")
}

/// `POST /api/v1/tokens/revoke`.
pub(in crate::rest) fn revoke_token() -> Operation {
    let body = Body::new().required::<names::Text>("token", "The token, whole.");
    let example = json!({ "token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2ln" });
    Operation::new(
        "revokeToken",
        "Take a token back",
        "It is refused from the next request on.",
    )
    .body(body, example)
    .answers::<Revoked>(json!({ "revoked": "4f9d6c0e", "until": "2026-11-23T08:00:00Z" }))
}

/// `GET /healthz`.
pub(in crate::rest) fn health() -> Operation {
    Operation::new(
        "getHealth",
        "The process answers",
        "Says nothing of the ledger.",
    )
    .answers::<Health>(json!({ "status": "ok" }))
}

fn declared() -> Value {
    json!({
        "name": "gpu02", "region": "US", "resource_groups": ["TeslaM40"],
        "inventory": { "cpu_cores": 40, "memory_bytes": 33_436_991_488_u64, "gpu_product": "Tesla M40", "gpus": 2 }
    })
}
