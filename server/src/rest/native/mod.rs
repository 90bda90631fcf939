//! The native API: what has no place in any foreign dialect.

pub(super) mod audit;
pub(super) mod authority;
pub(super) mod bans;
pub(super) mod drains;
pub(super) mod enforcement;
mod fault;
pub(super) mod groups;
pub(super) mod join_tokens;
pub(super) mod leases;
pub(super) mod models;
pub(super) mod nodes;
pub(super) mod page;
pub(super) mod pools;
pub(super) mod products;
pub(super) mod projects;
pub(super) mod quotas;
pub(super) mod seats;
pub(super) mod settings;
pub(super) mod steps;
pub(super) mod tenants;
pub(super) mod tokens;
pub(super) mod usage;
pub(super) mod violations;
pub(super) mod wire;

use serde::Serialize;
use utoipa::ToSchema;

use super::call::{Api, Call};
use super::reply::Reply;
use super::status::Problem;

pub(super) use fault::fault;

/// What a healthy process says.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`.
    status: &'static str,
}

/// `GET /healthz`: the process answers. Needs no token and says nothing of the ledger.
pub(super) async fn health(_api: &Api, _call: &Call) -> Result<Reply, Problem> {
    Reply::ok(Health { status: "ok" })
}
