//! Licence quotas (document 003) on a running server: made by their own dialect, used through the native API and by what
//! a node reports.

use gpuquota_proto::agent_v1::{DeviceHealth, DeviceKey, DeviceKind, DeviceState, LicenceState};
use gpuquota_tests::rest::Rest;
use gpuquota_tests::server::Server;
use gpuquota_tests::session::{Session, full};
use serde_json::{Value, json};

const QUOTAS: &str = "/api/v1/licenses/admin/quotas/";
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

async fn ask(rest: &Rest, method: &str, path: &str, body: Value, status: u16) -> Value {
    let answer = rest.send(method, path, &JSON, body.to_string()).await;
    assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
    answer.json()
}

async fn described(admin: &Rest) {
    let tenant = json!({"id": 2, "name": "示例公司", "code": "DEMO_COMPANY"});
    ask(admin, "PUT", "/api/v1/tenants/demo", tenant, 200).await;
    let product = json!({"name": "MyApplication Pro", "code": "MYAPP_PRO", "vgpu_types": ["*-8Q"]});
    ask(admin, "PUT", "/api/v1/software-products/1", product, 200).await;
}

async fn used(admin: &Rest, expected: u64) {
    let listed = ask(admin, "GET", QUOTAS, Value::Null, 200).await;
    let row = &listed["data"]["results"][0];
    assert_eq!(row["used_licenses"], expected, "{listed}");
    assert_eq!(row["remaining_licenses"], 4 - expected);
    assert_eq!(row["usage_rate"], json!(25.0 * expected as f64));
}

fn vgpu(uuid: &str, tenants: &[&str], licence: LicenceState) -> DeviceState {
    DeviceState {
        key: Some(DeviceKey {
            vgpu_uuid: uuid.to_owned(),
            ..DeviceKey::default()
        }),
        kind: DeviceKind::Vgpu.into(),
        health: DeviceHealth::Ok.into(),
        model: "NVIDIA L40S-8Q".to_owned(),
        gpu_model: "L40S-8Q".to_owned(),
        tenants: tenants.iter().map(|tenant| (*tenant).to_owned()).collect(),
        licence: licence.into(),
        ..DeviceState::default()
    }
}

#[tokio::test]
async fn licences_in_use_are_seats_and_licensed_vgpus_and_survive_a_restart() {
    let mut server = Server::start().await;
    let admin = server.admin();
    described(&admin).await;
    let body = json!({"tenant": 2, "software_product": 1, "max_licenses": 4});
    ask(&admin, "POST", QUOTAS, body, 201).await;
    used(&admin, 0).await;
    let seat = json!({"tenant": "demo", "software_product": 1, "owner": "u", "ttl_seconds": 600});
    let seat = ask(&admin, "POST", "/api/v1/seats", seat, 201).await;
    used(&admin, 1).await;
    let mut session = Session::of(&server, "n1").await;
    let devices = vec![
        vgpu("vgpu-1", &["demo"], LicenceState::Licensed),
        vgpu("vgpu-2", &["demo"], LicenceState::Unlicensed),
        vgpu("vgpu-3", &["other"], LicenceState::Licensed),
    ];
    session.acked(full(1, devices)).await;
    used(&admin, 2).await;
    let lower = json!({"max_licenses": 1});
    let refused = ask(&admin, "PATCH", &format!("{QUOTAS}1/"), lower, 409).await;
    assert_eq!(refused["success"], false, "{refused}");
    assert!(
        refused["errors"]["max_licenses"][0].is_string(),
        "{refused}"
    );
    server.kill9();
    server.serve().await;
    let admin = server.admin();
    used(&admin, 2).await;
    let seat = format!("/api/v1/seats/{}", seat["id"]);
    ask(&admin, "DELETE", &seat, Value::Null, 200).await;
    used(&admin, 1).await;
}

#[tokio::test]
async fn the_documents_sample_client_pages_filters_and_extends() {
    let server = Server::start().await;
    let admin = server.admin();
    described(&admin).await;
    for max in 1..=3 {
        let body = json!({
            "tenant": 2, "software_product": 1, "max_licenses": max, "expires_at": "2099-12-31T23:59:59Z",
        });
        ask(&admin, "POST", QUOTAS, body, 201).await;
    }
    let mut path = format!("{QUOTAS}?page_size=1&ordering=-max_licenses");
    let mut seen = Vec::new();
    loop {
        let page = ask(&admin, "GET", &path, Value::Null, 200).await;
        seen.push(page["data"]["results"][0]["max_licenses"].as_u64().unwrap());
        let Some(next) = page["data"]["next"].as_str() else {
            break;
        };
        let base = format!("http://{}", server.rest);
        path = next
            .strip_prefix(&base)
            .expect("where it was called")
            .to_owned();
    }
    assert_eq!(seen, [3, 2, 1]);
    let alerts = ask(
        &admin,
        "GET",
        &format!("{QUOTAS}?usage_rate_gte=0.85"),
        Value::Null,
        200,
    )
    .await;
    assert_eq!(alerts["data"]["results"], json!([]));
    let body = json!({"expires_at": "2100-12-31T23:59:59Z"});
    let extended = ask(&admin, "PATCH", &format!("{QUOTAS}1/"), body, 200).await;
    assert_eq!(extended["data"]["expires_at"], "2100-12-31T23:59:59Z");
    let counted = ask(
        &admin,
        "GET",
        &format!("{QUOTAS}usage_statistics/"),
        Value::Null,
        200,
    )
    .await;
    assert_eq!(counted["data"]["usage_overview"]["total_allocated"], 6);
}

#[tokio::test]
async fn case_30_a_forged_host_stands_in_no_answer_of_a_real_listener() {
    let server = Server::start().await;
    let admin = server.admin();
    let forged = admin
        .send("GET", QUOTAS, &[("host", "evil.example")], "")
        .await;
    assert_eq!(forged.status, 400, "{forged:?}");
    assert!(!forged.text.contains("evil"), "{forged:?}");
    let named = format!("localhost:{}", server.rest.port());
    let named = admin.send("GET", QUOTAS, &[("host", &named)], "").await;
    assert_eq!(named.status, 200, "{named:?}");
}
