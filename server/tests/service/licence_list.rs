//! The list of licence quotas against a plain recomputation: random rows, every filter, order and page, every caller.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use gpuquota_core::Command;
use gpuquota_core::command::ChangeLicenceQuota;
use gpuquota_core::id::LicenceQuotaId;
use gpuquota_core::licence::LicenceQuota;
use gpuquota_core::licence_usage::licence_usage;
use gpuquota_server::auth::Role;
use gpuquota_server::config::Dialects;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::directory::{licence, product, seats, tenant};
use crate::licence::{CREATED, Portal, QUOTAS};
use crate::rest::token;

const DAY: i64 = 86_400_000;
// Of the day on which the rows are made, 2024-01-15.
const MIDNIGHT: i64 = CREATED - 37_800_000;
const TENANTS: u32 = 6;
const COLUMNS: [&str; 7] = [
    "id",
    "max_licenses",
    "used_licenses",
    "usage_rate",
    "expires_at",
    "created_at",
    "updated_at",
];

fn named(number: u32) -> String {
    format!("t{number}")
}

// Rows with many ties, some of them over their quota.
async fn filled() -> Portal {
    let portal = Portal::open(Dialects::default()).await;
    let mut random = StdRng::seed_from_u64(3);
    for number in 1..=3 {
        let name = format!("p{number}");
        portal
            .running
            .has([product(number + 20, &name, &name)])
            .await;
    }
    for number in 10..10 + TENANTS {
        portal.running.has([tenant(&named(number), number)]).await;
    }
    for at in 0..90 {
        portal.running.clock.set(CREATED + at / 4 * 1000);
        let end = random.random_range(-3..9_i64);
        let end = (end < 7).then(|| MIDNIGHT + end * DAY / 2);
        let (holder, product) = (
            random.random_range(10..10 + TENANTS),
            random.random_range(21..24),
        );
        let max = [0, 1, 2, 3, 3, 6, 40][random.random_range(0..7)];
        portal
            .running
            .has([licence(holder, product, max, end)])
            .await;
    }
    for holder in 10..10 + TENANTS {
        for product in 21..24 {
            // Until the quota is full.
            for command in seats(&named(holder), product, random.random_range(0..9)) {
                let origin = gpuquota_server::service::Origin::server();
                let _ = portal.running.ledger.submit(command, origin).await;
            }
        }
    }
    for at in 0..20 {
        portal.running.clock.set(CREATED + 60_000 + at / 4 * 1000);
        let change = ChangeLicenceQuota {
            quota: LicenceQuotaId(random.random_range(1..91)),
            max: None,
            expires_at: None,
            is_active: Some(false),
            expected: None,
        };
        portal
            .running
            .has([Command::ChangeLicenceQuota(change)])
            .await;
    }
    portal
}

struct Plain {
    quota: LicenceQuota,
    tenant: u32,
    used: u64,
}

fn rows(portal: &Portal) -> Vec<Plain> {
    let committed = portal.running.ledger.read();
    let state = &committed.state;
    let used = |quota: &LicenceQuota| licence_usage(state, &quota.terms.tenant)[&quota.terms.quota];
    let rows = state.licence_quotas().map(|quota| Plain {
        quota: quota.clone(),
        tenant: state.tenant(&quota.terms.tenant).unwrap().profile.number.0,
        used: used(quota),
    });
    rows.collect()
}

#[derive(Clone, Debug)]
struct Asked {
    tenants: Option<Vec<u32>>,
    tenant: Option<u32>,
    product: Option<u32>,
    is_active: Option<(&'static str, bool)>,
    before: Option<i64>,
    rate: Option<(u64, u32)>,
    ordering: Option<(usize, bool)>,
    page: Option<Index>,
    page_size: Option<usize>,
}

fn asked() -> impl Strategy<Value = Asked> {
    // Digits and decimals: rates that rows have to the letter, and some beside them.
    let rates = vec![
        (0, 1),
        (1, 3),
        (5, 1),
        (50, 2),
        (333, 3),
        (667, 3),
        (10, 1),
        (1001, 3),
        (20, 1),
    ];
    let words = [
        ("true", true),
        ("FALSE", false),
        ("1", true),
        ("0", false),
        ("False", false),
    ];
    (
        prop::option::of(prop::collection::vec(9..17_u32, 0..4)),
        prop::option::weighted(0.2, 9..17_u32),
        prop::option::weighted(0.2, 20..25_u32),
        prop::option::weighted(0.3, select(words.to_vec())),
        prop::option::weighted(0.3, -3..6_i64),
        prop::option::weighted(0.4, select(rates)),
        prop::option::weighted(0.8, (0..7_usize, any::<bool>())),
        prop::option::of(any::<Index>()),
        prop::option::of(1..30_usize),
    )
        .prop_map(
            |(tenants, tenant, product, is_active, before, rate, ordering, page, page_size)| {
                Asked {
                    tenants,
                    tenant,
                    product,
                    is_active,
                    before,
                    rate,
                    ordering,
                    page,
                    page_size,
                }
            },
        )
}

impl Asked {
    fn takes(&self, row: &Plain) -> bool {
        let terms = &row.quota.terms;
        let max = u128::from(terms.max);
        let reaches = |(digits, decimals): (u64, u32)| match max {
            0 => digits == 0,
            max => u128::from(row.used) * 10_u128.pow(decimals) >= u128::from(digits) * max,
        };
        self.tenants
            .as_ref()
            .is_none_or(|own| own.contains(&row.tenant))
            && self.tenant.is_none_or(|tenant| tenant == row.tenant)
            && self
                .product
                .is_none_or(|product| product == terms.product.0)
            && self
                .is_active
                .is_none_or(|(_, active)| active == terms.is_active)
            && self.before.is_none_or(|day| {
                let start = MIDNIGHT + day * DAY;
                terms.expires_at.is_some_and(|end| end.0 < start)
            })
            && self.rate.is_none_or(reaches)
    }

    fn compare(&self, a: &Plain, b: &Plain) -> Ordering {
        let end = |row: &Plain| row.quota.terms.expires_at.map_or(i64::MAX, |end| end.0);
        let (left, right) = (&a.quota, &b.quota);
        let (by, descending) = self.ordering.unwrap_or((0, false));
        let ordering = match COLUMNS[by] {
            "id" => left.terms.quota.cmp(&right.terms.quota),
            "max_licenses" => left.terms.max.cmp(&right.terms.max),
            "used_licenses" => a.used.cmp(&b.used),
            // Maxima up to 40: a difference of rates is at least 1/1600.
            "usage_rate" => rate(a).total_cmp(&rate(b)),
            "expires_at" => end(a).cmp(&end(b)),
            "created_at" => left.created_at.cmp(&right.created_at),
            _ => left.updated_at.cmp(&right.updated_at),
        };
        let ordering = if descending {
            ordering.reverse()
        } else {
            ordering
        };
        ordering.then(left.terms.quota.cmp(&right.terms.quota))
    }

    // Parameters in an order of their own; the page among them, if it is there at all.
    fn query(&self, page: Option<usize>) -> String {
        let mut parts = Vec::new();
        if let Some((by, descending)) = self.ordering {
            parts.push(format!(
                "ordering={}{}",
                if descending { "-" } else { "" },
                COLUMNS[by]
            ));
        }
        parts.extend(self.tenant.map(|tenant| format!("tenant={tenant}")));
        parts.extend(page.map(|page| format!("page={page}")));
        parts.extend(
            self.product
                .map(|product| format!("software_product={product}")),
        );
        parts.extend(self.is_active.map(|(word, _)| format!("is_active={word}")));
        parts.extend(
            self.before
                .map(|day| format!("expires_before=2024-01-{:02}", 15 + day)),
        );
        parts.extend(self.rate.map(|(digits, decimals)| {
            let scale = 10_u64.pow(decimals);
            let width = usize::try_from(decimals).unwrap();
            format!(
                "usage_rate_gte={}.{:0width$}",
                digits / scale,
                digits % scale
            )
        }));
        parts.extend(self.page_size.map(|size| format!("page_size={size}")));
        parts.join("&")
    }

    fn token(&self) -> String {
        match &self.tenants {
            None => token(Role::Admin, &[], &[]),
            Some(own) => {
                let own: Vec<String> = own.iter().map(|number| named(*number)).collect();
                let own: Vec<&str> = own.iter().map(String::as_str).collect();
                token(Role::TenantAdmin, &own, &[])
            }
        }
    }
}

fn rate(row: &Plain) -> f64 {
    match row.quota.terms.max {
        0 => 0.0,
        max => row.used as f64 / f64::from(max),
    }
}

fn link(query: &str, page: usize) -> String {
    let replaced: Vec<String> = query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| match part.starts_with("page=") {
            true => format!("page={page}"),
            false => part.to_owned(),
        })
        .collect();
    let mut query = replaced.join("&");
    if !replaced.iter().any(|part| part.starts_with("page=")) {
        let and = if query.is_empty() { "" } else { "&" };
        query = format!("{query}{and}page={page}");
    }
    format!("http://localhost:8080{QUOTAS}?{query}")
}

#[test]
fn every_page_is_the_plain_recomputation() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let portal = runtime.block_on(filled());
    let all = rows(&portal);
    let over = all
        .iter()
        .filter(|row| row.used > u64::from(row.quota.terms.max));
    assert!(over.count() > 0, "some rows are over their quota");
    let texts: BTreeMap<u64, Value> = all
        .iter()
        .map(|row| {
            let id = row.quota.terms.quota.0;
            let (_, text) = runtime.block_on(portal.get(&format!("{QUOTAS}{id}/")));
            let shown: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(shown["data"]["used_licenses"], row.used);
            (id, shown["data"].clone())
        })
        .collect();
    let mut runner = TestRunner::new(Config::with_cases(400));
    let checked = runner.run(&asked(), |asked| {
        let mut wanted: Vec<&Plain> = all.iter().filter(|row| asked.takes(row)).collect();
        wanted.sort_by(|a, b| asked.compare(a, b));
        let size = asked.page_size.unwrap_or(50);
        let last = wanted.len().div_ceil(size).max(1);
        // One more than there are, too.
        let page = asked.page.map(|index| index.index(last + 1) + 1);
        let query = asked.query(page);
        let target = format!("{QUOTAS}?{query}");
        let (status, text) = runtime.block_on(portal.ask("GET", &target, &asked.token(), ""));
        let page = page.unwrap_or(1);
        if page > last {
            prop_assert_eq!(status, 404, "{}", text);
            return Ok(());
        }
        prop_assert_eq!(status, 200, "{}", text);
        let shown = wanted.iter().skip((page - 1) * size).take(size);
        let results: Vec<&Value> = shown.map(|row| &texts[&row.quota.terms.quota.0]).collect();
        let expected = json!({
            "success": true,
            "data": {
                "count": wanted.len(),
                "next": (page < last).then(|| link(&query, page + 1)),
                "previous": (page > 1).then(|| link(&query, page - 1)),
                "results": results,
            },
        });
        prop_assert_eq!(text, expected.to_string(), "{}", target);
        Ok(())
    });
    runtime.block_on(portal.running.end());
    checked.unwrap();
}
