//! What is held and not justified, and its opposite: what is leased and stands idle.

use std::collections::BTreeSet;

use gpuquota_core::State;
use gpuquota_core::device::DeviceKey;
use gpuquota_core::ghost::ghosts;
use gpuquota_core::id::{LeaseId, NodeName, Seq, TenantName, Timestamp};
use gpuquota_core::usage::usage;
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::call::{Api, Call};
use crate::rest::names;
use crate::rest::reply::Reply;
use crate::rest::status::{Kind, Problem};
use crate::rest::time;

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct Violations<'a> {
    /// By tenant; of a tenant ghosts come last.
    violations: Vec<ViolationBody<'a>>,
    /// The journal's row up to which this holds.
    #[schema(value_type = u64)]
    seq: Seq,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Violation)]
struct ViolationBody<'a> {
    #[schema(value_type = names::ViolationClass)]
    class: &'static str,
    /// Who holds it, or leases it where nothing runs.
    #[schema(value_type = names::TenantName)]
    tenant: &'a TenantName,
    #[schema(value_type = names::NodeName)]
    node: NodeName,
    #[schema(value_type = names::DeviceKey)]
    device: DeviceKey,
    /// Since when it is held, or idle; null: not known.
    #[schema(value_type = Option<names::Time>, required)]
    since: Option<String>,
    /// The lease of a ghost; null of anything else.
    #[schema(value_type = Option<names::LeaseId>, required)]
    lease: Option<LeaseId>,
}

/// `GET /api/v1/violations`: those of tenants that the caller sees.
pub(in crate::rest) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let committed = call.read(api).await?;
    let now = match (call.query.single("as_of")?, call.past_time()?) {
        (None, _) => api.clock.wall(),
        (Some(_), Some(time)) => time.max(committed.state.at()),
        (Some(_), None) => committed.state.at(),
    };
    let principal = call.principal.clone();
    let wanted = call.query.single("tenant")?.map(ToOwned::to_owned);
    // Every device of every tenant is looked at; no task of the runtime waits for that.
    let listed = tokio::task::spawn_blocking(move || {
        let seen = |tenant: &TenantName| {
            let named = wanted.as_deref().is_none_or(|it| it == tenant.as_str());
            named && principal.sees(tenant)
        };
        Reply::ok(violations(&committed.state, now, seen))
    });
    listed
        .await
        .unwrap_or_else(|_| Err(Problem::new(Kind::Internal, "the list cannot be made")))
}

fn violations(state: &State, now: Timestamp, seen: impl Fn(&TenantName) -> bool) -> Violations<'_> {
    let known = state.tenants().map(|(name, _)| name);
    let tenants: BTreeSet<&TenantName> = known.chain(state.holders()).collect();
    let mut rows = Vec::new();
    for tenant in tenants.into_iter().filter(|tenant| seen(tenant)) {
        for violation in usage(state, tenant).violations {
            let device = state.device(&violation.device);
            let since = device.and_then(|device| device.holders.get(tenant));
            rows.push(ViolationBody {
                class: violation.class.as_str(),
                tenant,
                node: violation.node,
                device: violation.device,
                since: since.copied().map(time::format),
                lease: None,
            });
        }
    }
    let idle = ghosts(state, now).filter(|ghost| seen(&ghost.lease.terms.tenant));
    rows.extend(idle.map(|ghost| ViolationBody {
        class: "ghost",
        tenant: &ghost.lease.terms.tenant,
        node: ghost.node.clone(),
        device: ghost.device.clone(),
        since: Some(time::format(ghost.since)),
        lease: Some(ghost.lease.id),
    }));
    rows.sort_by_key(|row| row.tenant);
    Violations {
        violations: rows,
        seq: state.seq(),
    }
}
