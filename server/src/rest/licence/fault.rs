//! Errors of the licence dialect (D4.15): `{"success": false, "code": status, "message": "…", "errors": {field: ["…"]}}`.

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::rest::status::Problem;

/// Status and body of a problem.
pub(in crate::rest) fn fault(problem: &Problem) -> (StatusCode, Value) {
    let status = match problem.kind.code() {
        // The dialect knows no 503.
        (StatusCode::SERVICE_UNAVAILABLE, _) => StatusCode::INTERNAL_SERVER_ERROR,
        (status, _) => status,
    };
    let mut errors = Map::new();
    if let Some(field) = &problem.field {
        errors.insert(field.to_string(), json!([problem.message]));
    }
    let body = json!({
        "success": false,
        "code": status.as_u16(),
        "message": problem.message,
        "errors": errors,
    });
    (status, body)
}
