//! Dedicated-host quota sets (document 004): the example to the letter, rows, filter, rights, errors.

use gpuquota_core::Command;
use gpuquota_core::limit::Limit;
use gpuquota_server::auth::Role;
use serde_json::{Value, json};

use crate::declared::{declared, host_limit, hosts, on, quota, tenant, until};
use crate::rest::{Rest, Told, token};
use crate::running::{Running, START, SetClock};

const PROJECT: &str = "9c53a566cb3443ab910cf0daebca90c4";
const TENANT: &str = "45df5566cb3443ab910cf0daebcapoi8";

// The document's answer, verbatim but for the marks of its table.
const EXAMPLE: &str = r#"{
"quota_set": [
{
"used": 0,
"resource": "c4",
"hard_limit": 5
},
{
"used": 0,
"resource": "m4",
"hard_limit": 5
}
]
}"#;

fn bind(tenant: &str, model: &str, nodes: &[&str]) -> Command {
    Command::SetQuota(on(quota(tenant, "US", model, Limit::Finite(1)), nodes))
}

#[tokio::test]
async fn the_example_of_the_document_comes_back_to_the_letter() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    running
        .told([
            tenant("hosting", &[PROJECT]),
            tenant(TENANT, &[]),
            hosts("m4", &["M4"]),
            hosts("c4", &["C4"]),
            host_limit(TENANT, "c4", 5),
            host_limit(TENANT, "m4", 5),
        ])
        .await;
    let target = format!("/v1.0/{PROJECT}/quota-sets/{TENANT}");
    let answer = Rest::on(&running).admin(&target).await;
    let expected: Value = serde_json::from_str(EXAMPLE).unwrap();
    // The text, not the value: the order of the keys is the document's too.
    assert_eq!(answer.said(), (200, expected.to_string().as_str()));
    assert_eq!(answer.headers["content-type"], "application/json");
    running.end().await;
}

fn row(used: u32, resource: &str, hard_limit: i64) -> Value {
    json!({ "used": used, "resource": resource, "hard_limit": hard_limit })
}

#[tokio::test]
async fn rows_are_kinds_of_hosts_with_what_is_bound_and_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    let rest = Rest::on(&running);
    running.told([tenant("t", &["p"])]).await;
    let answer = rest.admin("/v1.0/p/quota-sets/p").await;
    assert_eq!(answer.said(), (200, r#"{"quota_set":[]}"#));
    let ended = on(quota("t", "US", "x", Limit::Finite(1)), &["n4"]);
    running
        .told([
            declared("n1", "US", &["g"], None),
            declared("n2", "US", &["g", "h"], None),
            declared("n3", "US", &["g"], None),
            declared("n4", "US", &["g"], None),
            hosts("big", &["g", "h"]),
            hosts("Small", &["h"]),
            hosts("none", &[]),
            host_limit("t", "Small", u32::MAX),
            host_limit("t", "none", 0),
            bind("t", "a", &["n1", "n2", "never-seen"]),
            bind("t", "b", &["n2"]),
            bind("other", "a", &["n3"]),
            Command::SetQuota(until(ended, START - 1)),
        ])
        .await;
    let rows = [
        row(1, "Small", 2_147_483_647),
        row(2, "big", -1),
        row(0, "none", 0),
    ];
    let all = json!({ "quota_set": rows }).to_string();
    for target in [
        "p/quota-sets/t",
        "t/quota-sets/p",
        "t/quota-sets/t?other=1&other=2",
    ] {
        let answer = rest.admin(&format!("/v1.0/{target}")).await;
        assert_eq!(answer.said(), (200, all.as_str()), "{target}");
    }
    let none: [Value; 0] = [];
    let filters: [(&str, &[Value]); 6] = [
        ("big", &rows[1..2]),
        ("%62ig", &rows[1..2]),
        ("Big", &none),
        ("bi", &none),
        ("unknown", &none),
        ("", &none),
    ];
    for (filter, rows) in filters {
        let answer = rest
            .admin(&format!("/v1.0/p/quota-sets/t?resource={filter}"))
            .await;
        let expected = json!({ "quota_set": rows }).to_string();
        assert_eq!(answer.said(), (200, expected.as_str()), "{filter}");
    }
    for query in ["resource=big&resource=big", "resource=%ff"] {
        let answer = rest.admin(&format!("/v1.0/p/quota-sets/t?{query}")).await;
        expect_fault(&answer, 400);
    }
    running.end().await;
}

#[track_caller]
fn expect_fault(answer: &Told, status: u16) {
    let body = answer.json();
    let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["error_code", "error_msg", "message"], "{answer:?}");
    let code = format!("DEH.{status:04}");
    assert_eq!(
        (answer.status, &body["error_code"]),
        (status, &json!(code)),
        "{answer:?}"
    );
    assert_eq!(body["error_msg"], body["message"], "{answer:?}");
    assert!(!body["message"].as_str().unwrap().is_empty(), "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json");
    assert!(answer.headers.contains_key("x-request-id"), "{answer:?}");
    // The scheme of another header than this dialect's.
    assert!(
        !answer.headers.contains_key("www-authenticate"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn case_17_foreign_projects_and_tenants_read_the_same_whether_they_exist() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    running
        .told([
            tenant("a", &["pa", "qa"]),
            tenant("b", &["pb"]),
            hosts("c4", &[]),
        ])
        .await;
    let rest = Rest::on(&running);
    let target = |project: &str, tenant: &str| format!("/v1.0/{project}/quota-sets/{tenant}");
    let names = ["a", "pa", "qa", "b", "pb", "nobody"];
    let of_a = ["a", "pa", "qa"];
    let of_b = ["b", "pb"];
    let within =
        |own: &[&str], project: &str, tenant: &str| own.contains(&project) && own.contains(&tenant);
    let refusal = rest
        .get(&target("pb", "b"), &token(Role::Viewer, &["a"], &[]))
        .await;
    for project in names {
        for tenant in names {
            let target = target(project, tenant);
            let expected = if [project, tenant].contains(&"nobody") {
                404
            } else {
                200
            };
            assert_eq!(rest.admin(&target).await.status, expected, "{target}");
            let callers = [
                (
                    token(Role::Viewer, &["a"], &[]),
                    within(&of_a, project, tenant),
                ),
                (
                    token(Role::TenantAdmin, &["a"], &[]),
                    within(&of_a, project, tenant),
                ),
                // Both are its own, and still one does not ask from the other's project (D5.3).
                (
                    token(Role::TenantAdmin, &["a", "b"], &[]),
                    within(&of_a, project, tenant) || within(&of_b, project, tenant),
                ),
                (
                    token(Role::Viewer, &[], &["pa"]),
                    within(&["pa"], project, tenant),
                ),
                (token(Role::Viewer, &[], &["nobody"]), false),
            ];
            for (at, (token, admitted)) in callers.iter().enumerate() {
                let answer = rest.get(&target, token).await;
                if *admitted {
                    assert_eq!(answer.status, 200, "{target} by caller {at}");
                } else {
                    expect_fault(&answer, 403);
                    assert_eq!(answer.said(), refusal.said(), "{target} by caller {at}");
                }
            }
        }
    }
    // Rights before validation before existence (D0.7).
    let twice = |project, tenant| target(project, tenant) + "?resource=a&resource=b";
    let viewer = token(Role::Viewer, &["a"], &[]);
    expect_fault(&rest.get(&twice("pa", "b"), &viewer).await, 403);
    expect_fault(&rest.get(&twice("pa", "a"), &viewer).await, 400);
    expect_fault(&rest.admin(&twice("nobody", "a")).await, 400);
    expect_fault(&rest.admin(&target("nobody", "a")).await, 404);
    running.end().await;
}

#[tokio::test]
async fn case_14_and_21_only_a_good_token_in_its_own_header_counts() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    let rest = Rest::on(&running);
    let good = token(Role::Admin, &[], &[]);
    let bearer = format!("Bearer {good}");
    let long = "x".repeat(8 * 1024);
    let wrong: [&[(&str, &str)]; 7] = [
        &[],
        &[("x-auth-token", "")],
        &[("x-auth-token", "wrong")],
        &[("x-auth-token", &long)],
        &[("x-auth-token", "Ж")],
        &[("x-auth-token", &good), ("x-auth-token", &good)],
        &[("authorization", &bearer), ("token", &good)],
    ];
    for headers in wrong {
        let answer = rest.told("GET", "/v1.0/a/quota-sets/a", headers).await;
        expect_fault(&answer, 401);
    }
    running.end().await;
}

#[tokio::test]
async fn case_28_and_32_hostile_paths_and_other_methods_have_the_dialects_shape() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    running.told([tenant("p", &[])]).await;
    let rest = Rest::on(&running);
    let long = "a".repeat(256);
    for name in [
        "%2e%2e",
        "..",
        "a%2Fb",
        "p%00",
        "%ff",
        "%2570",
        "p%20",
        "%E4%BA%91",
        &long,
    ] {
        for target in [
            format!("{name}/quota-sets/p"),
            format!("p/quota-sets/{name}"),
        ] {
            let answer = rest.admin(&format!("/v1.0/{target}")).await;
            expect_fault(&answer, 400);
        }
    }
    for path in [
        "/v1.0",
        "/v1.0/p",
        "/v1.0/p/quota-sets",
        "/v1.0/p/quota-sets/",
        "/v1.0/p/quota-sets/p/",
    ] {
        expect_fault(&rest.admin(path).await, 404);
    }
    let token = token(Role::Admin, &[], &[]);
    let headers = [("X-AUTH-TOKEN", token.as_str())];
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let answer = rest.told(method, "/v1.0/p/quota-sets/p", &headers).await;
        expect_fault(&answer, 405);
        assert_eq!(answer.headers["allow"], "GET, HEAD", "{method}");
    }
    let head = rest.told("HEAD", "/v1.0/p/quota-sets/%70", &headers).await;
    assert_eq!(head.status, 200);
    running.end().await;
}
