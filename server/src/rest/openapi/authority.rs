//! Operations of the native API on the authority of the nodes' certificates.

use serde_json::json;

use super::operation::Operation;
use crate::rest::native::authority::Listed;

/// `GET /api/v1/authority/nodes`.
pub(in crate::rest) fn list() -> Operation {
    let pin = format!("sha256:{}", "0".repeat(64));
    Operation::new(
        "listAuthorityNodes",
        "Tell whose certificates nodes have, and whom they trust",
        "As each node showed and said since this server started; what other servers of the ledger heard is not in it.",
    )
    .past()
    .answers::<Listed>(json!({
        "nodes": [{ "node": "gpu02", "certificate_by": pin, "given_by": null, "trusts": [pin] }]
    }))
}
