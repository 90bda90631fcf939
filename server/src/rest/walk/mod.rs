//! A walk over the whole table of routes: none answers whom it must not answer, whatever is added to the table.

mod ground;

use http::Method;
use serde_json::{Value, json};

use super::credential::Carrier;
use super::routes::{Dialect, ROUTES, Route};
use crate::auth::{Access, Role};
use ground::{Ground, Seen, Whose, carried, path_of};

/// What anybody may read; nothing that it tells is anybody's.
const OPEN: &[&str] = &["/healthz", "/openapi.json", "/docs", "/docs/{file}"];
const CARRIERS: [Carrier; 3] = [Carrier::Bearer, Carrier::XAuthToken, Carrier::Token];

fn closed() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().filter(|route| route.access != Access::Open)
}

fn name(route: &Route) -> String {
    format!("{} {}", route.method, route.path)
}

// Fails unless this is a refusal with this HTTP status, in the dialect's own shape and whole.
#[track_caller]
fn expect_refused(route: &Route, status: u16, seen: &Seen) {
    let what = format!("{}: {seen:?}", name(route));
    let body: Value = serde_json::from_str(&seen.text).unwrap_or_else(|e| panic!("{e}: {what}"));
    let text = |value: &Value| assert!(value.as_str().is_some_and(|t| !t.is_empty()), "{what}");
    let keys: Vec<&str> = body
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(seen.headers["content-type"], "application/json", "{what}");
    assert!(seen.headers.contains_key("x-request-id"), "{what}");
    let http = match (route.dialect, status) {
        (Dialect::Instance, 401 | 403) => 200,
        _ => status,
    };
    assert_eq!(seen.status, http, "{what}");
    match route.dialect {
        Dialect::GpuQuota => {
            assert_eq!(keys, ["code", "message"], "{what}");
            let code = body["code"].as_u64().unwrap();
            assert_eq!(code / 100, u64::from(status), "{what}");
            text(&body["message"]);
        }
        Dialect::Workspace => {
            assert_eq!(keys, ["error_code", "error_msg"], "{what}");
            let code = body["error_code"].as_str().unwrap();
            assert!(code.starts_with("WKS.") && code.len() == 12, "{what}");
            assert!(code.ends_with(&status.to_string()), "{what}");
            text(&body["error_msg"]);
        }
        Dialect::Instance => {
            assert_eq!(keys, ["code", "msg", "data"], "{what}");
            let code = match status {
                401 => "10008",
                403 => "10009",
                _ => "10004",
            };
            assert_eq!(
                (&body["code"], &body["data"]),
                (&json!(code), &Value::Null),
                "{what}"
            );
            text(&body["msg"]);
        }
        Dialect::Licence => {
            assert_eq!(keys, ["success", "code", "message", "errors"], "{what}");
            assert_eq!(
                (&body["success"], &body["code"]),
                (&json!(false), &json!(status)),
                "{what}"
            );
            assert!(body["errors"].is_object(), "{what}");
            text(&body["message"]);
        }
        Dialect::QuotaSet => {
            assert_eq!(keys, ["error_code", "error_msg", "message"], "{what}");
            assert_eq!(body["error_code"], format!("DEH.0{status}"), "{what}");
            text(&body["error_msg"]);
            text(&body["message"]);
        }
        Dialect::Native => {
            assert_eq!(keys, ["error"], "{what}");
            text(&body["error"]["kind"]);
            text(&body["error"]["message"]);
        }
    }
}

#[test]
fn what_is_open_to_anybody_is_named_here() {
    let open: Vec<&str> = ROUTES
        .iter()
        .filter(|route| route.access == Access::Open)
        .map(|route| route.path)
        .collect();
    let unnamed: Vec<_> = open.iter().filter(|path| !OPEN.contains(path)).collect();
    assert!(unnamed.is_empty(), "open to anybody: {unnamed:?}");
    assert_eq!(open.len(), OPEN.len(), "{open:?}");
}

#[test]
fn what_writes_asks_for_a_role_and_licence_quotas_always_do() {
    for route in closed() {
        let writes = route.method != Method::GET;
        let managed = route.dialect == Dialect::Licence || route.path.starts_with("/api/v1/seats");
        let leased = route.path.starts_with("/api/v1/leases");
        let enough: &[Access] = match (managed || (leased && writes), writes) {
            // "Super administrator or tenant administrator", says the document; seats and leases follow it.
            (true, _) => &[Access::Manager, Access::Admin],
            (false, true) => &[Access::Admin],
            (false, false) => &[Access::Signed, Access::Manager, Access::Admin],
        };
        assert!(enough.contains(&route.access), "{}", name(route));
    }
}

#[tokio::test]
async fn case_14_16_22_no_route_answers_without_a_token_that_counts() {
    let ground = Ground::new().await;
    let admin = ground.token(Role::Admin, "admin");
    let revoked = ground.token(Role::Admin, "revoked");
    let headers = [carried(Carrier::Bearer, &admin)];
    let body = json!({"token": revoked}).to_string();
    let path = "/api/v1/tokens/revoke";
    assert_eq!(ground.send("POST", path, &headers, &body).await.status, 200);
    let before = ground.seq();
    let long = format!("{admin}{}", "x".repeat(8 * 1024));
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", admin.split('.').nth(1).unwrap());
    let cut = &admin[..admin.len() - 1];
    let wrong = [
        "",
        " ",
        "wrong",
        "a.b.c",
        cut,
        &long,
        &unsigned,
        &ground.ended(),
        &revoked,
    ];
    for route in closed() {
        let seen = ground.about(route, Whose::Own, &[]).await;
        expect_refused(route, 401, &seen);
        for token in wrong {
            let seen = ground.call(route, Whose::Own, token).await;
            expect_refused(route, 401, &seen);
            assert!(
                token.len() < 8 || !seen.text.contains(token),
                "{}",
                name(route)
            );
        }
    }
    assert_eq!(ground.seq(), before);
    ground.close().await;
}

#[tokio::test]
async fn case_21_no_route_reads_the_header_of_another_dialect() {
    let ground = Ground::new().await;
    let admin = ground.token(Role::Admin, "admin");
    let before = ground.seq();
    for route in closed() {
        let own = route.dialect.carrier();
        let others = || CARRIERS.into_iter().filter(move |carrier| *carrier != own);
        for carrier in others() {
            let headers = [carried(carrier, &admin)];
            let seen = ground.about(route, Whose::Own, &headers).await;
            expect_refused(route, 401, &seen);
            // And its own decides when both are there.
            let headers = [carried(carrier, &admin), carried(own, "wrong")];
            let seen = ground.about(route, Whose::Own, &headers).await;
            expect_refused(route, 401, &seen);
        }
        let twice = [carried(own, &admin), carried(own, &admin)];
        let seen = ground.about(route, Whose::Own, &twice).await;
        expect_refused(route, 401, &seen);
    }
    assert_eq!(ground.seq(), before);
    ground.close().await;
}

#[tokio::test]
async fn case_19_no_route_answers_a_role_that_is_too_small() {
    let ground = Ground::new().await;
    let before = ground.seq();
    for route in closed() {
        let small: &[Role] = match route.access {
            Access::Open | Access::Signed => &[],
            Access::Manager => &[Role::Viewer],
            Access::Admin => &[Role::TenantAdmin, Role::Viewer],
        };
        for role in small {
            let token = ground.token(*role, "small");
            let own = ground.call(route, Whose::Own, &token).await;
            expect_refused(route, 403, &own);
            for whose in [Whose::Other, Whose::Nobodys] {
                let seen = ground.call(route, whose, &token).await;
                assert_eq!(
                    (seen.status, &seen.text),
                    (own.status, &own.text),
                    "{}",
                    name(route)
                );
            }
        }
    }
    assert_eq!(ground.seq(), before);
    ground.close().await;
}

#[tokio::test]
async fn case_17_what_is_anothers_answers_like_what_is_not_there() {
    let ground = Ground::new().await;
    let before = ground.seq();
    let mut lists = Vec::new();
    for route in closed().filter(|route| route.access != Access::Admin) {
        let role = match route.access {
            Access::Manager => Role::TenantAdmin,
            _ => Role::Viewer,
        };
        let token = ground.token(role, "own");
        let other = ground.call(route, Whose::Other, &token).await;
        let nobodys = ground.call(route, Whose::Nobodys, &token).await;
        let (a, b) = ((other.status, &other.text), (nobodys.status, &nobodys.text));
        assert_eq!(a, b, "{}", name(route));
        if route.method == Method::GET && !route.path.contains('{') {
            assert_eq!(other.status, 200, "{}: {other:?}", name(route));
            assert!(!other.text.contains("other"), "{}: {other:?}", name(route));
            lists.push(route);
        } else {
            assert!(
                [403, 404].contains(&other.status),
                "{}: {other:?}",
                name(route)
            );
            expect_refused(route, other.status, &other);
        }
    }
    assert_eq!(ground.seq(), before);
    // Their admin does see it in these, so that it could have been seen.
    let admin = ground.token(Role::Admin, "admin");
    for path in [
        "/api/v1/quota/user-quotas",
        "/api/v1/licenses/admin/quotas/",
        "/api/v1/tenants",
        "/api/v1/seats",
        "/api/v1/leases",
    ] {
        let route = lists.iter().find(|route| route.path == path).unwrap();
        let seen = ground.call(route, Whose::Own, &admin).await;
        assert!(seen.text.contains("other"), "{seen:?}");
    }
    ground.close().await;
}

#[tokio::test]
async fn every_route_serves_its_admin() {
    let ground = Ground::new().await;
    let admin = ground.token(Role::Admin, "admin");
    let (deletions, others): (Vec<&Route>, Vec<&Route>) = ROUTES
        .iter()
        .partition(|route| route.method == Method::DELETE);
    for route in others.into_iter().chain(deletions) {
        let headers = [carried(route.dialect.carrier(), &admin)];
        let seen = ground.about(route, Whose::Own, &headers).await;
        let served = [200, 201].contains(&seen.status);
        // What it deletes may be in use, or gone with something else; what it revokes is no token.
        let denied = match route.path {
            "/api/v1/tokens/revoke" => seen.status == 400,
            _ => route.method == Method::DELETE && [404, 409].contains(&seen.status),
        };
        assert!(served || denied, "{}: {seen:?}", name(route));
        if route.dialect == Dialect::Instance {
            assert!(seen.text.starts_with(r#"{"code":"0","#), "{seen:?}");
        }
    }
    ground.close().await;
}

#[tokio::test]
async fn case_32_other_methods_are_405_and_head_is_a_get_without_its_body() {
    let ground = Ground::new().await;
    let admin = ground.token(Role::Admin, "admin");
    let before = ground.seq();
    for route in ROUTES {
        let path = path_of(route, Whose::Own);
        let of_path = |method: &str| {
            let mut same = ROUTES.iter().filter(|other| other.path == route.path);
            same.any(|other| other.method == method)
        };
        let headers = [carried(route.dialect.carrier(), &admin)];
        for method in [
            "GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW",
        ] {
            if of_path(method) {
                continue;
            }
            let seen = ground.send(method, &path, &headers, "{}").await;
            expect_refused(route, 405, &seen);
            let allow = seen.headers["allow"].to_str().unwrap();
            let allowed: Vec<&str> = allow.split(", ").collect();
            assert!(
                allowed.iter().all(|one| of_path(one) || *one == "HEAD"),
                "{allow}"
            );
            assert!(allowed.contains(&route.method.as_str()), "{allow}");
            assert_eq!(allowed.contains(&"HEAD"), of_path("GET"), "{allow}");
        }
        let head = ground.send("HEAD", &path, &headers, "").await;
        if of_path("GET") {
            let get = ground.send("GET", &path, &headers, "").await;
            assert_eq!(head.status, get.status, "{}", name(route));
            assert_eq!(head.headers["content-type"], get.headers["content-type"]);
        } else {
            assert_eq!(head.status, 405, "{}", name(route));
        }
    }
    assert_eq!(ground.seq(), before);
    ground.close().await;
}
