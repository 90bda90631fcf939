//! The operation on GPU-seconds.

use serde_json::{Value, json};

use super::operation::Operation;
use crate::rest::names;
use crate::rest::native::usage::UsageBody;
use crate::rest::status::Kind;

/// `GET /api/v1/usage`.
pub(in crate::rest) fn list() -> Operation {
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
    .problem(Kind::Unavailable)
    .answers::<UsageBody>(example)
    .answers_file("text/csv")
}
