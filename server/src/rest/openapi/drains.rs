//! Operations of the native API on drains.

use serde_json::{Value, json};

use super::operation::Operation;
use crate::rest::native::drains::Drains;

/// `GET /api/v1/drains`.
pub(in crate::rest) fn list() -> Operation {
    Operation::new(
        "listDrains",
        "List drains with their plans",
        "A tenant that uses more than its quotas grant since one was lowered, ended or released has until a deadline to \
         end the excess; then leases are ended by the plan that is shown. Those of the token; an admin sees all.",
    )
    .past()
    .answers::<Drains<'_>>(json!({
        "drains": [{
            "tenant": "demo", "cause": "shrink", "since": "2026-11-22T08:00:00Z", "deadline": "2026-11-23T08:00:00Z",
            "plan": group()
        }],
        "seq": 42
    }))
}

/// What would have to go of a group, as an example.
pub(super) fn group() -> Value {
    json!({
        "region": "US", "quota_type": "flexible", "gpu_model": "nvidia.com/gpu",
        "limit_before": 4, "limit_after": 4, "used": 5, "excess": 1, "leaving": 0,
        "deadline": "2026-11-23T08:00:00Z",
        "victims": [{
            "lease": 7, "count": 1, "activity": "idle", "idle_since": "2026-11-22T06:00:00Z",
            "since": "2026-11-20T08:00:00Z",
            "devices": [{ "device": "GPU-8a56a4bc-6b3f-4e0f-9a3d-3f6a3a1c0b11", "node": "gpu02" }]
        }]
    })
}
