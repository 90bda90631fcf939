//! Figures of resource groups, licences and nodes.

use gpuquota_tests::scrape::Scrape;
use serde_json::{Value, json};

use super::model::{NODES, TENANTS, World};
use super::reading::{Found, sum, whole};

pub(super) fn instance(
    found: &mut Found,
    world: &World,
    tenant: &'static str,
    group: &'static str,
    answer: &Value,
) {
    let what = format!("002 of {tenant} in {group}");
    if world.frozen.contains(tenant) {
        return found.compare(&what, answer["code"].clone(), json!("10007"));
    }
    let in_group = || {
        NODES
            .into_iter()
            .enumerate()
            .filter(|(_, node)| node.group == group)
    };
    // The one in slices counts as well.
    let gpus = |number: usize| {
        let here = world
            .devices
            .iter()
            .filter(move |it| it.node == number && it.kind == "flexible");
        here.count() as u64 + 1
    };
    let largest = in_group()
        .map(|(number, node)| (gpus(number), node.cores))
        .max()
        .unwrap();
    let own = world.cards.get(&(group, Some(tenant)));
    let limit = own
        .or(world.cards.get(&(group, None)))
        .copied()
        .unwrap_or(0);
    let up = in_group().filter(|(number, _)| !world.silent.contains(number));
    let expected = [
        limit,
        largest.0,
        largest.1.into(),
        u64::from(largest.1) << 10,
        up.count() as u64,
    ];
    let shown = [
        "nvLimits",
        "gpuNumber",
        "cpuNumber",
        "memorySize",
        "nodeNumber",
    ];
    let shown = shown.map(|key| answer["data"][key].as_u64().unwrap_or(u64::MAX));
    found.compare(&what, shown, expected);
}

pub(super) fn licences(
    found: &mut Found,
    world: &World,
    tenant: &'static str,
    listed: &Value,
    scrape: &Scrape,
) {
    let shown = listed["data"]["results"].as_array().unwrap();
    for product in [1, 2] {
        let of_product = || {
            shown
                .iter()
                .filter(|row| row["software_product"]["id"] == product)
        };
        let number = |key: &str| sum(of_product().map(|row| row[key].as_u64().unwrap()));
        let quotas = world
            .licences
            .values()
            .filter(|it| it.tenant == tenant && it.product == product);
        let maxima: Vec<u64> = quotas.map(|it| it.max).collect();
        let used = if maxima.is_empty() {
            0
        } else {
            world.licences_used(tenant, product)
        };
        let max = sum(maxima.iter().copied());
        let what = format!("003 of {tenant}, product {product}");
        found.compare(
            &what,
            (
                number("used_licenses"),
                number("max_licenses"),
                of_product().count(),
            ),
            (used, max, maxima.len()),
        );
        let code = format!("P{product}");
        let labels = [("tenant", tenant), ("product", code.as_str())];
        let metric = |name| whole(scrape.sum(name, &labels));
        let metrics = (
            metric("gpuquota_licence_used"),
            metric("gpuquota_licence_limit"),
        );
        found.compare(&format!("metrics {labels:?}"), metrics, (used, max));
    }
    found.compare(
        &format!("003 count of {tenant}"),
        listed["data"]["count"].clone(),
        json!(shown.len()),
    );
}

pub(super) fn statistics(found: &mut Found, world: &World, listed: &Value, shown: &Value) {
    let rows = listed["data"]["results"].as_array().unwrap();
    let data = &shown["data"];
    let number =
        |rows: &[&Value], key: &str| sum(rows.iter().map(|row| row[key].as_u64().unwrap()));
    let all: Vec<&Value> = rows.iter().collect();
    let overview = &data["usage_overview"];
    let shown = [
        &data["total_quotas"],
        &overview["total_allocated"],
        &overview["total_used"],
    ];
    let expected = [
        rows.len() as u64,
        number(&all, "max_licenses"),
        number(&all, "used_licenses"),
    ];
    found.compare(
        "003 statistics",
        shown.map(|value| value.as_u64().unwrap()),
        expected,
    );
    let live = world
        .licences
        .values()
        .filter(|it| it.active && !it.expired)
        .count();
    let ended = world.licences.values().filter(|it| it.expired).count();
    let shown = (
        data["active_quotas"].clone(),
        data["expired_quotas"].clone(),
    );
    found.compare("003 active and expired", shown, (json!(live), json!(ended)));
    for row in data["by_tenant"].as_array().unwrap() {
        let of_tenant: Vec<&Value> = rows
            .iter()
            .filter(|it| it["tenant"]["id"] == row["tenant_id"])
            .collect();
        let shown = (
            row["total_quota"].as_u64().unwrap(),
            row["total_used"].as_u64().unwrap(),
        );
        let expected = (
            number(&of_tenant, "max_licenses"),
            number(&of_tenant, "used_licenses"),
        );
        found.compare(
            &format!("003 statistics of {}", row["tenant_id"]),
            shown,
            expected,
        );
    }
}

pub(super) fn nodes(found: &mut Found, world: &World, shown: &Value) {
    for (number, node) in NODES.into_iter().enumerate() {
        let row = shown["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["name"] == node.name)
            .unwrap();
        let here = world.devices.iter().filter(|it| it.node == number).count() + 1;
        let state = match world.silent.contains(&number) {
            true => "silent",
            false => "up",
        };
        let bound = TENANTS
            .into_iter()
            .find(|(tenant, _)| world.bound(tenant).iter().any(|it| it.name == node.name));
        let expected = (json!(state), here, json!(bound.map(|(tenant, _)| tenant)));
        let devices = row["devices"].as_array().unwrap().len();
        found.compare(
            &format!("node {}", node.name),
            (row["state"].clone(), devices, row["bound_tenant"].clone()),
            expected,
        );
    }
}
