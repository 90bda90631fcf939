//! Taking tokens back.

use gpuquota_core::Command;
use serde_json::json;

use crate::rest::call::{Api, Call};
use crate::rest::json::{Fields, invalid, missing};
use crate::rest::reply::Reply;
use crate::rest::status::Problem;
use crate::rest::time;

/// `POST /api/v1/tokens/revoke` with `{"token": "…"}`: the token is refused from the next request on.
pub(in crate::rest) async fn revoke(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let fields = Fields::parse(&call.body)?;
    let token = fields.text("token")?.ok_or_else(|| missing("token"))?;
    let verified = api.tokens.token(token, api.clock.wall()).await;
    let verified = verified.map_err(|e| invalid("token", format!("cannot be revoked: {e}")))?;
    // The strongest: what the issuer calls the token, else its digest.
    let id = verified.ids.into_iter().next();
    let id = id.ok_or_else(|| invalid("token", "has no id by which it could be revoked"))?;
    let body = json!({ "revoked": id, "until": time::format(verified.until) });
    let command = Command::RevokeToken {
        token: id,
        until: verified.until,
    };
    call.submit(api, command).await?;
    Reply::ok(body)
}
