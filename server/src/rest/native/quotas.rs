//! Quotas of all sources and types in one list, as the ledger counts them; each dialect shows its own part of the same.

use std::collections::BTreeMap;

use gpuquota_core::State;
use gpuquota_core::command::{Command, SwitchQuota};
use gpuquota_core::id::{GpuModel, NodeName, QuotaId, Region, Seq, TenantName};
use gpuquota_core::limit::Limit;
use gpuquota_core::object::Object;
use gpuquota_core::quota::Quota;
use gpuquota_core::usage::{Usage, usage};
use serde::Serialize;
use utoipa::ToSchema;

use super::page;
use super::wire::{none, shaped};
use crate::chosen_enforcement::ChosenEnforcement;
use crate::rest::call::{Api, Call};
use crate::rest::json::missing;
use crate::rest::names;
use crate::rest::on_excess::on_excess;
use crate::rest::plan::PlanBody;
use crate::rest::query::Query;
use crate::rest::reply::Reply;
use crate::rest::status::{Kind, Problem};
use crate::rest::time;

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
    /// Devices; null is unlimited. A quota that is expired or not active grants none of them.
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
    /// Whether it is in force until its end; `PATCH` changes it.
    is_active: bool,
    /// Days before its end at which notice of it was last given; null: not yet.
    #[schema(required)]
    noticed_days: Option<u32>,
    /// How far agents go about what counts on it beyond its limit; null: as its tenant says, else its region, else the settings.
    #[schema(value_type = Option<names::EnforcementFields>, required)]
    enforcement: Option<ChosenEnforcement>,
}

impl<'a> QuotaBody<'a> {
    fn of(quota: &'a Quota, of_tenant: &Usage) -> Self {
        let count = |of: &BTreeMap<QuotaId, u64>| of.get(&quota.id).copied().unwrap_or(0);
        Self {
            id: quota.id,
            tenant: &quota.key.tenant,
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
            is_active: !quota.switched_off,
            noticed_days: quota.noticed,
            enforcement: quota.enforcement.clone().map(ChosenEnforcement),
        }
    }
}

/// What a switch answers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = QuotaOrPlan)]
#[expect(dead_code, reason = "describes what the two answers are")]
pub(in crate::rest) enum QuotaOrPlan<'a> {
    Quota(QuotaBody<'a>),
    Plan(PlanBody),
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
        let of_tenant = usages.entry(tenant);
        QuotaBody::of(quota, of_tenant.or_insert_with(|| usage(state, tenant)))
    };
    Quotas {
        next: shown.last().map(|quota| quota.id).filter(|_| more),
        quotas: shown.into_iter().map(&mut body).collect(),
        seq: state.seq(),
    }
}

/// `GET /api/v1/entitlements/{id}`.
pub(in crate::rest) async fn get(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let id = call.named("id", number)?;
    let committed = call.read(api).await?;
    let state = &committed.state;
    let quota = state
        .quota(id)
        .filter(|quota| call.principal.sees(&quota.key.tenant));
    let quota = quota.ok_or_else(|| none("quota"))?;
    let body = QuotaBody::of(quota, &usage(state, &quota.key.tenant));
    Ok(Reply::ok(body)?.tagged(state.generation(&Object::Quota(id))))
}

/// `PATCH /api/v1/entitlements/{id}`: puts it out of force, or back into it.
pub(in crate::rest) async fn patch(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let fields = call.fields()?;
    let switch = SwitchQuota {
        quota: call.named("id", number)?,
        active: fields
            .flag("is_active")?
            .ok_or_else(|| missing("is_active"))?,
        on_excess: on_excess(call)?,
    };
    let command = Command::SwitchQuota(switch);
    let object = Object::Quota(switch.quota);
    if call.query.switch("dry_run")? {
        call.expects(api, &object)?;
        return Reply::ok(call.plan(api, &command)?);
    }
    let written = call.write(api, object, command).await?;
    let committed = api.ledger.read();
    let quota = committed.state.quota(switch.quota);
    let quota = quota.ok_or_else(|| none("quota"))?;
    let of_tenant = usage(&committed.state, &quota.key.tenant);
    Ok(Reply::ok(QuotaBody::of(quota, &of_tenant))?.tagged(written.generation))
}

/// `PUT /api/v1/entitlements/{id}/enforcement`: how far agents go about what counts on it beyond its limit.
pub(in crate::rest) async fn put_enforcement(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let fields = call.fields()?;
    if !fields.has("enforcement") {
        return Err(missing("enforcement"));
    }
    let id = call.named("id", number)?;
    let chosen = shaped::<ChosenEnforcement>(&fields, "enforcement")?;
    let command = Command::SetQuotaEnforcement(id, chosen.map(|chosen| chosen.0));
    let written = call.write(api, Object::Quota(id), command).await?;
    let committed = api.ledger.read();
    let quota = committed.state.quota(id).ok_or_else(|| none("quota"))?;
    let of_tenant = usage(&committed.state, &quota.key.tenant);
    Ok(Reply::ok(QuotaBody::of(quota, &of_tenant))?.tagged(written.generation))
}

fn number(text: &str) -> Result<QuotaId, &'static str> {
    page::number_in_path(text)
        .map(QuotaId)
        .ok_or("a quota's number is a whole number from 0 to 999999999999999999")
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
        Ok(Self {
            tenant: text("tenant")?,
            region: text("region")?,
            gpu_model: text("gpu_model")?,
            after: page::after(query)?.map(QuotaId),
            limit: page::limit(query)?,
        })
    }

    fn takes(&self, quota: &Quota) -> bool {
        let is = |wanted: &Option<String>, own: &str| wanted.as_deref().is_none_or(|it| it == own);
        is(&self.tenant, quota.key.tenant.as_str())
            && is(&self.region, quota.key.region.as_str())
            && is(&self.gpu_model, quota.key.gpu_model.as_str())
    }
}
