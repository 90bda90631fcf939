//! The instance service (document 002) on a running server: figures from a node's session, limits from the native API.

use gpuquota_proto::agent_v1::{DeviceState, NodeFacts, Report};
use gpuquota_tests::rest::Rest;
use gpuquota_tests::server::Server;
use gpuquota_tests::session::{Session, full, gpu};
use serde_json::{Value, json};

const RESOURCES: &str =
    "/ai/openapi/v2/instance-service/resources?resourceGroup=TeslaM40&acceleratorType=gpu";

async fn put(admin: &Rest, path: &str, body: Value) {
    let json = [("content-type", "application/json")];
    let answer = admin.send("PUT", path, &json, body.to_string()).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
}

async fn resources(server: &Server, args: &[&str]) -> Value {
    let caller = Rest::new(server.rest, None);
    let token = server.token(args);
    let answer = caller
        .send("GET", RESOURCES, &[("token", &token)], "")
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[tokio::test]
async fn a_nodes_figures_the_callers_limits_and_the_groups_end_are_shown() {
    let server = Server::start().await;
    let admin = server.admin();
    let viewer = ["--role", "viewer", "--tenant", "a"];
    assert_eq!(resources(&server, &viewer).await["code"], "10004");
    let m40 = |uuid| DeviceState {
        model: "Tesla M40".to_owned(),
        ..gpu(uuid, &[])
    };
    let report = Report {
        facts: Some(NodeFacts {
            cpu_cores: Some(40),
            memory_bytes: Some(31_888 << 20),
            nvml: "ok".to_owned(),
            ..NodeFacts::default()
        }),
        ..full(1, vec![m40("GPU-1"), m40("GPU-2")])
    };
    let mut session = Session::of(&server, "n1").await;
    session.acked(report).await;
    let example = json!({
        "id": null, "cpuNumber": 40, "mluLimits": 0, "dcuLimits": 0, "nvLimits": 0, "gpuNumber": 2,
        "memorySize": 31888, "resourceGroup": "TeslaM40", "userName": null, "nodeNumber": 1,
        "maxTime": "unlimited",
    });
    let shown = resources(&server, &viewer).await;
    assert_eq!(
        shown.to_string(),
        json!({"code": "0", "msg": "success", "data": example}).to_string()
    );
    put(&admin, "/api/v1/tenants/a", json!({})).await;
    put(&admin, "/api/v1/tenants/b", json!({})).await;
    let group = "/api/v1/resource-groups/TeslaM40";
    put(
        &admin,
        group,
        json!({"max_time": "1-00:00:00", "tenants": ["a"]}),
    )
    .await;
    let limit = json!({"cards": 1, "tenant": "a"});
    put(&admin, &format!("{group}/card-limits/gpu"), limit).await;
    let shown = resources(&server, &viewer).await;
    assert_eq!(shown["data"]["maxTime"], "1-00:00:00");
    assert_eq!(shown["data"]["nvLimits"], 1);
    let foreign = resources(&server, &["--role", "viewer", "--tenant", "b"]).await;
    assert_eq!(foreign["code"], "10009");
    put(&admin, "/api/v1/tenants/a", json!({"frozen": true})).await;
    assert_eq!(resources(&server, &viewer).await["code"], "10007");
    put(&admin, "/api/v1/tenants/a", json!({"frozen": false})).await;
    assert_eq!(resources(&server, &viewer).await["code"], "0");
}
