//! Published clients of the dialects get from the server what was loaded into it, over HTTPS.
//!
//! For documents 000 and 003 nobody publishes one; 003's own sample code is tested in `samples`.

use gpuquota_tests::portal::{ACCESS_KEY, FOREIGN_PROJECT, PROJECT, Portal};
use gpuquota_tests::python::Python;
use serde_json::{Value, json};

/// A key pair that the server does not know, for clients that insist on signing.
const STRANGER: (&str, &str) = ("STRANGERKEY000000001", "some-other-secret");

// What a vendor's SDK is asked to do.
fn sdk(portal: &Portal, (id, secret): (&str, &str), more: Value) -> Value {
    let mut asked =
        portal.asked(json!({"project": PROJECT, "access_key": id, "secret_key": secret}));
    let more = more.as_object().unwrap().clone();
    asked.as_object_mut().unwrap().extend(more);
    asked
}

fn resource<'a>(resources: &'a Value, kind: &str) -> &'a Value {
    let rows = resources.as_array().unwrap();
    let mut found = rows.iter().filter(|row| row["type"] == kind);
    let row = found.next();
    assert!(
        found.next().is_none(),
        "{kind} stands there twice: {resources}"
    );
    assert!(row.is_some(), "no {kind}: {resources}");
    row.unwrap()
}

// The client fills in what the answer does not have.
fn row(kind: &str, quota: u64, used: u64, unit: Option<&str>) -> Value {
    json!({"type": kind, "quota": quota, "used": used, "unit": unit})
}

#[track_caller]
fn expect_workspace(said: &Value) {
    let resources = &said["quotas"]["resources"];
    for expected in [
        row("general_instances", 500, 12, None),
        row("volume_gigabytes", 4096, 100, Some("GB")),
        // Flexible and dedicated, and the one that runs.
        row("gpu_instances", 10, 1, None),
    ] {
        let kind = expected["type"].as_str().unwrap();
        assert_eq!(*resource(resources, kind), expected, "{said}");
    }
    let sites = said["site_quotas"].as_array().unwrap();
    assert_eq!(sites.len(), 1, "{said}");
    assert_eq!(sites[0]["site_id"], "147258369");
    assert_eq!(
        *resource(&sites[0]["resources"], "users"),
        row("users", 7, 3, None)
    );
}

#[track_caller]
fn expect_refused(said: &Value, status: u16, family: &str, length: usize) {
    assert_eq!(said["status"], status, "{said}");
    let code = said["error_code"].as_str().unwrap();
    let fits = code.starts_with(family) && code.ends_with(&status.to_string());
    assert!(fits && code.len() == length, "{said}");
    for text in ["error_msg", "request_id"] {
        assert!(!said[text].as_str().unwrap().is_empty(), "{text}: {said}");
    }
}

#[tokio::test]
async fn the_workspace_sdk_reads_document_001_with_a_token_or_a_signature() {
    let Some(python) = Python::found("the workspace SDK") else {
        return;
    };
    let portal = Portal::open().await;
    let ask = |keys, more| python.run("huawei_sdk.py", &sdk(&portal, keys, more));
    let workspace = json!({"service": "workspace"});
    expect_workspace(&ask(ACCESS_KEY, workspace.clone()));
    let token = json!({"service": "workspace", "token": portal.token()});
    expect_workspace(&ask(STRANGER, token));
    expect_refused(&ask(STRANGER, workspace.clone()), 401, "WKS.", 12);
    expect_refused(&ask((ACCESS_KEY.0, STRANGER.1), workspace), 401, "WKS.", 12);
    let foreign = json!({"service": "workspace", "project": FOREIGN_PROJECT});
    expect_refused(&ask(ACCESS_KEY, foreign), 403, "WKS.", 12);
}

#[tokio::test]
async fn the_deh_sdk_reads_document_004_with_a_token_or_a_signature() {
    let Some(python) = Python::found("the DeH SDK") else {
        return;
    };
    let portal = Portal::open().await;
    let ask = |keys, more| python.run("huawei_sdk.py", &sdk(&portal, keys, more));
    let c4 = json!({"resource": "c4", "hard_limit": 5, "used": 1});
    let m4 = json!({"resource": "m4", "hard_limit": -1, "used": 0});
    let all = json!({"service": "deh", "tenant": PROJECT});
    assert_eq!(ask(ACCESS_KEY, all.clone()), json!({"quota_set": [c4, m4]}));
    let one = json!({"service": "deh", "tenant": PROJECT, "resource": "m4"});
    assert_eq!(ask(ACCESS_KEY, one), json!({"quota_set": [m4]}));
    let token =
        json!({"service": "deh", "tenant": PROJECT, "resource": "c4", "token": portal.token()});
    assert_eq!(ask(STRANGER, token), json!({"quota_set": [c4]}));
    expect_refused(&ask(STRANGER, all), 401, "DEH.", 8);
    let foreign = json!({"service": "deh", "tenant": PROJECT, "project": FOREIGN_PROJECT});
    expect_refused(&ask(ACCESS_KEY, foreign), 403, "DEH.", 8);
}

#[tokio::test]
async fn scnet_cli_reads_document_002_and_logs_in_again_when_told_so() {
    let Some(python) = Python::found("scnet-cli") else {
        return;
    };
    let portal = Portal::open().await;
    let good = portal.token();
    let ask = |group: &str, tokens: Value| {
        let more = json!({"group": group, "accelerator": "gpu", "tokens": tokens});
        python.run("scnet_cli.py", &portal.asked(more))
    };
    // Its first token is none of ours: only the code for that makes it log in again.
    let said = ask("TeslaM40", json!(["no.such.token", good]));
    assert_eq!(
        (&said["exit"], &said["logins"]),
        (&json!(0), &json!(2)),
        "{said}"
    );
    let read: Value = serde_json::from_str(said["out"].as_str().unwrap()).unwrap();
    let expected = json!({
        "id": null, "cpuNumber": 40, "mluLimits": 0, "dcuLimits": 0, "nvLimits": 1, "gpuNumber": 2,
        "memorySize": 31888, "resourceGroup": "TeslaM40", "userName": null, "nodeNumber": 1,
        "maxTime": "1-02:03:04"
    });
    assert_eq!(read, expected);
    // Any other refusal reaches the person as it is.
    let said = ask("NoSuchGroup", json!([good]));
    assert_eq!(
        (&said["exit"], &said["logins"]),
        (&json!(1), &json!(1)),
        "{said}"
    );
    let out = said["out"].as_str().unwrap();
    assert!(
        out.contains("resourceGroup names no resource group"),
        "{said}"
    );
}
