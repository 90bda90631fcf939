//! What the workspace dialect refuses, and how: foreign projects, wrong tokens, hostile paths, other methods.

use gpuquota_core::limit::Limit;
use gpuquota_server::auth::Role;
use serde_json::json;

use crate::declared::{counter, tenant};
use crate::rest::{Rest, Told, token};
use crate::running::{Running, START, SetClock};

#[track_caller]
fn expect_fault(answer: &Told, status: u16, detail: u16) {
    let body = answer.json();
    let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["error_code", "error_msg"], "{answer:?}");
    let code = format!("WKS.{detail:05}{status:03}");
    assert_eq!(
        (answer.status, &body["error_code"]),
        (status, &json!(code)),
        "{answer:?}"
    );
    assert!(
        !body["error_msg"].as_str().unwrap().is_empty(),
        "{answer:?}"
    );
    assert_eq!(answer.headers["content-type"], "application/json");
    assert!(answer.headers.contains_key("x-request-id"), "{answer:?}");
    // The scheme of another header than this dialect's.
    assert!(
        !answer.headers.contains_key("www-authenticate"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn case_17_a_foreign_project_reads_the_same_whether_it_exists() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    running
        .told([
            tenant("a", &["pa"]),
            tenant("b", &["pb"]),
            counter("pb", None, "users", Some(Limit::Finite(1)), None),
        ])
        .await;
    let rest = Rest::on(&running);
    let target = |project: &str| format!("/v2/{project}/quotas");
    for project in ["a", "b", "pa", "pb"] {
        assert_eq!(rest.admin(&target(project)).await.status, 200, "{project}");
    }
    expect_fault(&rest.admin(&target("nobody")).await, 404, 2);
    let callers: [(String, &[&str]); 5] = [
        (token(Role::Viewer, &["a"], &[]), &["a", "pa"]),
        (token(Role::TenantAdmin, &["a"], &[]), &["a", "pa"]),
        (token(Role::Viewer, &[], &["pa"]), &["pa"]),
        (token(Role::Viewer, &[], &["nobody"]), &[]),
        (token(Role::TenantAdmin, &[], &[]), &[]),
    ];
    let refusal = rest.get(&target("pb"), &callers[0].0).await;
    for (token, seen) in &callers {
        for project in ["a", "b", "pa", "pb", "nobody"] {
            let answer = rest.get(&target(project), token).await;
            if seen.contains(&project) {
                assert_eq!(answer.status, 200, "{project}: {answer:?}");
            } else {
                expect_fault(&answer, 403, 1);
                assert_eq!(answer.said(), refusal.said(), "{project}");
            }
        }
    }
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
    let wrong: [(&[(&str, &str)], u16); 8] = [
        (&[], 1),
        (&[("x-auth-token", "")], 1),
        (&[("x-auth-token", "wrong")], 2),
        (&[("x-auth-token", &long)], 2),
        (&[("x-auth-token", "Ж")], 1),
        (&[("x-auth-token", &good), ("x-auth-token", &good)], 2),
        (&[("authorization", &bearer), ("token", &good)], 1),
        (&[("x-auth-token", &bearer)], 2),
    ];
    for (headers, detail) in wrong {
        let answer = rest.told("GET", "/v2/p/quotas", headers).await;
        expect_fault(&answer, 401, detail);
    }
    // Without end from one address they are answered no more.
    let mut answer = rest.told("GET", "/v2/p/quotas", &[]).await;
    for _ in 0..200 {
        if answer.status != 401 {
            break;
        }
        answer = rest.told("GET", "/v2/p/quotas", &[]).await;
    }
    expect_fault(&answer, 429, 1);
    assert_eq!(answer.headers["retry-after"], "1");
    running.end().await;
}

#[tokio::test]
async fn case_28_and_32_hostile_paths_and_other_methods_have_the_dialects_shape() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    running.told([tenant("p", &[])]).await;
    let rest = Rest::on(&running);
    for project in [
        "",
        "%2e%2e",
        "..",
        ".",
        "a%2Fb",
        "p%00",
        "%ff",
        "%2570",
        "p%20",
        "%E4%BA%91",
        &"a".repeat(256),
    ] {
        let answer = rest.admin(&format!("/v2/{project}/quotas")).await;
        expect_fault(&answer, 400, 5);
    }
    for path in [
        "/v2",
        "/v2/",
        "/v2/p",
        "/v2/p/quotas/",
        "/v2/p/quotas/detail",
        "/v2/p//quotas",
    ] {
        expect_fault(&rest.admin(path).await, 404, 1);
    }
    expect_fault(
        &rest.admin(&format!("/v2/{}/quotas", "a".repeat(255))).await,
        404,
        2,
    );
    let plain = rest.admin("/v2/p/quotas").await;
    for same in ["/v2/%70/quotas", "/v2/p/quotas?limit=1&limit=2&%ff=%ff"] {
        assert_eq!(rest.admin(same).await.said(), plain.said(), "{same}");
    }
    let token = token(Role::Admin, &[], &[]);
    let headers = [
        ("X-AUTH-TOKEN", token.as_str()),
        ("content-type", "text/plain"),
    ];
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let answer = rest.told(method, "/v2/p/quotas", &headers).await;
        expect_fault(&answer, 405, 1);
        assert_eq!(answer.headers["allow"], "GET, HEAD", "{method}");
    }
    assert_eq!(
        rest.told("HEAD", "/v2/p/quotas", &headers).await.status,
        200
    );
    running.end().await;
}
