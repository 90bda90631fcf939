//! Whose certificates nodes have, and whom they trust.

use std::collections::BTreeSet;

use gpuquota_core::id::NodeName;
use gpuquota_core::node::NodeState;
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::call::{Api, Call};
use crate::rest::names;
use crate::rest::reply::Reply;
use crate::rest::status::Problem;

/// One node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuthorityNode)]
pub(in crate::rest) struct NodeBody {
    /// Its name.
    #[schema(value_type = names::NodeName)]
    node: String,
    /// SHA-256 of the key of the authority behind the certificate that it showed last; null: it was not heard since this server
    /// started.
    #[schema(required)]
    certificate_by: Option<String>,
    /// The same of the newest certificate that this server gave it and that it has not shown yet; null: there is none.
    #[schema(required)]
    given_by: Option<String>,
    /// The same of those that it trusts; null: it did not say.
    #[schema(required)]
    trusts: Option<Vec<String>>,
}

/// Nodes that were ever heard, or were given a certificate since this server started.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuthorityNodes)]
pub(in crate::rest) struct Listed {
    nodes: Vec<NodeBody>,
}

/// `GET /api/v1/authority/nodes`.
pub(in crate::rest) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let committed = call.read(api).await?;
    let heard = committed.state.nodes();
    let heard = heard.filter(|(_, known)| known.state != NodeState::Expected);
    let mut names: BTreeSet<NodeName> = heard.map(|(name, _)| name.clone()).collect();
    names.extend(api.liveness.authorities.given(api.clock.wall()));
    let body = names.iter().map(|name| {
        let held = api.liveness.authorities.of(name).unwrap_or_default();
        let trusts = held.trusts;
        NodeBody {
            node: name.to_string(),
            given_by: held.given.map(|given| given.by.to_string()),
            certificate_by: held.certificate_by.map(|pin| pin.to_string()),
            trusts: trusts.map(|pins| pins.iter().map(ToString::to_string).collect()),
        }
    });
    Reply::ok(Listed {
        nodes: body.collect(),
    })
}
