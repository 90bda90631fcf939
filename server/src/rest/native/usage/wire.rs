//! Usage as a body: rows with exact milliseconds, and whole seconds that add up.

use std::collections::BTreeMap;

use gpuquota_core::id::{Seq, Timestamp};
use gpuquota_core::meter::{Hour, UsageClass};
use serde::Serialize;
use utoipa::ToSchema;

use super::ask::Ask;
use super::sums::{Found, Sums};
use crate::rest::names;
use crate::rest::time;
use crate::store::UsageBy;

/// One page of usage.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Usage)]
pub(in crate::rest) struct UsageBody {
    #[schema(value_type = names::Time)]
    pub(super) from: String,
    #[schema(value_type = names::Time)]
    pub(super) to: String,
    /// Something of it is not over or not closed yet: rows may still grow.
    pub(super) open: bool,
    pub(super) usage: Vec<Row>,
    pub(super) totals: Totals,
    /// Rows of all pages.
    pub(super) rows: usize,
    /// Where the next page begins; null on the last.
    #[schema(required)]
    pub(super) next_offset: Option<usize>,
    /// The journal's row up to which this holds.
    #[schema(value_type = u64)]
    pub(super) seq: Seq,
}

/// Time of one period. What is not told apart is null, and so is the tenant of what is nobody's.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = UsageRow)]
pub(super) struct Row {
    #[schema(value_type = names::Time)]
    pub(super) from: String,
    #[schema(value_type = names::Time)]
    pub(super) to: String,
    /// The period is not closed yet.
    pub(super) open: bool,
    #[schema(value_type = Option<names::TenantName>, required)]
    pub(super) tenant: Option<String>,
    #[schema(value_type = Option<names::Region>, required)]
    pub(super) region: Option<String>,
    #[schema(value_type = Option<names::GpuModel>, required)]
    pub(super) gpu_model: Option<String>,
    #[schema(value_type = Option<names::UsageClass>, required)]
    pub(super) class: Option<String>,
    #[schema(value_type = Option<names::NodeName>, required)]
    pub(super) node: Option<String>,
    #[schema(value_type = Option<names::DeviceKey>, required)]
    pub(super) device: Option<String>,
    /// Device time, exactly.
    pub(super) milliseconds: u64,
    /// The same in whole seconds, which add up within the period.
    pub(super) seconds: u64,
}

/// Milliseconds of all pages by class; null is what the request leaves out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageTotals)]
pub(super) struct Totals {
    #[schema(required)]
    busy: Option<u64>,
    #[schema(required)]
    leased_idle: Option<u64>,
    #[schema(required)]
    free: Option<u64>,
    #[schema(required)]
    squatter: Option<u64>,
    #[schema(required)]
    unknown: Option<u64>,
    /// For how long devices existed: the sum of the five, counted apart from them.
    #[schema(required)]
    pub(super) wall: Option<u64>,
}

impl UsageBody {
    /// The page that was asked for.
    pub(super) fn of(ask: &Ask, found: &Found, closed: Hour, seq: Seq) -> Self {
        let totals = totals(ask, found);
        let told = told(ask, &found.sums);
        let seconds = seconds(&told);
        let end = ask.offset.saturating_add(ask.limit);
        let page = told.iter().zip(&seconds).skip(ask.offset).take(ask.limit);
        let usage = page.map(|(((period, of), ms), seconds)| {
            let mut of = ask.told.iter().zip(of).collect::<BTreeMap<_, _>>();
            let mut value = |by| of.remove(&by).filter(|text| !text.is_empty()).cloned();
            let end = Hour(period.0 + ask.query.period);
            Row {
                from: text(period.start()),
                to: text(end.start()),
                open: end > closed,
                tenant: value(UsageBy::Tenant),
                region: value(UsageBy::Region),
                gpu_model: value(UsageBy::GpuModel),
                class: value(UsageBy::Class),
                node: value(UsageBy::Node),
                device: value(UsageBy::Device),
                milliseconds: *ms,
                seconds: *seconds,
            }
        });
        Self {
            from: text(ask.query.from.start()),
            to: text(ask.query.to.start()),
            open: ask.query.to > closed,
            usage: usage.collect(),
            totals,
            rows: told.len(),
            next_offset: Some(end).filter(|end| *end < told.len()),
            seq,
        }
    }
}

fn text(at: Timestamp) -> String {
    time::format(at)
}

fn totals(ask: &Ask, found: &Found) -> Totals {
    let at = ask.query.by.iter().position(|by| *by == UsageBy::Class);
    let asked = ask.query.only.get(&UsageBy::Class);
    let of = |class: UsageClass| {
        let name = class.as_str();
        asked.filter(|asked| asked.contains(name))?;
        let rows = found.sums.iter();
        let rows =
            rows.filter(|((_, of), _)| at.and_then(|at| of.get(at)).is_some_and(|it| it == name));
        Some(rows.map(|(_, ms)| ms).sum())
    };
    Totals {
        busy: of(UsageClass::Busy),
        leased_idle: of(UsageClass::LeasedIdle),
        free: of(UsageClass::Free),
        squatter: of(UsageClass::Squatter),
        unknown: of(UsageClass::Unknown),
        wall: found.wall,
    }
}

// Classes are added up where they are not told apart.
fn told(ask: &Ask, sums: &Sums) -> Vec<((Hour, Vec<String>), u64)> {
    let mut told = Sums::new();
    for ((period, of), ms) in sums {
        let of = ask.query.by.iter().zip(of);
        let of = of.filter(|(by, _)| ask.told.contains(by));
        let of = of.map(|(_, text)| text.clone()).collect();
        *told.entry((*period, of)).or_default() += ms;
    }
    told.into_iter().collect()
}

// Whole seconds: those of a period add up to its milliseconds in whole seconds. What rounding down leaves goes to the
// largest remainders, one second each, and among equals to the first.
fn seconds<K>(rows: &[((Hour, K), u64)]) -> Vec<u64> {
    let mut seconds: Vec<u64> = rows.iter().map(|(_, ms)| ms / 1000).collect();
    let mut left: BTreeMap<Hour, u64> = BTreeMap::new();
    for ((period, _), ms) in rows {
        *left.entry(*period).or_default() += ms % 1000;
    }
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|at| rows.get(*at).map(|(_, ms)| std::cmp::Reverse(ms % 1000)));
    for at in order {
        let period = rows
            .get(at)
            .and_then(|((period, _), _)| left.get_mut(period));
        if let (Some(left), Some(own)) = (period, seconds.get_mut(at))
            && *left >= 1000
        {
            *left -= 1000;
            *own += 1;
        }
    }
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whole_seconds_add_up_within_each_period(
            rows in prop::collection::vec((0..3_i64, 0..5_000_u64), 0..12),
        ) {
            let rows: Vec<_> = rows.into_iter().zip(0..)
                .map(|((hour, ms), at)| ((Hour(hour), at), ms))
                .collect();
            let seconds = seconds(&rows);
            for hour in (0..3).map(Hour) {
                let of = || rows.iter().zip(&seconds).filter(|(((h, _), _), _)| *h == hour);
                let ms: u64 = of().map(|((_, ms), _)| ms).sum();
                prop_assert_eq!(of().map(|(_, s)| s).sum::<u64>(), ms / 1000);
                for ((_, ms), s) in of() {
                    prop_assert!(*s == ms / 1000 || *s == ms / 1000 + 1);
                }
            }
        }
    }
}
