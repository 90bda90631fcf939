//! How far agents go, as operators say it and see it over REST.

use gpuquota_core::Command;
use gpuquota_core::command::BeginSteps;
use gpuquota_core::device::{DeviceKey, DeviceReport};
use gpuquota_core::id::{Incarnation, NodeName, Seq, SessionId, TenantName};
use gpuquota_core::step::{Rung, Step, StepClass};
use gpuquota_server::auth::Role;
use http::Request;
use serde_json::{Value, json};

use crate::declared::{facts, gpu};
use crate::licence::read;
use crate::rest::{Rest, token};
use crate::running::{Running, START, SetClock};

const GPU: &str = "nvidia.com/gpu";
const ENFORCEMENT: &str = "/api/v1/entitlements/0/enforcement";

async fn ask(rest: &Rest, method: &str, target: &str, role: Role, body: &Value) -> (u16, Value) {
    let token = token(role, &["a"], &[]);
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("authorization", format!("Bearer {token}"));
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let (status, text) = read(rest.send(request, &body).await).await;
    (status, serde_json::from_str(&text).unwrap())
}

async fn rows(rest: &Rest, role: Role) -> Vec<Value> {
    let (status, body) = ask(rest, "GET", "/api/v1/violations", role, &Value::Null).await;
    assert_eq!(status, 200, "{body}");
    body["violations"].as_array().unwrap().clone()
}

#[tokio::test]
async fn violations_say_how_far_agents_go_and_what_they_did_last_and_a_quota_may_say_less() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    let rest = Rest::on(&running);
    let nobodys = DeviceReport {
        unattributed: true,
        ..gpu("GPU-2", GPU, &[])
    };
    let devices = vec![
        gpu("GPU-0", GPU, &["a"]),
        gpu("GPU-1", GPU, &["a"]),
        nobodys,
    ];
    running.reported("n0", facts(None, None), devices).await;
    let quota =
        json!({"region": "default", "quota_source": "purchase", "gpu_model": GPU, "num": 1});
    for (target, body) in [
        (
            "/api/v1/settings",
            json!({"enforcing": {"enforcement": {"mode": "evict"}}}),
        ),
        ("/api/v1/quotas/a", quota),
    ] {
        let (status, said) = ask(&rest, "PUT", target, Role::Admin, &body).await;
        assert_eq!(status, 200, "{said}");
    }
    let [nobody, over] = rows(&rest, Role::Admin).await.try_into().unwrap();
    assert_eq!(
        (
            &nobody["class"],
            &nobody["tenant"],
            &nobody["mode"],
            &nobody["device"]
        ),
        (
            &json!("unattributed"),
            &Value::Null,
            &json!("observe"),
            &json!("GPU-2")
        )
    );
    assert_eq!(
        (
            &over["class"],
            &over["mode"],
            &over["held"],
            &over["last_step"]
        ),
        (
            &json!("over_quota"),
            &json!("evict"),
            &Value::Null,
            &Value::Null
        )
    );
    assert_eq!(
        rows(&rest, Role::TenantAdmin).await,
        std::slice::from_ref(&over)
    );

    let less = json!({"enforcement": {"mode": "warn", "grace_seconds": 7}});
    assert_eq!(
        ask(&rest, "PUT", ENFORCEMENT, Role::TenantAdmin, &less)
            .await
            .0,
        403
    );
    assert_eq!(
        ask(&rest, "PUT", ENFORCEMENT, Role::Admin, &json!({}))
            .await
            .0,
        400
    );
    let unknown = "/api/v1/entitlements/9/enforcement";
    assert_eq!(ask(&rest, "PUT", unknown, Role::Admin, &less).await.0, 404);
    let (status, said) = ask(&rest, "PUT", ENFORCEMENT, Role::Admin, &less).await;
    assert_eq!(
        (status, &said["enforcement"]["grace_seconds"]),
        (200, &json!(7)),
        "{said}"
    );
    assert_eq!(rows(&rest, Role::TenantAdmin).await[0]["mode"], "warn");
    let none = json!({"enforcement": null});
    let (status, said) = ask(&rest, "PUT", ENFORCEMENT, Role::Admin, &none).await;
    assert_eq!(
        (status, &said["enforcement"]),
        (200, &Value::Null),
        "{said}"
    );
    let (_, shown) = ask(
        &rest,
        "GET",
        "/api/v1/entitlements/0",
        Role::TenantAdmin,
        &Value::Null,
    )
    .await;
    assert_eq!(shown, said);

    let begin = BeginSteps {
        node: NodeName::new("n0").unwrap(),
        session: SessionId(1),
        incarnation: Incarnation(0),
        version: Seq(1),
        steps: vec![Step {
            rung: Rung::Restrict,
            tenant: Some(TenantName::new("a").unwrap()),
            device: DeviceKey::gpu(over["device"].as_str().unwrap()).unwrap(),
            class: StepClass::OverQuota,
            pid: None,
            start_time: None,
            group: "/a.slice".into(),
        }],
    };
    running.told([Command::BeginSteps(begin)]).await;
    let row = rows(&rest, Role::TenantAdmin).await.remove(0);
    assert_eq!(
        (&row["last_step"]["rung"], &row["last_step"]["result"]),
        (&json!("restrict"), &Value::Null),
        "{row}"
    );
    running.end().await;
}
