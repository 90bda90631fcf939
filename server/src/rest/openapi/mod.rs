//! The OpenAPI 3.1 document: from the one table of routes, from the types of the answers, and from what each dialect
//! answers to a problem.
//!
//! `operation` is what a route says of itself; a file a dialect says it. `body` and `rest::names` are as strict as the parsers.

pub(super) mod audit;
pub(super) mod authority;
pub(super) mod bans;
mod body;
#[cfg(test)]
mod checks;
mod document;
pub(super) mod drains;
pub(super) mod enforcement;
mod faults;
pub(super) mod gpu_quota;
pub(super) mod groups;
pub(super) mod instance;
pub(super) mod leases;
pub(super) mod licence;
mod licence_answers;
pub(super) mod native;
mod operation;
pub(super) mod pools;
mod problems;
pub(super) mod products;
pub(super) mod projects;
pub(super) mod quota_set;
pub(super) mod quotas;
pub(super) mod served;
pub(super) mod settings;
pub(super) mod tenants;
pub(super) mod usage;
pub(super) mod workspace;

use std::sync::LazyLock;

use axum::body::Bytes;

use super::call::{Api, Call};
use super::reply::Reply;
use super::status::{Kind, Problem};

pub(super) use document::document;
pub(super) use operation::Operation;

static WRITTEN: LazyLock<Option<Bytes>> = LazyLock::new(|| {
    let written = document().to_json();
    written.ok().map(Bytes::from)
});

/// Writes the document, so that no request waits for it.
pub(super) fn prepare() {
    LazyLock::force(&WRITTEN);
}

/// `GET /openapi.json`.
pub(super) async fn serve(_api: &Api, _call: &Call) -> Result<Reply, Problem> {
    let written = WRITTEN.clone();
    let written = written.ok_or_else(|| Problem::new(Kind::Internal, "there is no document"))?;
    Ok(Reply::written(written))
}
