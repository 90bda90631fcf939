//! The operation of the audit.

use serde_json::json;

use super::operation::Operation;
use crate::rest::names;
use crate::rest::native::audit::Audit;
use crate::rest::status::Kind;

/// `GET /api/v1/audit`.
pub(in crate::rest) fn list() -> Operation {
    let change = json!({
        "seq": 42, "at": "2026-11-22T08:00:00Z", "actor": "admin:billing", "from": "192.0.2.7",
        "reason": "contract 4711", "request_id": "5b0c8a0e", "answer": null,
        "events": [{ "type": "quota_released", "quota": 7, "forced": true }]
    });
    let denial = json!({
        "minute": "2026-11-22T08:01:00Z", "actor": "tenant-admin:portal", "from": "192.0.2.9", "tenant": "research",
        "rule": "over_quota", "route": "POST /api/v1/leases", "reason": null,
        "count": 3, "request_id": "9f1e", "message": "4 of 4 are used and 1 are asked for, 1 too many"
    });
    Operation::new(
        "readAudit",
        "Who changed what, when, why and from where",
        "Changes come from the journal, so what is not there did not happen. A caller says why in the header \
         X-Audit-Reason, 1 to 255 bytes. Denials are counted by caller, rule and minute and kept for an hour; \
         the log has them for as long as it is kept.",
    )
    .query::<names::After>("after", "Rows after this one; 0 where it is left out.")
    .query::<names::PageLimit>("limit", "Rows of the answer, 100 where it is left out.")
    .query::<names::Text>("actor", "What this caller did alone.")
    .query::<names::TenantName>("tenant", "What concerns this tenant alone.")
    .query::<names::Flag>("nodes", "Also what nodes reported.")
    .problem(Kind::Unavailable)
    .answers::<Audit>(json!({ "changes": [change], "next": null, "archived_before": null, "denials": [denial] }))
}
