//! Dedicated-host quota sets (document 004) of the whole system: kinds, limits and bindings set by the other APIs.

use gpuquota_tests::quota::{GPU, quota, with};
use gpuquota_tests::rest::{Answer, Rest};
use gpuquota_tests::server::Server;
use gpuquota_tests::session::{Session, full, gpu};
use serde_json::{Value, json};

async fn put(admin: &Rest, path: &str, body: Value) {
    let answer = admin.send("PUT", path, &[], body.to_string()).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
}

async fn read(server: &Server, token: &str, path: &str) -> Answer {
    let headers = [("X-Auth-Token", token)];
    let path = format!("/v1.0/{path}");
    Rest::new(server.rest, None)
        .send("GET", &path, &headers, "")
        .await
}

#[tokio::test]
async fn quota_sets_follow_kinds_limits_and_bindings() {
    let server = Server::start().await;
    let admin = server.admin();
    put(&admin, "/api/v1/tenants/t", json!({ "projects": ["p"] })).await;
    put(&admin, "/api/v1/tenants/other", json!({})).await;
    for (resource, group) in [("m4", "TeslaM40"), ("c4", "NVIDIAH10080GBHBM3")] {
        let groups = json!({ "resource_groups": [group] });
        put(
            &admin,
            &format!("/api/v1/host-resources/{resource}"),
            groups,
        )
        .await;
    }
    put(
        &admin,
        "/api/v1/tenants/t/host-limits/c4",
        json!({ "hard_limit": 1 }),
    )
    .await;
    // A node whose products stand for its groups.
    put(&admin, "/api/v1/nodes/n1", json!({ "region": "US" })).await;
    let mut session = Session::of(&server, "n1").await;
    session.acked(full(1, vec![gpu("GPU-1", &[])])).await;
    let bound = |node: &str| with(quota("US", "assign", GPU, 1), "node_name", json!([node]));
    admin.put("t", bound("n1")).await.expect_done();

    let own = server.token(&["--role", "viewer", "--tenant", "t"]);
    let answer = read(&server, &own, "p/quota-sets/t").await;
    let expected = json!({ "quota_set": [
        { "used": 1, "resource": "c4", "hard_limit": 1 },
        { "used": 0, "resource": "m4", "hard_limit": -1 },
    ]});
    assert_eq!((answer.status, answer.text), (200, expected.to_string()));
    let one = read(&server, &own, "p/quota-sets/t?resource=m4")
        .await
        .json();
    assert_eq!(one["quota_set"].as_array().map(Vec::len), Some(1));

    let from_own = read(&server, &own, "p/quota-sets/other").await;
    let from_other = read(&server, server.admin_token(), "p/quota-sets/other").await;
    assert_eq!(from_own.json()["error_code"], "DEH.0403");
    assert_eq!((from_own.status, from_other.status), (403, 200));
    let missing = read(&server, server.admin_token(), "p/quota-sets/nobody").await;
    assert_eq!(
        (missing.status, &missing.json()["error_code"]),
        (404, &json!("DEH.0404"))
    );
}
