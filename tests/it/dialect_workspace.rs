//! Workspace quotas (document 001) of the whole system: what the native API and a node's agent say is what they show.

use gpuquota_proto::agent_v1::{NodeFacts, Report};
use gpuquota_tests::quota::{GPU, quota};
use gpuquota_tests::rest::{Answer, Rest};
use gpuquota_tests::server::Server;
use gpuquota_tests::session::{Session, full, gpu};
use serde_json::{Value, json};

const PROJECT: &str = "29dfe82ada564ac2b927e1ff036d9a9b";

async fn put(admin: &Rest, path: &str, body: Value) {
    let answer = admin.send("PUT", path, &[], body.to_string()).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
}

async fn read(server: &Server, token: &str, project: &str) -> Answer {
    let headers = [
        ("X-Auth-Token", token),
        ("Content-Type", "application/json"),
    ];
    let path = format!("/v2/{project}/quotas");
    Rest::new(server.rest, None)
        .send("GET", &path, &headers, "")
        .await
}

#[tokio::test]
async fn workspace_quotas_follow_what_is_declared_and_what_an_agent_reports() {
    let server = Server::start().await;
    let admin = server.admin();
    put(
        &admin,
        "/api/v1/tenants/desktops",
        json!({ "projects": [PROJECT] }),
    )
    .await;
    put(&admin, "/api/v1/tenants/other", json!({})).await;
    put(
        &admin,
        "/api/v1/regions/edge",
        json!({ "site_id": "147258369" }),
    )
    .await;
    put(&admin, "/api/v1/nodes/n1", json!({ "region": "US" })).await;
    for region in ["US", "edge"] {
        admin
            .put("desktops", quota(region, "purchase", GPU, 10))
            .await
            .expect_done();
    }
    let resources = format!("/api/v1/projects/{PROJECT}/resources");
    let users = json!({ "quota": 3000, "used": 29 });
    put(&admin, &format!("{resources}/users"), users).await;
    put(
        &admin,
        &format!("{resources}/cores"),
        json!({ "quota": 80 }),
    )
    .await;
    let hosts = json!({ "quota": 500, "used": 0, "site_id": "147258369" });
    put(&admin, &format!("{resources}/ies_instances"), hosts).await;

    let mut session = Session::of(&server, "n1").await;
    let devices = vec![gpu("GPU-1", &["desktops"]), gpu("GPU-2", &["desktops"])];
    let report = Report {
        facts: Some(NodeFacts {
            cpu_cores: Some(10),
            memory_bytes: Some(19 << 30),
            ..NodeFacts::default()
        }),
        ..full(1, devices)
    };
    session.acked(report).await;
    let own = server.token(&["--role", "viewer", "--tenant", "desktops"]);
    let answer = read(&server, &own, PROJECT).await;
    let expected = json!({
        "quotas": { "resources": [
            { "type": "general_instances", "quota": 0, "used": 0 },
            { "type": "volumes", "quota": 0, "used": 0 },
            { "type": "volume_gigabytes", "quota": 0, "unit": "GB", "used": 0 },
            { "type": "cores", "quota": 80, "used": 10 },
            { "type": "Memory", "quota": 2_147_483_647, "unit": "GB", "used": 19 },
            { "type": "gpu_instances", "quota": 10, "used": 2 },
            { "type": "users", "quota": 3000, "used": 29 },
            { "type": "policy_groups", "quota": 0, "used": 0 },
            { "type": "Cores", "quota": 0, "used": 0 },
        ]},
        "site_quotas": [{ "site_id": "147258369", "resources": [
            { "type": "gpu_instances", "quota": 10, "used": 0 },
            { "type": "ies_instances", "quota": 500, "used": 0 },
        ]}],
    });
    assert_eq!((answer.status, answer.text), (200, expected.to_string()));

    // What runs elsewhere now is no longer there.
    session
        .acked(full(2, vec![gpu("GPU-1", &[]), gpu("GPU-2", &["other"])]))
        .await;
    let body = read(&server, &own, PROJECT).await.json();
    assert_eq!(body["quotas"]["resources"][5]["used"], 0);
    assert_eq!(body["quotas"]["resources"][3]["used"], 0);
    for foreign in ["other", "nobody"] {
        let answer = read(&server, &own, foreign).await;
        assert_eq!(
            (answer.status, &answer.json()["error_code"]),
            (403, &json!("WKS.00001403"))
        );
    }
    let bearer = admin.get(&format!("/v2/{PROJECT}/quotas")).await;
    assert_eq!(
        (bearer.status, &bearer.json()["error_code"]),
        (401, &json!("WKS.00001401"))
    );
}
