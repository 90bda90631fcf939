//! The list of quotas, grouped as the document's example groups them (D1.11 to D1.14).
//!
//! One item holds the quotas of a tenant that share source and model, and for source assign the region; dedicated
//! quotas stand in items of their own, where the model moves to the type. Pages are cut between tenants.

use std::collections::BTreeMap;

use gpuquota_core::State;
use gpuquota_core::id::TenantName;
use gpuquota_core::limit::Limit;
use gpuquota_core::quota::{Quota, QuotaSource, QuotaType};
use gpuquota_core::usage::{Usage, usage};
use serde::Serialize;
use utoipa::ToSchema;

use super::kept::KeptItems;
use super::wire::Filter;
use crate::auth::{Principal, Role};
use crate::rest::json::LARGEST_COUNT;
use crate::rest::names;
use crate::rest::status::{Kind, Problem};
use crate::rest::time;

/// `data` of the answer. `total` counts tenants.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GpuQuota::Page)]
pub(super) struct Page<'a> {
    /// Tenants that the filter leaves, on all pages.
    total: usize,
    page: usize,
    page_size: usize,
    items: Vec<Item<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GpuQuota::Item)]
struct Item<'a> {
    #[schema(value_type = names::TenantName)]
    tenant_name: &'a str,
    #[schema(value_type = names::QuotaSource)]
    quota_source: &'static str,
    /// Absent in the item of dedicated quotas, whose types have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = names::GpuModel, required = false)]
    gpu_model: Option<&'a str>,
    /// Only there where the source is `assign`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = names::Region, required = false)]
    region: Option<&'a str>,
    quota_types: Vec<Type<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GpuQuota::Type)]
struct Type<'a> {
    #[schema(value_type = names::QuotaType)]
    quota_type: &'static str,
    /// Only there where the type is `dedicated`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = names::GpuModel, required = false)]
    gpu_model: Option<&'a str>,
    quota_details: Vec<Detail<'a>>,
    /// Devices that are held or leased now; above `total_count` where more are than granted.
    used_count: u64,
    /// Sum of the counts.
    total_count: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GpuQuota::Detail)]
struct Detail<'a> {
    #[schema(value_type = names::Region)]
    region: &'a str,
    /// The caller's own number, where it gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = names::Count, required = false)]
    id: Option<u32>,
    #[schema(value_type = names::GpuModel)]
    gpu_model: &'a str,
    /// The nodes of a dedicated quota.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<names::NodeName>)]
    node_name: Vec<&'a str>,
    /// Devices; 2147483647 also where there is no limit.
    #[schema(value_type = names::Count)]
    count: u32,
    /// When the quota ends, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = names::Time, required = false)]
    expire_time: Option<String>,
}

/// One page of what the principal sees and the filter leaves.
pub(super) fn page<'a>(state: &'a State, principal: &Principal, filter: &Filter) -> Page<'a> {
    let tenants = state.tenants_with_quotas();
    let tenants: Vec<&TenantName> = tenants
        .filter(|name| principal.sees(name))
        .filter(|name| state.quotas_of(name).any(|quota| wanted(quota, filter)))
        .collect();
    let shown = tenants.iter().skip(before(filter)).take(filter.page_size);
    Page {
        total: tenants.len(),
        page: filter.page,
        page_size: filter.page_size,
        items: shown
            .flat_map(|tenant| items(state, tenant, filter))
            .collect(),
    }
}

/// The whole answer for a filter that leaves everything, as text.
pub(super) fn page_text(
    state: &State,
    principal: &Principal,
    filter: &Filter,
    kept: &KeptItems,
) -> Result<String, Problem> {
    let seen: Option<Vec<&TenantName>> = (principal.role != Role::Admin).then(|| {
        let tenants = state.tenants_with_quotas();
        tenants.filter(|name| principal.sees(name)).collect()
    });
    let (total, shown): (usize, Vec<&TenantName>) = match &seen {
        Some(seen) => {
            let shown = seen.iter().copied().skip(before(filter));
            (seen.len(), shown.take(filter.page_size).collect())
        }
        None => {
            let tenants = state.tenants_with_quotas();
            let total = tenants.len();
            let shown = tenants.skip(before(filter)).take(filter.page_size);
            (total, shown.collect())
        }
    };
    let (page, page_size) = (filter.page, filter.page_size);
    let items = kept.of(state, &shown, items_text)?;
    let head = format!(
        r#"{{"code":0,"data":{{"total":{total},"page":{page},"page_size":{page_size},"items":["#
    );
    let length: usize = items.iter().map(|item| item.len() + 1).sum();
    let mut text = String::with_capacity(head.len() + length + 3);
    text.push_str(&head);
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(item);
    }
    text.push_str("]}}");
    Ok(text)
}

/// A tenant's items as they stand in the list: `{…},{…}`.
fn items_text(state: &State, tenant: &TenantName) -> Result<String, Problem> {
    let items = items(state, tenant, &Filter::everything());
    let text = serde_json::to_string(&items).map_err(|error| {
        tracing::error!(error = %error, "items cannot be written as JSON");
        Problem::new(Kind::Internal, "the answer cannot be written")
    })?;
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    Ok(bare.unwrap_or_default().to_owned())
}

fn before(filter: &Filter) -> usize {
    filter
        .page
        .saturating_sub(1)
        .saturating_mul(filter.page_size)
}

fn wanted(quota: &Quota, filter: &Filter) -> bool {
    filter
        .source
        .is_none_or(|source| source == quota.key.source)
        && filter
            .quota_type
            .is_none_or(|quota_type| quota_type == quota.key.quota_type)
}

fn items<'a>(state: &'a State, tenant: &'a TenantName, filter: &Filter) -> Vec<Item<'a>> {
    let usage = usage(state, tenant);
    let mut items: Vec<Item<'a>> = Vec::new();
    // A tenant may have thousands of quotas, so items are found and not searched for.
    let mut places = BTreeMap::new();
    for quota in state.quotas_of(tenant).filter(|q| wanted(q, filter)) {
        let item = empty_item(tenant, quota);
        let place = *places
            .entry((item.quota_source, item.gpu_model, item.region))
            .or_insert(items.len());
        if place == items.len() {
            items.push(item);
        }
        if let Some(item) = items.get_mut(place) {
            add(item, empty_type(quota), quota, &usage);
        }
    }
    items
}

fn empty_item<'a>(tenant: &'a TenantName, quota: &'a Quota) -> Item<'a> {
    let dedicated = quota.key.quota_type == QuotaType::Dedicated;
    Item {
        tenant_name: tenant.as_str(),
        quota_source: quota.key.source.as_str(),
        gpu_model: (!dedicated).then(|| quota.key.gpu_model.as_str()),
        region: match quota.key.source {
            // A purchase may span regions.
            QuotaSource::Purchase => None,
            QuotaSource::Assign => Some(quota.key.region.as_str()),
        },
        quota_types: Vec::new(),
    }
}

fn empty_type(quota: &Quota) -> Type<'_> {
    let dedicated = quota.key.quota_type == QuotaType::Dedicated;
    Type {
        quota_type: quota.key.quota_type.as_str(),
        gpu_model: dedicated.then(|| quota.key.gpu_model.as_str()),
        quota_details: Vec::new(),
        used_count: 0,
        total_count: 0,
    }
}

fn add<'a>(item: &mut Item<'a>, of_type: Type<'a>, quota: &'a Quota, usage: &Usage) {
    let known = item.quota_types.iter().position(|known| {
        (known.quota_type, known.gpu_model) == (of_type.quota_type, of_type.gpu_model)
    });
    let at = known.unwrap_or_else(|| {
        item.quota_types.push(of_type);
        item.quota_types.len() - 1
    });
    let Some(of_type) = item.quota_types.get_mut(at) else {
        return;
    };
    let count = match quota.limit {
        // The dialect has no word for it; it is shown as the largest count.
        Limit::Unlimited => LARGEST_COUNT,
        Limit::Finite(count) => count,
    };
    of_type.used_count += usage.of(quota.id);
    of_type.total_count += u64::from(count);
    of_type.quota_details.push(Detail {
        region: quota.key.region.as_str(),
        id: quota.reference.map(|reference| reference.0),
        gpu_model: quota.key.gpu_model.as_str(),
        node_name: quota.nodes.iter().map(|node| node.as_str()).collect(),
        count,
        expire_time: quota.expires_at.map(time::format),
    });
}
