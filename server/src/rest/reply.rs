//! Answers: JSON with a status, before and as an HTTP response.

use axum::body::Body;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::status::{Kind, Problem};

/// A successful answer.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

impl Reply {
    /// 200 with this body.
    pub(super) fn ok(body: impl Serialize) -> Result<Self, Problem> {
        match serde_json::to_vec(&body) {
            Ok(body) => Ok(Self {
                status: StatusCode::OK,
                body,
            }),
            Err(error) => {
                tracing::error!(error = %error, "an answer cannot be written as JSON");
                Err(Problem::new(Kind::Internal, "the answer cannot be written"))
            }
        }
    }
}

/// A JSON body as an HTTP response.
pub(super) fn json_response(status: StatusCode, body: &Value) -> Response {
    response_of(status, body.to_string().into())
}

/// A body that is JSON already as an HTTP response.
pub(super) fn response_of(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
