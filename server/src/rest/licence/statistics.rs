//! The statistics of all licence quotas that a caller sees (dialects D4.14).

use std::collections::BTreeSet;
use std::sync::Arc;

use gpuquota_core::id::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::rate::{Rate, Threshold};
use super::row::Row;
use super::table::{Holder, Table};
use crate::auth::{Principal, Role};
use crate::rest::names;

const MOST_HIGH: usize = 50;

/// Everything that is counted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Licence::Statistics)]
pub(in crate::rest) struct Statistics<'a> {
    total_quotas: usize,
    /// Active and not expired.
    active_quotas: usize,
    expired_quotas: usize,
    usage_overview: Overview,
    by_tenant: Vec<ByTenant<'a>>,
    high_usage_quotas: Vec<High<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Licence::Overview)]
struct Overview {
    total_allocated: u64,
    total_used: u64,
    /// Percent, two decimals.
    #[schema(minimum = 0)]
    overall_usage_rate: f64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Licence::ByTenant)]
struct ByTenant<'a> {
    #[schema(value_type = names::Number)]
    tenant_id: u32,
    tenant_name: &'a str,
    total_quota: u64,
    total_used: u64,
    /// Percent, two decimals.
    #[schema(minimum = 0)]
    usage_rate: f64,
    products_count: usize,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Licence::HighUsage)]
struct High<'a> {
    #[schema(value_type = names::LicenceQuotaId)]
    id: u64,
    tenant_name: &'a str,
    product_name: &'a str,
    /// Percent, two decimals.
    #[schema(minimum = 0)]
    usage_rate: f64,
    remaining_licenses: u64,
}

/// Statistics as JSON, and the moment at which the next of their rows expires.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) json: String,
    until: Option<Timestamp>,
}

/// The statistics of what the principal sees at `now`.
pub(super) fn statistics(table: &Table, principal: &Principal, now: Timestamp) -> Arc<Written> {
    let of_all = principal.role == Role::Admin;
    let known = || table.statistics.load_full();
    let holds = |written: &Arc<Written>| written.until.is_none_or(|until| now < until);
    if let Some(written) = known().filter(|written| of_all && holds(written)) {
        return written;
    }
    let holders: Vec<&Holder> = table.seen_by(principal).collect();
    let rows = || holders.iter().flat_map(|holder| table.rows_of(holder));
    let counted = Statistics {
        total_quotas: rows().count(),
        active_quotas: rows()
            .filter(|row| row.is_active && !expired(row, now))
            .count(),
        expired_quotas: rows().filter(|row| expired(row, now)).count(),
        usage_overview: overview(sum(rows())),
        by_tenant: holders
            .iter()
            .map(|holder| by_tenant(table, holder))
            .collect(),
        high_usage_quotas: high(rows()),
    };
    let coming = rows().filter(|row| !expired(row, now));
    let written = Arc::new(Written {
        // Numbers and texts can always be written.
        json: serde_json::to_string(&counted).unwrap_or_default(),
        until: coming.filter_map(|row| row.expires_at).min(),
    });
    if of_all {
        table.statistics.store(Some(written.clone()));
    }
    written
}

fn expired(row: &Row, now: Timestamp) -> bool {
    row.expired || row.expires_at.is_some_and(|end| end <= now)
}

fn sum<'a>(rows: impl Iterator<Item = &'a Row>) -> Rate {
    rows.fold(Rate::default(), |sum, row| Rate {
        used: sum.used.saturating_add(row.rate.used),
        max: sum.max.saturating_add(row.rate.max),
    })
}

fn overview(sum: Rate) -> Overview {
    Overview {
        total_allocated: sum.max,
        total_used: sum.used,
        overall_usage_rate: sum.percent(),
    }
}

fn by_tenant<'a>(table: &'a Table, holder: &'a Holder) -> ByTenant<'a> {
    let rows = || table.rows_of(holder);
    let sum = sum(rows());
    let products: BTreeSet<u32> = rows().map(|row| row.product.id).collect();
    ByTenant {
        tenant_id: holder.party.id,
        tenant_name: &holder.party.name,
        total_quota: sum.max,
        total_used: sum.used,
        usage_rate: sum.percent(),
        products_count: products.len(),
    }
}

fn high<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<High<'a>> {
    let mut high: Vec<&Row> = rows
        .filter(|row| row.rate.at_least(Threshold::HIGH))
        .collect();
    high.sort_unstable_by(|a, b| b.rate.compare(a.rate).then(a.id.cmp(&b.id)));
    high.truncate(MOST_HIGH);
    let shown = high.into_iter().map(|row| High {
        id: row.id.0,
        tenant_name: &row.tenant.name,
        product_name: &row.product.name,
        usage_rate: row.rate.percent(),
        remaining_licenses: row.rate.remaining(),
    });
    shown.collect()
}
