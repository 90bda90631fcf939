//! Errors of the dedicated-host dialect (D5.4): `{"error_code": "DEH.0404", "error_msg": "…", "message": "…"}`.

use http::StatusCode;
use serde_json::{Value, json};

use crate::rest::status::Problem;

/// Status and body of a problem. One family of clients reads the first two keys, another only the last.
pub(in crate::rest) fn fault(problem: &Problem) -> (StatusCode, Value) {
    let (status, _) = problem.kind.code();
    let body = json!({
        "error_code": format!("DEH.{:04}", status.as_u16()),
        "error_msg": problem.message,
        "message": problem.message,
    });
    (status, body)
}
