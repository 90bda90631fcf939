//! The answer of the dedicated-host dialect, with every oddity of it.

use gpuquota_core::State;
use gpuquota_core::id::TenantName;
use gpuquota_core::limit::Limit;
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::names;

/// How the dialect writes that there is no limit.
const UNLIMITED: i32 = -1;

/// The whole answer: a list, though its name is singular.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuotaSet::Answer)]
pub(in crate::rest) struct Answer<'a> {
    quota_set: Vec<Row<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuotaSet::Row)]
struct Row<'a> {
    /// Hosts that are bound to the tenant.
    #[schema(value_type = names::Count)]
    used: i32,
    #[schema(value_type = names::HostResourceName)]
    resource: &'a str,
    #[schema(value_type = names::Limit)]
    hard_limit: i32,
}

/// A tenant's hosts by kind, in order of name; of this kind alone when there is one (D5.2).
pub(super) fn answer<'a>(
    state: &'a State,
    tenant: &TenantName,
    wanted: Option<&str>,
) -> Answer<'a> {
    let bound = state.bound_nodes(tenant);
    let kinds = state
        .host_resources()
        .filter(|kind| wanted.is_none_or(|wanted| wanted == kind.resource.as_str()));
    let rows = kinds.map(|kind| {
        let hosts = bound.iter().filter(|node| state.is_host(node, kind));
        Row {
            used: i32::try_from(hosts.count()).unwrap_or(i32::MAX),
            resource: kind.resource.as_str(),
            hard_limit: match state.host_limit(tenant, &kind.resource) {
                Limit::Unlimited => UNLIMITED,
                Limit::Finite(limit) => i32::try_from(limit).unwrap_or(i32::MAX),
            },
        }
    });
    Answer {
        quota_set: rows.collect(),
    }
}
