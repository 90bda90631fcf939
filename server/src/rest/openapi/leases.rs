//! Operations of the native API on leases.

use serde_json::{Value, json};

use super::body::Body;
use super::operation::Operation;
use crate::rest::json::LONGEST_LIST;
use crate::rest::names;
use crate::rest::native::leases::{DryRun, LeaseBody, LeaseOrDryRun, Leases};
use crate::rest::status::Kind;

const DRY_RUN: &str = "`true`: nothing is done; the answer says what would be.";

/// `GET /api/v1/leases`.
pub(in crate::rest) fn list() -> Operation {
    Operation::new(
        "listLeases",
        "List leases",
        "Those of the token's tenants in order of their grant; an admin sees all. Ended ones stand here only with \
         `state=ended`, the last 10000 of them.",
    )
    .query::<names::Text>("tenant", "Only this tenant's.")
    .query::<names::Text>("region", "Only in this region.")
    .query::<names::Text>("project", "Only for this project.")
    .query::<names::Text>("node", "Only with devices of this node.")
    .query::<names::LeaseState>("state", "Only in this state; left out, active and releasing.")
    .query::<names::After>("after", "Only with a higher number: `next` of the page before.")
    .query::<names::PageLimit>("limit", "So many at most.")
    .past()
    .answers::<Leases<'_>>(json!({ "leases": [lease()], "next": null, "seq": 4711 }))
}

/// `GET /api/v1/leases/{id}`.
pub(in crate::rest) fn get() -> Operation {
    Operation::new(
        "getLease",
        "Show a lease",
        "A lease of another token's tenant is answered as one that is not there.",
    )
    .path::<names::LeaseId>("id", "The lease's number.")
    .problem(Kind::NoSuchObject)
    .past()
    .tagged()
    .answers::<LeaseBody<'_>>(lease())
}

/// `POST /api/v1/leases`.
pub(in crate::rest) fn post() -> Operation {
    let body = Body::new()
        .required::<names::TenantName>("tenant", "Whose they are to be.")
        .required::<names::Region>("region", "Where.")
        .required::<names::GpuModel>("gpu_model", "Which model.")
        .required::<names::LeaseCount>("count", "How many.")
        .optional::<names::QuotaType>(
            "type",
            "Charged to quotas of which type; left out, it follows from the model.",
        )
        .optional::<names::LeasePlacement>("placement", "Left out, `devices`.")
        .optional::<names::ProjectId>("project", "For which project of the tenant.")
        .optional::<names::LeaseSeconds>(
            "ttl_seconds",
            "When it is to end unless it is renewed; left out, it lasts until it is given back.",
        )
        .optional_list::<names::NodeName>(
            "nodes",
            1..=LONGEST_LIST,
            "On these nodes only. This and the next four choose devices, and say nothing of a `count_only` lease.",
        )
        .optional::<names::Flag>(
            "spread",
            "On as many nodes as possible instead of as few.",
        )
        .optional::<names::Number>("max_nodes", "On so many nodes at most.")
        .optional::<names::Number>(
            "cpu_cores",
            "Logical CPUs that go with it on each of its nodes; only nodes that have them left.",
        )
        .optional::<names::Bytes>(
            "memory_bytes",
            "Main memory that goes with it on each of its nodes; only nodes that have it left.",
        )
        .optional::<names::Labels>("labels", "The caller's own words, shown with the lease.");
    let example = json!({
        "tenant": "demo", "region": "US", "gpu_model": "nvidia.com/gpu", "count": 2, "ttl_seconds": 86400,
        "labels": { "job": "train-17" }
    });
    Operation::new(
        "requestLease",
        "Lease devices",
        "All limits at once: what the tenant uses and what is asked must be within its quotas, and the devices must be \
         free. Refused with 409, where `explain` is a tree: which rule, how much is used, leased and held, by what of \
         the tenant's own, when the first of it ends, and the smallest change that would admit it. An answer that got \
         lost is repeated by the same `Idempotency-Key`.",
    )
    .query::<names::Flag>("dry_run", DRY_RUN)
    .body(body, example)
    .problem(Kind::NotGranted)
    .problem(Kind::Frozen)
    .tagged()
    .creates::<LeaseBody<'_>>(lease())
    .answers_otherwise::<DryRun<'_>>(dry_run())
}

/// `POST /api/v1/leases/{id}/renew`.
pub(in crate::rest) fn renew() -> Operation {
    let body = Body::new().required_or_null::<names::LeaseSeconds>(
        "ttl_seconds",
        "When it is to end unless it is renewed; null is when it is given back.",
    );
    Operation::new(
        "renewLease",
        "Keep a lease",
        "As good as granting it anew: what the quotas do not bear any more is not kept.",
    )
    .path::<names::LeaseId>("id", "The lease's number.")
    .query::<names::Flag>("dry_run", DRY_RUN)
    .body(body, json!({ "ttl_seconds": 86400 }))
    .problem(Kind::NoSuchObject)
    .problem(Kind::NotGranted)
    .problem(Kind::LeaseOver)
    .problem(Kind::Frozen)
    .conditional()
    .tagged()
    .answers::<LeaseOrDryRun<'_>>(lease())
}

/// `DELETE /api/v1/leases/{id}`.
pub(in crate::rest) fn delete() -> Operation {
    let mut over = lease();
    over["state"] = json!("releasing");
    over["reason"] = json!("released");
    over["releasing_since"] = json!("2026-11-22T10:00:00Z");
    over["deadline"] = json!("2026-11-22T10:10:00Z");
    over["waiting"] = json!(["GPU-6b1e5b8a-9d53-4b6c-8a7e-2f3b0c9d1e11"]);
    Operation::new(
        "giveBackLease",
        "Give a lease back",
        "It stays charged as `releasing` until a reading of its nodes shows its devices free of the tenant, or a bounded \
         time has passed while they were heard. Giving back what is to end already, or has ended, changes nothing.",
    )
    .path::<names::LeaseId>("id", "The lease's number.")
    .query::<names::Flag>("force", "`true`: it ends at once, whoever holds its devices; only for an admin.")
    .query::<names::Flag>("dry_run", DRY_RUN)
    .problem(Kind::NoSuchObject)
    .conditional()
    .tagged()
    .answers::<LeaseOrDryRun<'_>>(over)
}

fn lease() -> Value {
    let mut lease = terms();
    lease["id"] = json!(17);
    lease["epoch"] = json!(17);
    lease
}

fn dry_run() -> Value {
    json!({ "dry_run": true, "lease": terms() })
}

fn terms() -> Value {
    let uuid = "GPU-6b1e5b8a-9d53-4b6c-8a7e-2f3b0c9d1e11";
    json!({
        "tenant": "demo", "region": "US", "gpu_model": "nvidia.com/gpu", "type": "flexible", "source": "purchase",
        "count": 1, "placement": "devices", "project": null,
        "devices": [{
            "id": uuid, "node": "gpu01", "kind": "gpu", "uuid": uuid, "parent_uuid": null, "gi": null, "ci": null,
            "model": "NVIDIA H100 80GB HBM3", "profile": null
        }],
        "nodes": ["gpu01"], "cpu_cores": null, "memory_bytes": null, "labels": { "job": "train-17" },
        "state": "active", "granted_at": "2026-11-22T09:00:00Z", "expires_at": "2026-11-23T09:00:00Z"
    })
}
