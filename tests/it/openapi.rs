//! The OpenAPI document and the page to read, from outside: what is declared is asked, and nothing comes from elsewhere.

use std::collections::BTreeSet;

use gpuquota_tests::python::Python;
use gpuquota_tests::rest::{Answer, Rest};
use gpuquota_tests::server::Server;
use serde_json::{Value, json};

/// One operation of the document.
struct Operation {
    method: String,
    path: String,
    tag: String,
    schemes: Vec<String>,
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let schemes = operation["security"].as_array().unwrap().iter();
            let schemes = schemes.flat_map(|scheme| scheme.as_object().unwrap().keys().cloned());
            operations.push(Operation {
                method: method.to_uppercase(),
                // Any value in a path: the credential is looked at first.
                path: path.replace(['{', '}'], ""),
                tag: operation["tags"][0].as_str().unwrap().to_owned(),
                schemes: schemes.collect(),
            });
        }
    }
    operations
}

// Whether this is the dialect's own "no credential".
fn refuses(tag: &str, answer: &Answer) -> bool {
    let body = answer.json();
    let (status, right) = match tag {
        "GPU quota" => (401, body["code"] == 40101),
        "Workspace" => (401, body["error_code"] == "WKS.00001401"),
        // It answers 200 and says in `code` what is wrong (dialects D3.7).
        "Instance service" => (200, body["code"] == "10008" && body["data"].is_null()),
        "Licence quotas" => (401, body["success"] == false && body["code"] == 401),
        "DeH quota sets" => (401, body["error_code"] == "DEH.0401"),
        "Native" => (401, body["error"]["kind"] == "no_credential"),
        _ => (0, false),
    };
    answer.status == status && right
}

#[tokio::test]
async fn the_document_needs_no_token_and_what_it_declares_is_asked() {
    // Each operation is asked once without a credential, all from one address.
    let server = Server::with(&[("wrong_burst = 50", "wrong_burst = 1000")]).await;
    let stranger = Rest::new(server.rest, None);
    let answer = stranger.get("/openapi.json").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/json");
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["servers"], json!([{ "url": "/" }]));
    let schemes = &document["components"]["securitySchemes"];
    let mut open = BTreeSet::new();
    for operation in operations(&document) {
        let Operation {
            method,
            path,
            tag,
            schemes: asked,
        } = &operation;
        let answer = stranger.send(method, path, &[], "").await;
        if asked.is_empty() {
            open.insert(path.clone());
            assert!(
                [200, 404].contains(&answer.status),
                "{method} {path}: {answer:?}"
            );
            continue;
        }
        assert!(refuses(tag, &answer), "{method} {path}: {answer:?}");
        // The header that is declared opens it: whatever is wrong then, it is not the credential.
        let [scheme] = asked.as_slice() else {
            panic!("{asked:?}")
        };
        let token = server.admin_token();
        let (header, value) = match schemes[scheme]["type"].as_str().unwrap() {
            "http" => ("authorization", format!("Bearer {token}")),
            _ => (schemes[scheme]["name"].as_str().unwrap(), token.to_owned()),
        };
        let answer = stranger.send(method, path, &[(header, &value)], "").await;
        assert!(
            !refuses(tag, &answer) && answer.status != 401,
            "{method} {path}: {answer:?}"
        );
        assert!(answer.status < 500, "{method} {path}: {answer:?}");
    }
    let known = ["/docs", "/docs/file", "/healthz", "/openapi.json"];
    assert_eq!(open, known.map(ToOwned::to_owned).into());
}

#[tokio::test]
async fn the_page_to_read_loads_nothing_from_elsewhere_and_reads_without_scripts() {
    let server = Server::start().await;
    let stranger = Rest::new(server.rest, None);
    let page = stranger.get("/docs").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    for rule in [
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self'",
    ] {
        assert!(policy.split("; ").any(|known| known == rule), "{policy}");
    }
    assert!(
        !policy.contains("http") && !policy.contains("unsafe-eval"),
        "{policy}"
    );
    assert!(!page.text.contains("//"), "{}", page.text);
    let loaded: Vec<&str> = ["href=\"", "src=\""]
        .iter()
        .flat_map(|name| page.text.split(name).skip(1))
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert_eq!(loaded.len(), 4, "{loaded:?}");
    for file in loaded {
        let answer = stranger.get(&format!("/{file}")).await;
        assert_eq!(answer.status, 200, "{file}");
        let expected = match file.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            _ => "application/json",
        };
        assert_eq!(answer.header("content-type"), expected, "{file}");
        if file.starts_with("docs/") {
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{file}");
            assert!(!answer.text.contains("@import"), "{file}");
            assert!(!answer.text.contains("url(http"), "{file}");
        }
    }
    // Whoever has no browser reads the same list.
    let document = stranger.get("/openapi.json").await.json();
    for operation in operations(&document) {
        assert!(page.text.contains(&operation.method), "{}", page.text);
    }
    for path in document["paths"].as_object().unwrap().keys() {
        assert!(
            page.text.contains(&format!("<code>{path}</code>")),
            "{path}"
        );
    }
    let absent = stranger.get("/docs/index.html").await;
    assert_eq!(absent.status, 404);
    assert_eq!(absent.json()["error"]["kind"], "no_such_object");
}

#[tokio::test]
async fn the_document_is_openapi_3_1_and_its_examples_are_what_it_describes() {
    let Some(python) = Python::found("OpenAPI validation") else {
        return;
    };
    let server = Server::start().await;
    let document = Rest::new(server.rest, None)
        .get("/openapi.json")
        .await
        .json();
    let said = python.run("openapi_document.py", &document);
    assert_eq!(said["wrong"], json!([]));
    assert!(said["examples"].as_u64().unwrap() > 100, "{said}");
}
