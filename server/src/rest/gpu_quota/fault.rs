//! Errors of the GPU quota dialect (D1.15): `{"code": status * 100 + detail, "message": "…"}`.

use http::StatusCode;
use serde_json::{Value, json};

use crate::rest::status::Problem;

/// Status and body of a problem.
pub(in crate::rest) fn fault(problem: &Problem) -> (StatusCode, Value) {
    let (status, detail) = match problem.kind.code() {
        // The dialect knows no 503; the ledger being closed is its second kind of 500.
        (StatusCode::SERVICE_UNAVAILABLE, _) => (StatusCode::INTERNAL_SERVER_ERROR, 2),
        code => code,
    };
    let code = u32::from(status.as_u16()) * 100 + u32::from(detail);
    (status, json!({ "code": code, "message": problem.message }))
}
