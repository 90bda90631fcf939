//! The operations that serve this document.

use super::operation::Operation;
use crate::rest::names;
use crate::rest::status::Kind;

/// `GET /openapi.json`.
pub(in crate::rest) fn document() -> Operation {
    Operation::new("getOpenApi", "This document", "OpenAPI 3.1.").answers_file("application/json")
}

/// `GET /docs`.
pub(in crate::rest) fn page() -> Operation {
    Operation::new(
        "getDocs",
        "This document to read",
        "Without scripts it is a plain list of the operations.",
    )
    .answers_file("text/html")
}

/// `GET /docs/{file}`.
pub(in crate::rest) fn file() -> Operation {
    Operation::new("getDocsFile", "What the page to read loads", "")
        .path::<names::Text>("file", "The file.")
        .problem(Kind::NoSuchObject)
        .answers_file("*/*")
}
