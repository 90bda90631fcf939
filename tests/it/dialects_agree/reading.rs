//! Every number, read wherever it is shown.

use std::collections::BTreeMap;
use std::fmt::Debug;

use gpuquota_tests::dialect::{Dialect, LICENCES};
use gpuquota_tests::scrape::Scrape;
use gpuquota_tests::server::Server;
use serde_json::Value;

use super::leases::Charge;
use super::model::{GROUPS, HOSTS, REGIONS, SITES, TENANTS, World, site_of};
use super::pools;

const UNLIMITED: u64 = 2_147_483_647;
const TYPES: [&str; 4] = ["flexible", "dedicated", "mig", "vgpu"];

#[derive(Default)]
pub(super) struct Found(Vec<String>);

impl Found {
    pub(super) fn compare<T: PartialEq + Debug>(&mut self, what: &str, shown: T, expected: T) {
        if shown != expected {
            self.0
                .push(format!("{what}: shown {shown:?}, expected {expected:?}"));
        }
    }
}

/// What is not the same as elsewhere.
pub(super) async fn differences(
    server: &Server,
    tokens: &[String; 3],
    world: &World,
) -> Vec<String> {
    let mut found = Found::default();
    let admin = server.admin();
    let listed = admin.list("?page_size=100").await.json();
    let scrape = server.scrape().await;
    quotas(&mut found, world, &listed, &scrape);
    for ((tenant, number), token) in TENANTS.into_iter().zip(tokens) {
        let own = async |dialect: Dialect, path: &str| {
            let answer = dialect.caller(server, token).get(path).await;
            let by_admin = dialect.caller(server, server.admin_token()).get(path).await;
            assert_eq!(answer.text, by_admin.text, "its own and its admin's {path}");
            answer.json()
        };
        let project = format!("p-{tenant}");
        let desk = own(Dialect::Workspace, &format!("/v2/{project}/quotas")).await;
        workspace(&mut found, world, tenant, &desk, &listed);
        let hosts = own(
            Dialect::QuotaSet,
            &format!("/v1.0/{project}/quota-sets/{tenant}"),
        )
        .await;
        quota_set(&mut found, world, tenant, &desk, &hosts);
        for group in GROUPS {
            let path = format!(
                "/ai/openapi/v2/instance-service/resources?resourceGroup={group}&acceleratorType=gpu"
            );
            let answer = Dialect::Instance
                .caller(server, token)
                .get(&path)
                .await
                .json();
            pools::instance(&mut found, world, tenant, group, &answer);
        }
        let seats = admin
            .get(&format!("/api/v1/seats?tenant={tenant}"))
            .await
            .json();
        let checked_out = world.seats.values().filter(|seat| seat.0 == tenant).count();
        found.compare(
            &format!("seats of {tenant}"),
            seats["seats"].as_array().unwrap().len(),
            checked_out,
        );
        let rows = own(
            Dialect::Licence,
            &format!("{LICENCES}?tenant={number}&page_size=200"),
        )
        .await;
        pools::licences(&mut found, world, tenant, &rows, &scrape);
        let counters = own(
            Dialect::Native,
            &format!("/api/v1/projects/{project}/resources"),
        )
        .await;
        let shown = counters["resources"].as_array().unwrap().len();
        let of_tenant = world.counters.keys().filter(|key| key.0 == tenant);
        found.compare(&format!("counters of {tenant}"), shown, of_tenant.count());
    }
    let all = admin.get(&format!("{LICENCES}?page_size=200")).await.json();
    let sums = admin
        .get(&format!("{LICENCES}usage_statistics/"))
        .await
        .json();
    pools::statistics(&mut found, world, &all, &sums);
    pools::nodes(&mut found, world, &admin.get("/api/v1/nodes").await.json());
    found.0
}

pub(super) fn sum(values: impl Iterator<Item = u64>) -> u64 {
    values.sum()
}

// Metrics hold whole numbers; a sum of none is -0.
pub(super) fn whole(value: f64) -> u64 {
    format!("{}", value.abs()).parse().unwrap()
}

fn quotas(found: &mut Found, world: &World, listed: &Value, scrape: &Scrape) {
    let (charged, charges) = (world.charged(), world.charges());
    let items = listed["data"]["items"].as_array().unwrap();
    for (tenant, _) in TENANTS {
        let of_tenant = items.iter().filter(|item| item["tenant_name"] == tenant);
        let types: Vec<&Value> = of_tenant
            .flat_map(|item| item["quota_types"].as_array().unwrap())
            .collect();
        for kind in TYPES {
            let rows = || types.iter().filter(|row| row["quota_type"] == kind);
            let used = charged
                .iter()
                .filter(|(t, k, _)| *t == tenant && *k == kind)
                .count() as u64;
            let total = world
                .quotas
                .iter()
                .filter(|(key, _)| key.0 == tenant && key.3 == kind);
            let total = sum(total.map(|(_, quota)| quota.num));
            let what = format!("000 {kind} of {tenant}");
            found.compare(
                &format!("{what}, used"),
                sum(rows().map(|row| row["used_count"].as_u64().unwrap())),
                used,
            );
            found.compare(
                &format!("{what}, total"),
                sum(rows().map(|row| row["total_count"].as_u64().unwrap())),
                total,
            );
            let details = rows().flat_map(|row| row["quota_details"].as_array().unwrap());
            found.compare(
                &format!("{what}, details"),
                sum(details.map(|row| row["count"].as_u64().unwrap())),
                total,
            );
            let mut nodes: Vec<String> = rows()
                .flat_map(|row| row["quota_details"].as_array().unwrap())
                .flat_map(|row| row["node_name"].as_array().into_iter().flatten())
                .map(|node| node.as_str().unwrap().to_owned())
                .collect();
            nodes.sort();
            let of_kind = world
                .quotas
                .iter()
                .filter(|(key, _)| key.0 == tenant && key.3 == kind);
            let mut expected: Vec<String> = of_kind
                .filter_map(|(_, quota)| quota.node)
                .map(str::to_owned)
                .collect();
            expected.sort();
            found.compare(&format!("{what}, nodes"), nodes, expected);
            for (region, _) in REGIONS {
                let labels = [("tenant", tenant), ("type", kind), ("region", region)];
                let used = charged
                    .iter()
                    .filter(|row| **row == (tenant, kind, region))
                    .count() as u64;
                let here = world
                    .quotas
                    .iter()
                    .filter(|(key, _)| (key.0, key.3, key.1) == (tenant, kind, region));
                let limit = sum(here.map(|(_, quota)| quota.num));
                let metric = |name| whole(scrape.sum(name, &labels));
                found.compare(
                    &format!("metric used {labels:?}"),
                    metric("gpuquota_quota_used"),
                    used,
                );
                let of = |wanted: fn(&Charge) -> bool| {
                    let here = charges.iter().filter(|it| {
                        (it.tenant, it.kind, it.region) == (tenant, kind, region) && wanted(it)
                    });
                    here.count() as u64
                };
                found.compare(
                    &format!("metric observed {labels:?}"),
                    metric("gpuquota_quota_observed"),
                    of(|it| it.observed),
                );
                if !world.open(tenant) {
                    found.compare(
                        &format!("metric leased {labels:?}"),
                        metric("gpuquota_quota_leased"),
                        of(|it| it.leased),
                    );
                }
                found.compare(
                    &format!("metric limit {labels:?}"),
                    metric("gpuquota_quota_limit"),
                    limit,
                );
            }
        }
    }
}

// Rows of one place by their types.
fn rows(place: &Value) -> BTreeMap<String, (u64, u64)> {
    let rows = place["resources"].as_array().unwrap().iter();
    let row = |row: &Value| {
        let number = |key| row[key].as_u64().unwrap();
        (
            row["type"].as_str().unwrap().to_owned(),
            (number("quota"), number("used")),
        )
    };
    rows.map(row).collect()
}

fn workspace(found: &mut Found, world: &World, tenant: &'static str, desk: &Value, listed: &Value) {
    let sites = desk["site_quotas"].as_array().unwrap();
    let charged = world.charged();
    for site in SITES {
        let place = match site {
            None => rows(&desk["quotas"]),
            Some(site) => {
                let place = sites.iter().find(|place| place["site_id"] == site);
                place.map(rows).unwrap_or_default()
            }
        };
        let what = |kind: &str| format!("001 {kind} of {tenant} at {site:?}");
        let here = world
            .quotas
            .iter()
            .filter(|(key, quota)| key.0 == tenant && site_of(key.1) == site && !quota.expired);
        let granted = sum(here.map(|(_, quota)| quota.num));
        let used = charged
            .iter()
            .filter(|(t, _, region)| *t == tenant && site_of(region) == site)
            .count() as u64;
        let gpus = place.get("gpu_instances").copied().unwrap_or((0, 0));
        found.compare(&what("gpu_instances"), gpus, (granted, used));
        // The same out of document 000 itself: what has not ended, by region.
        let items = listed["data"]["items"].as_array().unwrap().iter();
        let details = items
            .filter(|item| item["tenant_name"] == tenant)
            .flat_map(|item| item["quota_types"].as_array().unwrap())
            .flat_map(|of_type| of_type["quota_details"].as_array().unwrap())
            .filter(|row| {
                row["expire_time"].is_null() && site_of(row["region"].as_str().unwrap()) == site
            });
        let count = sum(details.map(|row| row["count"].as_u64().unwrap()));
        found.compare(&what("gpu_instances and 000's counts"), gpus.0, count);
        let held: Vec<_> = world
            .held(tenant)
            .into_iter()
            .filter(|node| site_of(node.region) == site)
            .collect();
        let cores = sum(held.iter().map(|node| node.cores.into()));
        for kind in ["cores", "Memory"] {
            let shown = place.get(kind).copied();
            let expected = (site.is_none() || !held.is_empty()).then_some((UNLIMITED, cores));
            found.compare(&what(kind), shown, expected);
        }
        for kind in ["users", "volumes", "ies_instances"] {
            let counter = world.counters.get(&(tenant, kind, site)).copied();
            let always = site.is_none() && kind != "ies_instances";
            let expected = counter.or(always.then_some((0, 0)));
            found.compare(&what(kind), place.get(kind).copied(), expected);
        }
    }
}

fn quota_set(found: &mut Found, world: &World, tenant: &'static str, desk: &Value, hosts: &Value) {
    let bound = world.bound(tenant);
    let shown: BTreeMap<String, (i64, i64)> = hosts["quota_set"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let number = |key| row[key].as_i64().unwrap();
            (
                row["resource"].as_str().unwrap().to_owned(),
                (number("used"), number("hard_limit")),
            )
        })
        .collect();
    let mut expected = BTreeMap::new();
    for kind in HOSTS
        .into_iter()
        .filter(|kind| world.hosts.contains_key(kind))
    {
        let used = bound
            .iter()
            .filter(|node| world.is_host(node, kind))
            .count();
        let limit = world
            .host_limits
            .get(&(tenant, kind))
            .copied()
            .unwrap_or(-1);
        expected.insert(kind.to_owned(), (i64::try_from(used).unwrap(), limit));
    }
    found.compare(&format!("004 of {tenant}"), shown, expected.clone());
    // Document 001 shows all kinds together, of its central site; whoever has neither hosts nor limits has no row.
    let any = |node: &&super::model::Node| HOSTS.iter().any(|kind| world.is_host(node, kind));
    let limited = world.host_limits.keys().any(|key| key.0 == tenant);
    let row = (limited || bound.iter().any(|node| any(&node))).then(|| {
        let central = bound.iter().filter(|node| site_of(node.region).is_none());
        let limits = expected
            .values()
            .map(|(_, limit)| u64::try_from(*limit).unwrap_or(UNLIMITED));
        (
            sum(limits).min(UNLIMITED),
            central.filter(any).count() as u64,
        )
    });
    let shown = rows(&desk["quotas"]).get("deh").copied();
    found.compare(&format!("001 deh of {tenant}"), shown, row);
}
