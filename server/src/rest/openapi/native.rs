//! Operations of the native API on nodes and tokens, and what needs no token.

use serde_json::{Value, json};

use super::body::Body;
use super::operation::Operation;
use crate::rest::json::LONGEST_LIST;
use crate::rest::names;
use crate::rest::native::Health;
use crate::rest::native::join_tokens::Made;
use crate::rest::native::nodes::{Declared, Listed, NodeBody};
use crate::rest::native::tokens::Revoked;
use crate::rest::status::Kind;

/// `GET /api/v1/nodes`.
pub(in crate::rest) fn list_nodes() -> Operation {
    Operation::new(
        "listNodes",
        "List nodes with their devices",
        "What a node says of itself, where it belongs and what it has. Unknown is absent or null, never 0.",
    )
    .past()
    .answers::<Listed<'_>>(json!({ "nodes": [node()], "seq": 42 }))
}

/// `GET /api/v1/nodes/{name}`.
pub(in crate::rest) fn get_node() -> Operation {
    Operation::new(
        "getNode",
        "Show a node with its devices",
        "Its `ETag` is about what was said of it, and stays while only its reports change.",
    )
    .path::<names::NodeName>("name", "The node.")
    .problem(Kind::NoSuchObject)
    .past()
    .tagged()
    .answers::<NodeBody<'_>>(node())
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
    .conditional()
    .tagged()
    .answers::<Declared<'_>>(declared())
}

/// `DELETE /api/v1/nodes/{name}`.
pub(in crate::rest) fn delete_node() -> Operation {
    Operation::new(
        "retireNode",
        "Forget a node that is no more",
        "Its devices go with it. What is leased there ends, and says that nobody saw it free. Certificates \
         that it had make it no node again: it comes back by a new join token, or when it is declared.",
    )
    .path::<names::NodeName>("name", "The node.")
    .query::<names::Flag>("force", "Also while it is heard, and while its devices are leased.")
    .problem(Kind::NoSuchObject)
    .problem(Kind::InUse)
    .conditional()
    .answers::<names::Nothing>(json!({}))
}

/// `DELETE /api/v1/gpus/{uuid}`.
pub(in crate::rest) fn delete_gpu() -> Operation {
    Operation::new(
        "forgetGpu",
        "Take a GPU away from its node",
        "With its instances, so that the node in which it is now may report it.",
    )
    .path::<names::GpuUuid>("uuid", "The GPU.")
    .query::<names::Flag>(
        "force",
        "Also while its node is heard, and while it is leased.",
    )
    .problem(Kind::NoSuchObject)
    .problem(Kind::InUse)
    .answers::<names::Nothing>(json!({}))
}

/// `POST /api/v1/nodes/{name}/join-tokens`.
pub(in crate::rest) fn post_join_token() -> Operation {
    let body = Body::new()
        .required::<names::Sha256>("sha256", "Of the token.")
        .optional_not_null::<names::JoinTokenTtl>("ttl_seconds", "600 when left out.");
    let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    Operation::new(
        "makeJoinToken",
        "Let a node join once",
        "The caller makes the token, 32 random bytes, and gives it to the node alone.",
    )
    .path::<names::NodeName>("name", "The node that its bearer becomes.")
    .body(body, json!({ "sha256": digest, "ttl_seconds": 600 }))
    .problem(Kind::IdTaken)
    .problem(Kind::InUse)
    .answers::<Made>(json!({ "node": "gpu02", "until": "2026-11-23T08:00:00Z" }))
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

fn node() -> Value {
    let device = json!({
        "device": "GPU-8a56a4bc-6b3f-4e0f-9a3d-3f6a3a1c0b11", "gpu_model": "nvidia.com/gpu", "model": "Tesla M40",
        "health": "ok", "partitioned": false, "tenants": ["demo"], "unattributed": false, "licence": null
    });
    json!({
        "name": "gpu02", "region": "US", "state": "up", "settled": true, "bound_tenant": null, "resource_groups": ["TeslaM40"],
        "inventory": null,
        "facts": { "cpu_cores": 40, "memory_bytes": 33_436_991_488_u64, "driver_version": "580.95.05", "nvml": "ok" },
        "observed_at": "2026-11-22T08:00:00Z", "devices": [device],
        "policy": { "sent": 4700, "sent_at": "2026-11-22T07:59:58Z", "held": 4700 }
    })
}
