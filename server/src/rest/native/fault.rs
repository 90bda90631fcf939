//! The native API's errors: `{"error": {"kind", "message", "explain"}}`.

use http::StatusCode;
use serde_json::{Value, json};

use crate::rest::status::Problem;

/// Status and body of a problem.
pub(in crate::rest) fn fault(problem: &Problem) -> (StatusCode, Value) {
    let mut error = json!({ "kind": problem.kind.name(), "message": problem.message });
    if let (Some(explain), Some(error)) = (&problem.explain, error.as_object_mut()) {
        error.insert("explain".into(), Value::clone(explain));
    }
    (problem.kind.code().0, json!({ "error": error }))
}
