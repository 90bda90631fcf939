//! Answers: JSON with a status, before and as an HTTP response.

use axum::body::{Body, Bytes};
use axum::response::Response;
use gpuquota_core::id::Seq;
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::status::{Kind, Problem};

/// A successful answer.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    /// Headers besides.
    pub(super) headers: &'static [(&'static str, &'static str)],
    /// Generation of the one object that it shows.
    pub(super) generation: Option<Seq>,
    pub(super) body: Bytes,
}

const JSON: &str = "application/json";

impl Reply {
    /// 200 with this body.
    pub(super) fn ok(body: impl Serialize) -> Result<Self, Problem> {
        Self::with(StatusCode::OK, body)
    }

    /// 201 with this body.
    pub(super) fn created(body: impl Serialize) -> Result<Self, Problem> {
        Self::with(StatusCode::CREATED, body)
    }

    /// The same, as the answer about an object of this generation.
    pub(super) fn of(self, generation: Seq) -> Self {
        Self {
            generation: Some(generation),
            ..self
        }
    }

    /// The same, as the answer about a thing whose generation may not be known.
    pub(super) fn tagged(self, generation: Option<Seq>) -> Self {
        Self { generation, ..self }
    }

    /// 200 with nothing to tell.
    pub(super) fn done() -> Result<Self, Problem> {
        Self::ok(serde_json::json!({}))
    }

    /// 200 with a body that is JSON already.
    pub(super) fn written(body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: JSON,
            headers: &[],
            generation: None,
            body: body.into(),
        }
    }

    /// 200 with a table that a browser saves and a spreadsheet opens.
    pub(super) fn csv(body: String) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "text/csv; charset=utf-8; header=present",
            headers: &[
                ("content-disposition", "attachment; filename=\"usage.csv\""),
                ("vary", "accept"),
            ],
            generation: None,
            body: body.into(),
        }
    }

    fn with(status: StatusCode, body: impl Serialize) -> Result<Self, Problem> {
        match serde_json::to_vec(&body) {
            Ok(body) => Ok(Self {
                status,
                content_type: JSON,
                headers: &[],
                generation: None,
                body: body.into(),
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
    response_of(Reply {
        status,
        content_type: JSON,
        headers: &[],
        generation: None,
        body: body.to_string().into(),
    })
}

/// An answer as an HTTP response.
pub(super) fn response_of(reply: Reply) -> Response {
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = reply.status;
    let content_type = HeaderValue::from_static(reply.content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    for (name, value) in reply.headers {
        let (name, value) = (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
        response.headers_mut().insert(name, value);
    }
    if let Some(generation) = reply.generation {
        // Digits between quotes.
        if let Ok(etag) = HeaderValue::from_str(&format!("\"{generation}\"")) {
            response.headers_mut().insert(ETAG, etag);
        }
    }
    response
}
