//! Leases of a real agent's devices: charged until the node shows them free, and what runs without one.

use gpuquota_tests::node::{Node, Place};
use gpuquota_tests::pair::{used, uses};
use gpuquota_tests::program::Workload;
use gpuquota_tests::server::{QUICK, Server};
use gpuquota_tests::wait::{SOON, throughout, until};
use serde_json::{Value, json};
use std::time::Duration;

use super::{LEASES, ask_for, caller, lease, shown};

// The process of a tenant on the device of a lease of one.
fn run_on(node: &Node, tenant: &str, lease: &Value) -> Workload {
    let uuid = lease["devices"][0]["uuid"].as_str().unwrap();
    let index = (0..8).find(|index| node.uuid(*index) == uuid).unwrap();
    node.workload(tenant, Place::Gpu(&index.to_string()))
}

async fn metric(server: &Server, name: &str, labels: &[(&str, &str)], expected: f64) {
    until(
        &format!("{name}{labels:?} is {expected}"),
        SOON,
        async || {
            let scrape = server.scrape().await;
            let seen = scrape.sum(name, labels).abs();
            if (seen - expected).abs() < f64::EPSILON {
                Ok(())
            } else {
                Err(format!("{seen}: {}", scrape.text))
            }
        },
    )
    .await;
}

async fn held(server: &Server, tenant: &str, count: f64) {
    metric(
        server,
        "gpuquota_quota_observed",
        &[("tenant", tenant)],
        count,
    )
    .await;
}

async fn stands(server: &Server, lease: &Value, state: &str) -> Value {
    until(&format!("the lease is {state}"), SOON, async || {
        let seen = shown(&server.admin(), lease).await;
        match seen["state"] == state {
            true => Ok(seen),
            false => Err(seen.to_string()),
        }
    })
    .await
}

#[tokio::test]
async fn a_released_lease_is_charged_until_its_process_has_ended() {
    let server = gpuquota_tests::pair::server(QUICK).await;
    let node = Node::start(&server, "n1", "h100x8").await;
    let tenant = caller(&server, "tenant-admin", "a");
    let granted = lease(&tenant, &ask_for("a", 1, "devices")).await;
    assert_eq!(granted["nodes"], json!(["n1"]));
    uses(&server, [1, 0]).await;
    let idle = lease(&tenant, &ask_for("a", 1, "devices")).await;
    uses(&server, [2, 0]).await;
    let work = run_on(&node, "a", &granted);
    held(&server, "a", 1.0).await;
    metric(&server, "gpuquota_quota_leased", &[("tenant", "a")], 2.0).await;
    assert_eq!(used(&server).await, [2, 0], "a device counts once");
    // What nothing runs on is given back by the node's next reading.
    let path = |lease: &Value| format!("{LEASES}/{}", lease["id"]);
    let released = tenant.send("DELETE", &path(&idle), &[], "").await.json();
    assert_eq!(released["state"], "releasing", "{released}");
    let ended = stands(&server, &idle, "ended").await;
    assert_eq!(
        (&ended["reason"], &ended["unconfirmed"]),
        (&json!("released"), &json!([]))
    );
    uses(&server, [1, 0]).await;
    let released = tenant.send("DELETE", &path(&granted), &[], "").await.json();
    let device = &granted["devices"][0]["id"];
    assert_eq!(released["waiting"], json!([device]), "{released}");
    metric(&server, "gpuquota_leases", &[("state", "releasing")], 1.0).await;
    throughout("it is charged", Duration::from_secs(2), async || {
        match shown(&tenant, &granted).await["state"] == "releasing"
            && used(&server).await == [1, 0]
        {
            true => Ok(()),
            false => Err("it is not".to_owned()),
        }
    })
    .await;
    // Nobody else is given it meanwhile: seven are free.
    let b = lease(&server.admin(), &ask_for("b", 4, "devices")).await;
    let other = b["devices"].as_array().unwrap().iter();
    assert!(other.map(|it| &it["id"]).all(|id| id != device), "{b}");
    work.end();
    let ended = stands(&server, &granted, "ended").await;
    assert_eq!(
        (&ended["reason"], &ended["unconfirmed"]),
        (&json!("released"), &json!([]))
    );
    uses(&server, [0, 4]).await;
}

#[tokio::test]
async fn case_51_a_silent_nodes_lease_stays_until_it_is_heard_or_an_admin_forces_it() {
    let server = gpuquota_tests::pair::server(QUICK).await;
    let short = json!({"confirm_within_seconds": 1});
    let admin = server.admin();
    assert_eq!(
        admin.json("PUT", "/api/v1/settings", &short).await.status,
        200
    );
    let mut node = Node::start(&server, "n1", "h100x4").await;
    let kept = lease(&admin, &ask_for("a", 1, "devices")).await;
    let forced = lease(&admin, &ask_for("a", 1, "devices")).await;
    let work = run_on(&node, "a", &kept);
    held(&server, "a", 1.0).await;
    node.kill9();
    metric(&server, "gpuquota_nodes", &[("state", "silent")], 1.0).await;
    let path = |lease: &Value, query: &str| format!("{LEASES}/{}{query}", lease["id"]);
    for it in [&kept, &forced] {
        let released = admin.send("DELETE", &path(it, ""), &[], "").await.json();
        assert_eq!(released["state"], "releasing");
    }
    work.end();
    // Longer than it would wait for a node that is heard.
    throughout(
        "both are charged",
        Duration::from_secs(3),
        async || match used(&server).await {
            [2, 0] => Ok(()),
            seen => Err(format!("{seen:?}")),
        },
    )
    .await;
    let answer = admin
        .send("DELETE", &path(&forced, "?force=true"), &[], "")
        .await
        .json();
    let device = &forced["devices"][0]["id"];
    assert_eq!(
        answer["unconfirmed"],
        json!([{"device": device, "reason": "forced"}])
    );
    uses(&server, [1, 0]).await;
    node.run().await;
    let ended = stands(&server, &kept, "ended").await;
    assert_eq!(ended["unconfirmed"], json!([]), "{ended}");
    uses(&server, [0, 0]).await;
}

#[tokio::test]
async fn where_leases_are_required_what_runs_without_one_is_a_squatter_and_an_idle_one_a_ghost() {
    let server = gpuquota_tests::pair::server(QUICK).await;
    let admin = server.admin();
    let node = Node::start(&server, "n1", "h100x4").await;
    let squatters = [("tenant", "a"), ("node", "n1"), ("class", "squatter")];
    let granted = lease(&admin, &ask_for("a", 1, "devices")).await;
    let leased = run_on(&node, "a", &granted);
    let other = (0..4).find(|index| granted["devices"][0]["uuid"] != node.uuid(*index).as_str());
    let free = other.unwrap().to_string();
    let squatting = node.workload("a", Place::Gpu(&free));
    held(&server, "a", 2.0).await;
    metric(&server, "gpuquota_violations", &squatters, 0.0).await;
    let settings = json!({"lease_mode": "required", "ghost_after_seconds": 1});
    assert_eq!(
        admin
            .json("PUT", "/api/v1/settings", &settings)
            .await
            .status,
        200
    );
    metric(&server, "gpuquota_violations", &squatters, 1.0).await;
    let rows = caller(&server, "tenant-admin", "a")
        .get("/api/v1/violations")
        .await
        .json();
    let [row] = rows["violations"].as_array().unwrap().as_slice() else {
        panic!("{rows}")
    };
    let uuid = node.uuid(free.parse().unwrap());
    assert_eq!(
        (&row["class"], &row["device"]),
        (&json!("squatter"), &json!(uuid))
    );
    let foreign = caller(&server, "tenant-admin", "b")
        .get("/api/v1/violations")
        .await
        .json();
    assert_eq!(foreign["violations"], json!([]));
    squatting.end();
    metric(&server, "gpuquota_violations", &[("tenant", "a")], 0.0).await;
    metric(&server, "gpuquota_ghosts", &[], 0.0).await;
    leased.end();
    metric(
        &server,
        "gpuquota_ghosts",
        &[("tenant", "a"), ("node", "n1")],
        1.0,
    )
    .await;
    let rows = admin.get("/api/v1/violations?tenant=a").await.json();
    let row = &rows["violations"][0];
    assert_eq!(
        (&row["class"], &row["lease"]),
        (&json!("ghost"), &granted["id"]),
        "{rows}"
    );
}
