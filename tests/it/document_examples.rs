//! The five documents' examples, verbatim: after `load-examples` each example request is answered in the shape of its
//! example, key by key, in its order, with its types, nulls and lengths; and with its values where a ledger can have them.
//!
//! Where an example contradicts itself or a decision, the place is named here with what is answered instead.

use std::process::Command;

use gpuquota_proto::agent_v1::{
    DeviceKey, DeviceKind, DeviceState, LicenceState, NodeFacts, Report,
};
use gpuquota_tests::dialect::{Dialect, LICENCES};
use gpuquota_tests::program::{output, program, succeed};
use gpuquota_tests::rest::{Answer, Rest};
use gpuquota_tests::server::{Server, edit};
use gpuquota_tests::session::{Session, full, gpu};
use serde_json::{Value, json};

use crate::document_texts::{
    DEH, DEH_REQUEST, INSTANCE, INSTANCE_REQUEST, INSTANCE_TOKENS, LICENCE_CREATED, LICENCE_LIST,
    LICENCE_PATCH, LICENCE_POST, LICENCE_STATISTICS, QUOTA_DELETE, QUOTA_LIST, QUOTA_PUT,
    WORKSPACE, WORKSPACE_REQUEST,
};

/// Gets on with a running server or with none.
fn load(server: &Server) -> Command {
    let mut command = Command::new(program("gpuquota-server"));
    command.arg("load-examples").arg("--dir").arg(&server.dir);
    command
}

// What differs between an example and an answer, as `path: example / answer`; values count only with `values`.
fn differences(at: &str, example: &Value, answer: &Value, values: bool, found: &mut Vec<String>) {
    match (example, answer) {
        (Value::Object(a), Value::Object(b)) => {
            let (left, right): (Vec<_>, Vec<_>) = (a.keys().collect(), b.keys().collect());
            if left != right {
                found.push(format!("{at}: {left:?} / {right:?}"));
            }
            for (key, value) in a {
                if let Some(other) = b.get(key) {
                    differences(&format!("{at}.{key}"), value, other, values, found);
                }
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            if a.len() != b.len() {
                found.push(format!("{at}: {} rows / {} rows", a.len(), b.len()));
            }
            for (number, (value, other)) in a.iter().zip(b).enumerate() {
                differences(&format!("{at}[{number}]"), value, other, values, found);
            }
        }
        (a, b) => {
            let kind = |value: &Value| match value {
                Value::Number(number) if number.is_f64() => "fraction",
                Value::Number(_) => "whole number",
                Value::String(_) => "text",
                Value::Bool(_) => "truth",
                _ => "null",
            };
            if kind(a) != kind(b) || (values && a != b) {
                found.push(format!("{at}: {a} / {b}"));
            }
        }
    }
}

#[track_caller]
fn expect(example: &str, answer: &Answer, status: u16, known: &[&str]) {
    assert_eq!(answer.status, status, "{answer:?}");
    let example: Value = serde_json::from_str(example).unwrap();
    let mut found = Vec::new();
    differences("", &example, &answer.json(), true, &mut found);
    assert_eq!(found, known, "{}", answer.text);
}

#[track_caller]
fn expect_shape(example: &str, answer: &Answer, status: u16, known: &[&str]) {
    assert_eq!(answer.status, status, "{answer:?}");
    let example: Value = serde_json::from_str(example).unwrap();
    let mut found = Vec::new();
    differences("", &example, &answer.json(), false, &mut found);
    assert_eq!(found, known, "{}", answer.text);
}

/// A server with the loaded state, and the node m40-1 as its agent reports it, with a vGPU on another node.
async fn example_server() -> (Server, [Session; 2]) {
    let mut server = Server::start().await;
    server.stop().await;
    succeed(&mut load(&server));
    server.serve().await;
    let mut m40 = Session::of(&server, "m40-1").await;
    let devices = ["GPU-1", "GPU-2"].map(|uuid| DeviceState {
        model: "Tesla M40".to_owned(),
        ..gpu(uuid, &[])
    });
    let facts = NodeFacts {
        cpu_cores: Some(40),
        memory_bytes: Some(31_888 << 20),
        ..NodeFacts::default()
    };
    let report = full(1, devices.to_vec());
    m40.acked(Report {
        facts: Some(facts),
        ..report
    })
    .await;
    let vgpu = DeviceState {
        key: Some(DeviceKey {
            vgpu_uuid: "v-1".to_owned(),
            ..DeviceKey::default()
        }),
        kind: DeviceKind::Vgpu.into(),
        model: "tyui-3".to_owned(),
        gpu_model: "tyui-3".to_owned(),
        licence: LicenceState::Unlicensed.into(),
        ..gpu("", &["test1015"])
    };
    let mut gpu02 = Session::of(&server, "gpu02").await;
    gpu02.acked(full(1, vec![vgpu])).await;
    (server, [m40, gpu02])
}

#[tokio::test]
async fn the_examples_of_all_five_documents_come_back_in_their_shape() {
    let (server, _nodes) = example_server().await;
    let ask = async |dialect: Dialect, path: &str| {
        dialect
            .caller(&server, server.admin_token())
            .get(path)
            .await
    };

    let answer = ask(Dialect::GpuQuota, "/api/v1/quota/user-quotas").await;
    // A layout of Go and no time (D1.14).
    let time = r#".data.items[2].quota_types[0].quota_details[0].expire_time: "2026-01-02T15:04:05Z07:00" / "2026-01-02T15:04:05Z""#;
    expect(QUOTA_LIST, &answer, 200, &[time]);

    let answer = ask(Dialect::Workspace, WORKSPACE_REQUEST).await;
    let known = [
        // What only this tenant's agents could report, and what document 000's example grants it instead of these.
        ".quotas.resources[3].used: 10 / 0",
        ".quotas.resources[4].used: 19 / 0",
        ".quotas.resources[5].quota: 10 / 2",
        // Typed as a String (D2.5).
        r#".site_quotas[0].site_id: 147258369 / "147258369""#,
        ".site_quotas[0].resources[0].quota: 50 / 0",
    ];
    expect(WORKSPACE, &answer, 200, &known);

    let answer = ask(Dialect::Instance, INSTANCE_REQUEST).await;
    expect(INSTANCE, &answer, 200, &[]);
    for token in INSTANCE_TOKENS {
        let answer = Dialect::Instance
            .caller(&server, token)
            .get(INSTANCE_REQUEST)
            .await;
        Dialect::Instance.expect(401, &answer);
    }

    let answer = ask(Dialect::QuotaSet, DEH_REQUEST).await;
    expect(DEH, &answer, 200, &[]);
    let answer = ask(Dialect::QuotaSet, &format!("{DEH_REQUEST}?resource=m4")).await;
    assert_eq!(
        answer.text,
        r#"{"quota_set":[{"used":0,"resource":"m4","hard_limit":5}]}"#
    );

    let answer = ask(Dialect::Licence, LICENCES).await;
    let row = answer.json()["data"]["results"][0].clone();
    let known = [
        // The example lists one row of its 25.
        ".data.count: 25 / 1".to_owned(),
        format!(
            ".data.results[0].created_at: \"2024-01-15T10:30:00Z\" / {}",
            row["created_at"]
        ),
        format!(
            ".data.results[0].updated_at: \"2024-01-20T14:25:00Z\" / {}",
            row["updated_at"]
        ),
    ];
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    expect(LICENCE_LIST, &answer, 200, &known);
    assert!(
        answer.text.contains(r#""usage_rate":75.0,"#),
        "{}",
        answer.text
    );

    let answer = ask(Dialect::Licence, &format!("{LICENCES}usage_statistics/")).await;
    // 75 of 100 is not high usage; the example's figures cannot follow from its own list (D4.14).
    expect_shape(
        LICENCE_STATISTICS,
        &answer,
        200,
        &[".data.high_usage_quotas: 1 rows / 0 rows"],
    );
}

#[tokio::test]
async fn the_examples_that_write_are_taken_and_answered_in_their_shape() {
    let (server, _nodes) = example_server().await;
    let admin = server.admin();
    let quotas = "/api/v1/quotas/gpu-operator";
    let headers = [("Content-type", "application/json")];
    admin
        .send("PUT", quotas, &headers, QUOTA_PUT)
        .await
        .expect_done();
    let listed = admin.list("").await.json();
    let made = &listed["data"]["items"][4];
    assert_eq!(
        (
            &made["tenant_name"],
            &made["quota_types"][0]["quota_details"][0]["id"]
        ),
        (&json!("gpu-operator"), &json!(212))
    );
    admin
        .send("DELETE", quotas, &headers, QUOTA_DELETE)
        .await
        .expect_done();
    assert_eq!(admin.list("").await.json()["data"]["total"], 3);

    let answer = admin.send("POST", LICENCES, &headers, LICENCE_POST).await;
    let known = [".data.id: 15 / 2"];
    expect(LICENCE_CREATED, &answer, 201, &known);
    let answer = admin
        .send("PATCH", &format!("{LICENCES}2/"), &headers, LICENCE_PATCH)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["success", "data", "message"], "{body}");
    // A full row is like one of the list.
    let row: Value = serde_json::from_str(LICENCE_LIST).unwrap();
    let mut found = Vec::new();
    differences(
        "",
        &row["data"]["results"][0],
        &body["data"],
        false,
        &mut found,
    );
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(
        (&body["data"]["max_licenses"], &body["data"]["expires_at"]),
        (&json!(300), &json!("2025-12-31T23:59:59Z"))
    );

    // A quota that is used by at least 90 % gives the statistics the last of the example's lists.
    let quota = json!({"tenant": 2, "software_product": 1, "max_licenses": 80});
    assert_eq!(admin.json("POST", LICENCES, &quota).await.status, 201);
    let answer = admin.get(&format!("{LICENCES}usage_statistics/")).await;
    expect_shape(LICENCE_STATISTICS, &answer, 200, &[]);
}

#[tokio::test]
async fn loading_twice_changes_nothing_whether_a_server_runs_or_not() {
    let mut server = Server::start().await;
    let config = server.dir.join("server.toml");
    // A running server is found at the address of its configuration.
    edit(&config, &[("127.0.0.1:8080", &server.rest.to_string())]);
    let first = output(&mut load(&server));
    assert!(first.status.success(), "{first:?}");
    let loaded = server.fingerprint().await;
    assert_eq!(
        server.admin().get(LICENCES).await.json()["data"]["count"],
        1
    );
    succeed(&mut load(&server));
    let mut by_url = Command::new(program("gpuquota-server"));
    let url = format!("http://{}", server.rest);
    by_url.args([
        "load-examples",
        "--url",
        &url,
        "--token",
        server.admin_token(),
    ]);
    succeed(&mut by_url);
    assert_eq!(server.fingerprint().await, loaded);
    server.stop().await;
    succeed(&mut load(&server));
    server.serve().await;
    assert_eq!(server.fingerprint().await, loaded);

    // A wrong token is said to be one, and nothing is loaded by it.
    let mut wrong = Command::new(program("gpuquota-server"));
    wrong.args(["load-examples", "--url", &url, "--token", "x.y.z"]);
    let refused = output(&mut wrong);
    assert!(!refused.status.success());
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("401"),
        "{refused:?}"
    );
    let other = Rest::new(server.rest, Some(server.admin_token()));
    assert_eq!(other.get(LICENCES).await.json()["data"]["count"], 1);
    assert_eq!(server.fingerprint().await, loaded);
}
