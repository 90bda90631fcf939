//! Errors of the workspace dialect (D2.7): `{"error_code": "WKS.dddddsss", "error_msg": "…"}`, s the HTTP status.

use http::StatusCode;
use serde_json::{Value, json};

use crate::rest::status::Problem;

/// Longest `error_msg` of the vendor's published description, characters.
const LONGEST: usize = 1000;

/// Status and body of a problem.
pub(in crate::rest) fn fault(problem: &Problem) -> (StatusCode, Value) {
    let (status, detail) = match problem.kind.code() {
        // The document knows no 503; the ledger being closed is its second kind of 500.
        (StatusCode::SERVICE_UNAVAILABLE, _) => (StatusCode::INTERNAL_SERVER_ERROR, 2),
        code => code,
    };
    let code = format!("WKS.{detail:05}{:03}", status.as_u16());
    let message: String = problem.message.chars().take(LONGEST).collect();
    (status, json!({ "error_code": code, "error_msg": message }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::status::Kind;

    #[test]
    fn codes_are_short_and_messages_end_between_characters() {
        let fault_of = |kind, message: &str| fault(&Problem::new(kind, message));
        let (status, body) = fault_of(Kind::NoSuchObject, "x");
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(
            body.to_string(),
            r#"{"error_code":"WKS.00002404","error_msg":"x"}"#
        );
        let (status, body) = fault_of(Kind::Unavailable, &"é".repeat(1001));
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body["error_code"], "WKS.00002500");
        assert_eq!(body["error_msg"], "é".repeat(1000));
    }
}
