//! The documents' sample code works as printed: only addresses and tokens are other ones.

use std::path::{Path, PathBuf};
use std::process::Command;

use gpuquota_tests::portal::Portal;
use gpuquota_tests::program::succeed;
use gpuquota_tests::python::{Python, client};
use gpuquota_tests::repository;
use gpuquota_tests::skip::skipped;
use serde_json::{Value, json};

/// What document 002 asks in every language.
const PRINTED: &str = "https://api01.xxx.com:65106";
const OKHTTP: [&str; 2] = ["/usr/share/java/okhttp.jar", "/usr/share/java/okio.jar"];

fn printed(name: &str) -> PathBuf {
    repository::root().join("tests/samples").join(name)
}

// The sample with this server's address and a token of ours in place of each one that is printed.
fn adapted(portal: &Portal, name: &str) -> PathBuf {
    let text = std::fs::read_to_string(printed(name)).unwrap();
    assert!(text.contains(PRINTED), "{name}");
    let mut text = text.replace(PRINTED, &portal.url);
    let token = portal.token();
    let part = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let mut from = 0;
    while let Some(place) = text[from..].find("eyJ").map(|place| from + place) {
        let end = text[place..].find(|c| !part(c)).unwrap() + place;
        text.replace_range(place..end, &token);
        from = place + token.len();
    }
    let path = portal.server.home().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn expect_resources(said: &str) {
    let answer: Value = serde_json::from_str(said).expect(said);
    let expected = json!({"code": "0", "msg": "success", "data": {
        "id": null, "cpuNumber": 40, "mluLimits": 0, "dcuLimits": 0, "nvLimits": 1, "gpuNumber": 2,
        "memorySize": 31888, "resourceGroup": "TeslaM40", "userName": null, "nodeNumber": 1,
        "maxTime": "1-02:03:04"
    }});
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn the_curl_line_of_document_002() {
    let portal = Portal::open().await;
    let mut shell = client(Path::new("bash"), Some(&portal.ca));
    expect_resources(&succeed(shell.arg(adapted(&portal, "resources.sh"))));
}

#[tokio::test]
async fn the_python_sample_of_document_002() {
    let Some(python) = Python::found("the Python sample of document 002") else {
        return;
    };
    let portal = Portal::open().await;
    let mut interpreter = python.interpreter(Some(&portal.ca));
    expect_resources(&succeed(interpreter.arg(adapted(&portal, "resources.py"))));
}

#[tokio::test]
async fn the_java_sample_of_document_002() {
    let found = |program: &str| Command::new(program).arg("-version").output().is_ok();
    if !found("javac") || !OKHTTP.iter().all(|jar| Path::new(jar).exists()) {
        let why = "there is no Java development kit, or no libokhttp-java";
        return skipped("the Java sample of document 002", why);
    }
    let portal = Portal::open().await;
    let home = portal.server.home();
    let path = OKHTTP.join(":");
    let mut javac = client(Path::new("javac"), None);
    javac.args(["-cp", &path, "-d"]).arg(home);
    succeed(javac.arg(adapted(&portal, "GetInstanceResourceLimitDemo.java")));
    let trusted = home.join("ca.p12");
    let mut keytool = client(Path::new("keytool"), None);
    keytool.args([
        "-importcert",
        "-noprompt",
        "-alias",
        "ca",
        "-storepass",
        "changeit",
        "-file",
    ]);
    succeed(keytool.arg(&portal.ca).arg("-keystore").arg(&trusted));
    let mut java = client(Path::new("java"), None);
    java.arg("-cp").arg(format!("{path}:{}", home.display()));
    java.arg(format!("-Djavax.net.ssl.trustStore={}", trusted.display()));
    java.arg("-Djavax.net.ssl.trustStorePassword=changeit");
    expect_resources(&succeed(java.arg("GetInstanceResourceLimitDemo")));
}

#[tokio::test]
async fn the_python_class_of_document_003() {
    let Some(python) = Python::found("the Python sample of document 003") else {
        return;
    };
    let portal = Portal::open().await;
    let more = json!({"token": portal.server.admin_token(), "sample": printed("quota_manager.py")});
    let said = python.run("quota_manager_client.py", &portal.asked(more));
    let created = json!({
        "success": true,
        "data": {
            "id": 2, "tenant": {"id": 2, "name": "示例公司"},
            "software_product": {"id": 1, "name": "MyApplication Pro"},
            "max_licenses": 500, "used_licenses": 0, "usage_rate": 0.0, "remaining_licenses": 500,
            "expires_at": "2024-12-31T23:59:59Z", "is_active": true
        },
        "message": "租户配额创建成功"
    });
    assert_eq!(said["new_quota"], created);
    // Nine of the ten licences of the quota before it are seats; the one that it made ended long ago.
    let high = said["high_usage"].as_array().unwrap();
    assert_eq!(high.len(), 1, "{said}");
    for (field, value) in [
        ("id", json!(1)),
        ("max_licenses", json!(10)),
        ("used_licenses", json!(9)),
        ("usage_rate", json!(90.0)),
        ("remaining_licenses", json!(1)),
        ("expires_at", Value::Null),
    ] {
        assert_eq!(high[0][field], value, "{field}: {said}");
    }
    assert_eq!(said["printed"], "配额 1 使用率: 90.0%\n");
    let extended = &said["extended"];
    assert_eq!(extended["success"], true, "{said}");
    assert_eq!(extended["data"]["id"], 2, "{said}");
    assert_eq!(
        extended["data"]["expires_at"], "2035-12-31T23:59:59Z",
        "{said}"
    );
}
