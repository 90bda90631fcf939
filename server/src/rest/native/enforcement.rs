//! What a person says of steps that wait.

use gpuquota_core::Command;
use gpuquota_core::id::TenantName;
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::none;
use crate::rest::call::{Api, Call};
use crate::rest::json::{invalid, missing};
use crate::rest::names;
use crate::rest::reply::Reply;
use crate::rest::status::Problem;
use crate::rest::time;

/// A day, seconds.
const LONGEST_S: u32 = 24 * 60 * 60;

/// Until when steps go through.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct Confirmation<'a> {
    /// Null: processes of nobody that the agents' rules know.
    #[schema(value_type = Option<names::TenantName>, required)]
    tenant: Option<&'a TenantName>,
    /// Until then nothing against it waits for a person; null: what is too much at once waits.
    #[schema(value_type = Option<names::Time>, required)]
    until: Option<String>,
}

/// `POST /api/v1/tenants/{tenant}/enforcement/confirmation`: lets the steps through that wait, for a time.
pub(in crate::rest) async fn confirm(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let tenant = call.named("tenant", TenantName::new)?;
    // Steps may wait against somebody whom the ledger does not know otherwise.
    let committed = call.read(api).await?;
    let state = &committed.state;
    if state.tenant(&tenant).is_none() && state.hold(Some(&tenant)).is_none() {
        return Err(none("tenant"));
    }
    let_through(api, call, Some(&tenant)).await
}

/// `POST /api/v1/unattributed/enforcement/confirmation`: the same of processes of nobody.
pub(in crate::rest) async fn confirm_nobodys(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let_through(api, call, None).await
}

async fn let_through(
    api: &Api,
    call: &Call,
    tenant: Option<&TenantName>,
) -> Result<Reply, Problem> {
    let fields = call.fields()?;
    let rule = || {
        let rule = format!("must be a whole number of seconds from 0 to {LONGEST_S}");
        invalid("for_seconds", rule)
    };
    let seconds = fields.count("for_seconds").map_err(|_| rule())?;
    let seconds = seconds.ok_or_else(|| missing("for_seconds"))?;
    if seconds > LONGEST_S {
        return Err(rule());
    }
    let command = Command::ConfirmSteps(tenant.cloned(), u64::from(seconds) * 1000);
    call.submit(api, command).await?;
    let state = &api.ledger.read().state;
    let until = state.let_through(tenant, api.clock.wall());
    Reply::ok(Confirmation {
        tenant,
        until: until.map(time::format),
    })
}
