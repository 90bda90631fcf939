//! Tokens by which nodes join. The caller makes the token and tells its digest only.

use gpuquota_core::Command;
use gpuquota_core::id::NodeName;
use gpuquota_core::join::{Digest, LONGEST_TOKEN_MS};
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::call::{Api, Call};
use crate::rest::json::{invalid, missing};
use crate::rest::names;
use crate::rest::reply::Reply;
use crate::rest::status::{Kind, Problem};
use crate::rest::time;

const DEFAULT_TTL_S: u32 = 600;

/// A token that counts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JoinToken)]
pub(in crate::rest) struct Made {
    #[schema(value_type = names::NodeName)]
    node: NodeName,
    /// From then on it does not.
    #[schema(value_type = names::Time)]
    until: String,
}

/// `POST /api/v1/nodes/{name}/join-tokens` with `{"sha256": "…", "ttl_seconds": 600}`.
pub(in crate::rest) async fn post(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let node = call.named("name", NodeName::new)?;
    let fields = call.fields()?;
    let hash = fields.text("sha256")?.ok_or_else(|| missing("sha256"))?;
    let hash = Digest::new(hash).map_err(|e| invalid("sha256", e))?;
    let ttl = fields.count("ttl_seconds")?.unwrap_or(DEFAULT_TTL_S);
    let ttl_ms = ttl.checked_mul(1000);
    let ttl_ms = ttl_ms.filter(|ttl| (1000..=LONGEST_TOKEN_MS).contains(ttl));
    let ttl_ms = ttl_ms.ok_or_else(|| invalid("ttl_seconds", "must be 1 to 3600"))?;
    let command = Command::MakeJoinToken {
        hash: hash.clone(),
        node: node.clone(),
        ttl_ms,
    };
    call.submit(api, command).await?;
    let committed = api.ledger.read();
    let until = committed.state.joining(&hash, api.clock.wall());
    let (_, until) = until.ok_or_else(|| Problem::new(Kind::InUse, "the token has ended"))?;
    Reply::ok(Made {
        node,
        until: time::format(until),
    })
}
