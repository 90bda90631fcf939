//! Errors of the instance service (D3.6, D3.7): `{"code": "10004", "msg": "…", "data": null}`, the code a text.
//!
//! Clients look at the code alone, so what a request did wrong is HTTP 200; only what is wrong with its transport, its
//! path or us has a status of its own.

use http::StatusCode;
use serde_json::{Value, json};

use crate::rest::status::{Kind, Problem};

/// Status and body of a problem.
pub(in crate::rest) fn fault(problem: &Problem) -> (StatusCode, Value) {
    let (status, code) = match problem.kind {
        Kind::MissingField => (StatusCode::OK, "10003"),
        Kind::NoSuchObject => (StatusCode::OK, "10004"),
        Kind::Frozen => (StatusCode::OK, "10007"),
        other => match other.code().0 {
            StatusCode::BAD_REQUEST => (StatusCode::OK, "10004"),
            StatusCode::UNAUTHORIZED => (StatusCode::OK, "10008"),
            StatusCode::FORBIDDEN => (StatusCode::OK, "10009"),
            StatusCode::TOO_MANY_REQUESTS => (StatusCode::TOO_MANY_REQUESTS, "10001"),
            status if status.is_client_error() => (status, "10004"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "10001"),
        },
    };
    let body = json!({ "code": code, "msg": problem.message, "data": null });
    (status, body)
}
