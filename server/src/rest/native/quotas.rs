//! Quotas of all sources and types in one list, as the ledger counts them; each dialect shows its own part of the same.

use std::collections::BTreeMap;

use gpuquota_core::State;
use gpuquota_core::id::{GpuModel, NodeName, QuotaId, Region, Seq, TenantName};
use gpuquota_core::limit::Limit;
use gpuquota_core::quota::Quota;
use gpuquota_core::usage::{Usage, usage};
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::call::{Api, Call};
use crate::rest::json::invalid;
use crate::rest::names;
use crate::rest::query::Query;
use crate::rest::reply::Reply;
use crate::rest::status::{Kind, Problem};
use crate::rest::time;

/// Quotas on one page at most, and where nobody says how many.
pub(in crate::rest) const LARGEST_PAGE: u32 = 1000;
const USUAL_PAGE: u32 = 100;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Quotas)]
pub(in crate::rest) struct Quotas<'a> {
    quotas: Vec<QuotaBody<'a>>,
    /// `after` of the next page; null on the last one.
    #[schema(value_type = Option<names::QuotaId>, required)]
    next: Option<QuotaId>,
    /// The journal's row up to which this holds.
    #[schema(value_type = u64)]
    seq: Seq,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Quota)]
pub(in crate::rest) struct QuotaBody<'a> {
    #[schema(value_type = names::QuotaId)]
    id: QuotaId,
    #[schema(value_type = names::TenantName)]
    tenant: &'a TenantName,
    #[schema(value_type = names::Region)]
    region: &'a Region,
    #[schema(value_type = names::QuotaSource)]
    source: &'static str,
    #[serde(rename = "type")]
    #[schema(value_type = names::QuotaType)]
    quota_type: &'static str,
    #[schema(value_type = names::GpuModel)]
    gpu_model: &'a GpuModel,
    /// Devices; null is unlimited. An expired quota grants none of them.
    #[schema(value_type = Option<u32>, required)]
    limit: Option<u32>,
    /// Devices counted against it, leased or held. It may be above the limit.
    used: u64,
    /// Those of them that are leased.
    leased: u64,
    /// Those of them that somebody runs on.
    observed: u64,
    /// Nodes of a dedicated quota.
    #[schema(value_type = Vec<names::NodeName>)]
    nodes: Vec<&'a NodeName>,
    /// From then on it grants nothing; null: it has no end.
    #[schema(value_type = Option<names::Time>, required)]
    expires_at: Option<String>,
    /// That time has come.
    expired: bool,
    /// Days before its end at which notice of it was last given; null: not yet.
    #[schema(required)]
    noticed_days: Option<u32>,
}

/// `GET /api/v1/entitlements`: those of tenants that the caller sees, in order of their making.
pub(in crate::rest) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let filter = Filter::read(&call.query)?;
    let committed = call.read(api).await?;
    let principal = call.principal.clone();
    // A tenant's devices are counted for each page; no task of the runtime waits for that.
    let listed = tokio::task::spawn_blocking(move || {
        let sees = |tenant: &TenantName| principal.sees(tenant);
        Reply::ok(page(&committed.state, &filter, sees))
    });
    listed
        .await
        .unwrap_or_else(|_| Err(Problem::new(Kind::Internal, "the list cannot be made")))
}

fn page<'a>(state: &'a State, filter: &Filter, sees: impl Fn(&TenantName) -> bool) -> Quotas<'a> {
    let wanted = state.quotas_after(filter.after);
    let wanted = wanted.filter(|quota| sees(&quota.key.tenant) && filter.takes(quota));
    let mut shown: Vec<&Quota> = wanted.take(filter.limit + 1).collect();
    let more = shown.len() > filter.limit;
    shown.truncate(filter.limit);
    let mut usages: BTreeMap<&TenantName, Usage> = BTreeMap::new();
    let mut body = |quota: &'a Quota| {
        let tenant = &quota.key.tenant;
        let of_tenant = usages.entry(tenant).or_insert_with(|| usage(state, tenant));
        let count = |of: &BTreeMap<QuotaId, u64>| of.get(&quota.id).copied().unwrap_or(0);
        QuotaBody {
            id: quota.id,
            tenant,
            region: &quota.key.region,
            source: quota.key.source.as_str(),
            quota_type: quota.key.quota_type.as_str(),
            gpu_model: &quota.key.gpu_model,
            limit: match quota.limit {
                Limit::Unlimited => None,
                Limit::Finite(limit) => Some(limit),
            },
            used: count(&of_tenant.used),
            leased: count(&of_tenant.leased),
            observed: count(&of_tenant.observed),
            nodes: quota.nodes.iter().collect(),
            expires_at: quota.expires_at.map(time::format),
            expired: quota.expired,
            noticed_days: quota.noticed,
        }
    };
    Quotas {
        next: shown.last().map(|quota| quota.id).filter(|_| more),
        quotas: shown.into_iter().map(&mut body).collect(),
        seq: state.seq(),
    }
}

struct Filter {
    tenant: Option<String>,
    region: Option<String>,
    gpu_model: Option<String>,
    after: Option<QuotaId>,
    limit: usize,
}

impl Filter {
    fn read(query: &Query) -> Result<Self, Problem> {
        let text = |name| Ok::<_, Problem>(query.single(name)?.map(ToOwned::to_owned));
        let after = query.single("after")?.map(number).transpose();
        let after = after.map_err(|rule| invalid("after", rule))?;
        let limit = match query.single("limit")? {
            None => Some(USUAL_PAGE),
            Some(text) => number(text)
                .ok()
                .and_then(|limit| u32::try_from(limit).ok())
                .filter(|limit| (1..=LARGEST_PAGE).contains(limit)),
        };
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        Ok(Self {
            tenant: text("tenant")?,
            region: text("region")?,
            gpu_model: text("gpu_model")?,
            after: after.map(QuotaId),
            limit: limit.ok_or_else(|| {
                invalid(
                    "limit",
                    format!("must be a whole number from 1 to {LARGEST_PAGE}"),
                )
            })?,
        })
    }

    fn takes(&self, quota: &Quota) -> bool {
        let is = |wanted: &Option<String>, own: &str| wanted.as_deref().is_none_or(|it| it == own);
        is(&self.tenant, quota.key.tenant.as_str())
            && is(&self.region, quota.key.region.as_str())
            && is(&self.gpu_model, quota.key.gpu_model.as_str())
    }
}

fn number(text: &str) -> Result<u64, &'static str> {
    let plain = (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|_| plain);
    number.ok_or("must be a whole number of at most 18 digits")
}
