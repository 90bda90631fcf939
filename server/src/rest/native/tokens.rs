//! Taking tokens back.

use gpuquota_core::Command;
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::call::{Api, Call};
use crate::rest::json::{invalid, missing};
use crate::rest::names;
use crate::rest::reply::Reply;
use crate::rest::status::Problem;
use crate::rest::time;

/// What was taken back.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RevokedToken)]
pub(in crate::rest) struct Revoked {
    /// The token's id.
    revoked: String,
    /// When it would have expired.
    #[schema(value_type = names::Time)]
    until: String,
}

/// `POST /api/v1/tokens/revoke` with `{"token": "…"}`: the token is refused from the next request on.
pub(in crate::rest) async fn revoke(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let fields = call.fields()?;
    let token = fields.text("token")?.ok_or_else(|| missing("token"))?;
    let verified = api.tokens.token(token, api.clock.wall()).await;
    let verified = verified.map_err(|e| invalid("token", format!("cannot be revoked: {e}")))?;
    // The strongest: what the issuer calls the token, else its digest.
    let id = verified.ids.into_iter().next();
    let id = id.ok_or_else(|| invalid("token", "has no id by which it could be revoked"))?;
    let until = time::format(verified.until);
    let revoked = id.to_string();
    let command = Command::RevokeToken {
        token: id,
        until: verified.until,
    };
    call.submit(api, command).await?;
    Reply::ok(Revoked { revoked, until })
}
