//! Operations of the native API on bans.

use serde_json::{Value, json};

use super::body::Body;
use super::operation::Operation;
use crate::rest::names;
use crate::rest::native::bans::{BanBody, Listed};
use crate::rest::status::Kind;

/// `GET /api/v1/bans`.
pub(in crate::rest) fn list() -> Operation {
    Operation::new(
        "listBans",
        "List nodes and certificates that are refused",
        "Who did it and why stands in the audit.",
    )
    .past()
    .answers::<Listed>(json!({ "bans": [ban()] }))
}

/// `POST /api/v1/bans`.
pub(in crate::rest) fn post() -> Operation {
    let body = Body::new()
        .optional_not_null::<names::NodeName>("node", "A node, whatever its certificate.")
        .optional_not_null::<names::CertificateSerial>("serial", "One certificate.");
    Operation::new(
        "ban",
        "Refuse a node or a certificate",
        "Exactly one of `node` and `serial`. Its open stream is ended on every server, it is given no certificate, and \
         what it holds stays charged.",
    )
    .body(body, json!({ "node": "gpu02" }))
    .problem(Kind::InUse)
    .answers::<BanBody>(ban())
}

/// `DELETE /api/v1/bans`.
pub(in crate::rest) fn delete() -> Operation {
    Operation::new(
        "liftBan",
        "Refuse a node or a certificate no more",
        "Exactly one of `node` and `serial`.",
    )
    .query::<names::NodeName>("node", "The node.")
    .query::<names::CertificateSerial>("serial", "The certificate.")
    .problem(Kind::NoSuchObject)
    .answers::<names::Nothing>(json!({}))
}

fn ban() -> Value {
    json!({ "node": "gpu02", "serial": null, "since": "2026-11-23T08:00:00Z" })
}
