//! The document to read, offline: Swagger UI over a plain list of the operations, which stays where scripts do not run.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use http::StatusCode;
use utoipa_swagger_ui::{Config, serve};

use super::call::{Api, Call};
use super::openapi::Operation;
use super::reply::Reply;
use super::routes::ROUTES;
use super::status::{Kind, Problem};

// Swagger UI sets styles on its elements and has its pictures in its style sheet.
const HEADERS: &[(&str, &str)] = &[
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
];

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const START: &str = "\
window.addEventListener('load', () => SwaggerUIBundle({
  url: 'openapi.json', dom_id: '#operations', deepLinking: true, validatorUrl: null,
}));
";

static PAGE: LazyLock<Bytes> = LazyLock::new(|| page().into());
static STYLE: LazyLock<Option<Bytes>> = LazyLock::new(|| asset("swagger-ui.css"));
static BUNDLE: LazyLock<Option<Bytes>> = LazyLock::new(|| asset("swagger-ui-bundle.js"));

/// `GET /docs`.
pub(super) async fn read(_api: &Api, _call: &Call) -> Result<Reply, Problem> {
    Ok(reply("text/html; charset=utf-8", PAGE.clone()))
}

/// `GET /docs/{file}`: one of the files that the page loads.
pub(super) async fn file(_api: &Api, call: &Call) -> Result<Reply, Problem> {
    let file = match call.segment("file") {
        "start.js" => Some((JAVASCRIPT, Bytes::from_static(START.as_bytes()))),
        "swagger-ui-bundle.js" => BUNDLE.clone().map(|bytes| (JAVASCRIPT, bytes)),
        "swagger-ui.css" => STYLE
            .clone()
            .map(|bytes| ("text/css; charset=utf-8", bytes)),
        _ => None,
    };
    let (content_type, bytes) =
        file.ok_or_else(|| Problem::new(Kind::NoSuchObject, "there is no such file"))?;
    Ok(reply(content_type, bytes))
}

fn reply(content_type: &'static str, body: Bytes) -> Reply {
    Reply {
        status: StatusCode::OK,
        content_type,
        headers: HEADERS,
        generation: None,
        body,
    }
}

fn asset(path: &str) -> Option<Bytes> {
    let file = serve(path, Arc::new(Config::default())).ok()??;
    Some(Bytes::from(file.bytes.into_owned()))
}

fn page() -> String {
    let mut rows = String::new();
    for route in ROUTES {
        let operation: Operation = (route.describe)();
        let _ = writeln!(
            rows,
            "<tr><td>{}</td><td><code>{}</code></td><td>{}</td></tr>",
            route.method,
            escaped(route.path),
            escaped(operation.summary())
        );
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>gpuquota</title>\n\
         <link rel=\"stylesheet\" href=\"docs/swagger-ui.css\">\n\
         <script src=\"docs/swagger-ui-bundle.js\"></script>\n<script src=\"docs/start.js\"></script>\n</head>\n\
         <body>\n<div id=\"operations\">\n<h1>gpuquota</h1>\n<p>The whole description is \
         <a href=\"openapi.json\">openapi.json</a>.</p>\n<table>\n{rows}</table>\n</div>\n</body>\n</html>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
