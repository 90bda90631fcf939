//! One ledger, two dialects: what the workspace dialect says of GPUs is the sum of what the GPU quota dialect lists.

use std::collections::BTreeMap;

use gpuquota_core::Command;
use gpuquota_core::command::{QuotaName, SetQuota};
use gpuquota_core::limit::Limit;
use gpuquota_core::quota::QuotaSource;
use gpuquota_server::auth::Role;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use crate::declared::{declared, facts, gpu, on, quota, region, tenant, until};
use crate::rest::{Rest, token};
use crate::running::{HOUR, Running, START, SetClock};

const LARGEST: u64 = 2_147_483_647;
// Regions and their sites; the first two are the central site's.
const REGIONS: [(&str, &str); 4] = [("US", ""), ("EU", ""), ("edge", "1"), ("rim", "2")];
const MODELS: [&str; 2] = ["nvidia.com/gpu", "x"];

fn any_quota() -> impl Strategy<Value = SetQuota> {
    let limit = prop_oneof![
        8 => (1..4_u32).prop_map(Limit::Finite),
        1 => Just(Limit::Finite(2_000_000_000)),
        1 => Just(Limit::Unlimited),
    ];
    let end =
        prop_oneof![3 => Just(None), 1 => Just(Some(START - HOUR)), 1 => Just(Some(START + HOUR))];
    let source = select(vec![QuotaSource::Purchase, QuotaSource::Assign]);
    (
        0..REGIONS.len(),
        select(MODELS.to_vec()),
        limit,
        source,
        end,
        0..8_usize,
    )
        .prop_map(|(region, model, limit, source, end, node)| {
            let set = quota("t", REGIONS[region].0, model, limit);
            let set = SetQuota {
                name: QuotaName { source, ..set.name },
                ..set
            };
            let set = end.map_or(set.clone(), |end| until(set, end));
            // Some are dedicated.
            if node < REGIONS.len() {
                on(set, &[&format!("n{node}")])
            } else {
                set
            }
        })
}

// GPUs of the node in each region: which model, and whether the tenant holds it.
fn any_devices() -> impl Strategy<Value = Vec<Vec<(&'static str, bool)>>> {
    let device = (select(MODELS.to_vec()), prop::bool::weighted(0.7));
    prop::collection::vec(prop::collection::vec(device, 0..5), REGIONS.len())
}

// What the other dialect lists: granted now by site, and used in all.
fn listed(body: &Value) -> (BTreeMap<&'static str, u64>, u64) {
    let (mut granted, mut used) = (BTreeMap::new(), 0);
    let all = |value: &Value| value.as_array().unwrap().clone();
    let items = all(&body["data"]["items"]);
    for of_type in items.iter().flat_map(|item| all(&item["quota_types"])) {
        used += of_type["used_count"].as_u64().unwrap();
        for detail in all(&of_type["quota_details"]) {
            // 1800000000 is 2027-01-15T08:00:00Z.
            let end = detail["expire_time"].as_str();
            if end.is_none_or(|end| end > "2027-01-15T08:00:00Z") {
                let region = detail["region"].as_str().unwrap();
                let site = REGIONS.iter().find(|(name, _)| *name == region).unwrap().1;
                *granted.entry(site).or_insert(0) += detail["count"].as_u64().unwrap();
            }
        }
    }
    (granted, used)
}

async fn compare(quotas: Vec<SetQuota>, devices: Vec<Vec<(&'static str, bool)>>) {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    running.told([tenant("t", &["p"])]).await;
    for (at, (name, site)) in REGIONS.into_iter().enumerate() {
        running
            .told([
                region(name, Some(site).filter(|site| !site.is_empty())),
                declared(&format!("n{at}"), name, &[], None),
            ])
            .await;
    }
    running
        .told(quotas.into_iter().map(Command::SetQuota))
        .await;
    for (at, devices) in devices.into_iter().enumerate() {
        let devices = devices
            .into_iter()
            .enumerate()
            .map(|(number, (model, held))| {
                let tenants: &[&str] = if held { &["t"] } else { &[] };
                gpu(&format!("GPU-{at}-{number}"), model, tenants)
            });
        running
            .reported(&format!("n{at}"), facts(None, None), devices.collect())
            .await;
    }
    let rest = Rest::on(&running);
    let bearer = format!("Bearer {}", token(Role::Admin, &[], &[]));
    let list = rest
        .told(
            "GET",
            "/api/v1/quota/user-quotas",
            &[("authorization", &bearer)],
        )
        .await
        .json();
    let (granted, used) = listed(&list);
    let body = rest.admin("/v2/p/quotas").await.json();
    let mut shown = vec![(String::new(), body["quotas"]["resources"].clone())];
    for site in body["site_quotas"].as_array().unwrap() {
        let id = site["site_id"].as_str().unwrap().to_owned();
        shown.push((id, site["resources"].clone()));
    }
    let mut shown_used = 0;
    for (site, resources) in &shown {
        let rows = resources.as_array().unwrap();
        let row = rows
            .iter()
            .find(|row| row["type"] == "gpu_instances")
            .unwrap();
        let sum = granted
            .get(site.as_str())
            .copied()
            .unwrap_or(0)
            .min(LARGEST);
        assert_eq!(row["quota"], sum, "site {site:?}: {list}");
        shown_used += row["used"].as_u64().unwrap();
    }
    assert_eq!(shown_used, used, "{list}");
    for site in granted.keys() {
        assert!(
            shown.iter().any(|(id, _)| id == site),
            "no site {site:?}: {body}"
        );
    }
    running.end().await;
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]
    #[test]
    fn gpu_instances_are_the_sums_of_the_listing(
        quotas in prop::collection::vec(any_quota(), 0..10),
        devices in any_devices(),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(compare(quotas, devices));
    }
}
