//! Reading licence quotas (document 003): the examples byte for byte, rights, error shapes, hosts.

use axum::body::to_bytes;
use axum::response::Response;
use gpuquota_core::id::Timestamp;
use gpuquota_server::auth::Role;
use gpuquota_server::config::Dialects;
use gpuquota_server::rest::Endpoint;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::directory::{demo_company, licence, product, seats, tenant};
use crate::rest::{Rest, token};
use crate::running::{Running, SetClock};

pub(crate) const QUOTAS: &str = "/api/v1/licenses/admin/quotas/";

// 2024-01-15T10:30:00Z, 2024-01-20T14:25:00Z and 2024-12-31T23:59:59Z.
pub(crate) const CREATED: i64 = 1_705_314_600_000;
pub(crate) const UPDATED: i64 = 1_705_760_700_000;
pub(crate) const END: i64 = 1_735_689_599_000;

/// A ledger with the example's tenant and product, and somebody else.
pub(crate) struct Portal {
    pub(crate) running: Running,
    pub(crate) rest: Rest,
    _dir: TempDir,
}

impl Portal {
    pub(crate) async fn open(dialects: Dialects) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::on(dir.path(), SetClock::new(CREATED)).await;
        let products = [
            product(1, "MyApplication Pro", "MYAPP_PRO"),
            product(9, "Other", "OTHER"),
        ];
        running.has([demo_company(), tenant("other", 5)]).await;
        running.has(products).await;
        let rest = Rest::with(&running, dialects);
        Self {
            running,
            rest,
            _dir: dir,
        }
    }

    pub(crate) async fn ask(
        &self,
        method: &str,
        target: &str,
        token: &str,
        body: &str,
    ) -> (u16, String) {
        let request = http::Request::builder()
            .method(method)
            .uri(target)
            .header("host", "localhost:8080")
            .header("authorization", format!("Bearer {token}"))
            .extension(listener());
        read(self.rest.send(request, body).await).await
    }

    pub(crate) async fn get(&self, target: &str) -> (u16, String) {
        self.ask("GET", target, &token(Role::Admin, &[], &[]), "")
            .await
    }
}

pub(crate) fn listener() -> Endpoint {
    let address = "127.0.0.1:8080".parse().unwrap();
    Endpoint {
        bound: address,
        local: address,
    }
}

pub(crate) async fn read(answer: Response) -> (u16, String) {
    assert_eq!(answer.headers()["content-type"], "application/json");
    let status = answer.status().as_u16();
    let bytes = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

/// A document's example without its blanks; the order of its keys stays.
pub(crate) fn compact(example: &str) -> String {
    serde_json::from_str::<Value>(example).unwrap().to_string()
}

#[tokio::test]
async fn the_documents_list_and_row_are_answered_byte_for_byte() {
    let portal = Portal::open(Dialects::default()).await;
    portal.running.has([licence(2, 1, 50, None)]).await;
    portal.running.clock.set(UPDATED);
    let change = json!({"max_licenses": 100, "expires_at": "2024-12-31T23:59:59Z"}).to_string();
    let admin = token(Role::Admin, &[], &[]);
    let (status, patched) = portal
        .ask("PATCH", &format!("{QUOTAS}1/"), &admin, &change)
        .await;
    assert_eq!(status, 200, "{patched}");
    portal.running.has(seats("demo", 1, 75)).await;
    let row = compact(
        r#"{
                "id": 1,
                "tenant": {
                    "id": 2,
                    "name": "示例公司",
                    "code": "DEMO_COMPANY"
                },
                "software_product": {
                    "id": 1,
                    "name": "MyApplication Pro",
                    "code": "MYAPP_PRO"
                },
                "max_licenses": 100,
                "used_licenses": 75,
                "usage_rate": 75.0,
                "remaining_licenses": 25,
                "expires_at": "2024-12-31T23:59:59Z",
                "is_active": true,
                "created_at": "2024-01-15T10:30:00Z",
                "updated_at": "2024-01-20T14:25:00Z"
            }"#,
    );
    let expected = format!(
        r#"{{"success":true,"data":{{"count":1,"next":null,"previous":null,"results":[{row}]}}}}"#
    );
    for path in [QUOTAS, QUOTAS.trim_end_matches('/')] {
        assert_eq!(portal.get(path).await, (200, expected.clone()), "{path}");
    }
    let expected = format!(r#"{{"success":true,"data":{row}}}"#);
    for path in [format!("{QUOTAS}1/"), format!("{QUOTAS}1")] {
        assert_eq!(portal.get(&path).await, (200, expected.clone()), "{path}");
    }
    portal.running.end().await;
}

#[tokio::test]
async fn the_documents_creation_is_answered_byte_for_byte_and_null_without_expiry() {
    let portal = Portal::open(Dialects::default()).await;
    let fill = [licence(2, 1, 100, Some(END)), licence(5, 9, 1, None)];
    portal.running.has(fill).await;
    portal.running.has(vec![licence(5, 9, 0, None); 12]).await;
    portal.running.has(seats("demo", 1, 75)).await;
    let body = r#"{
    "tenant": 2,
    "software_product": 1,
    "max_licenses": 200,
    "expires_at": "2024-12-31T23:59:59Z"
}"#;
    let expected = compact(
        r#"{
    "success": true,
    "data": {
        "id": 15,
        "tenant": {
            "id": 2,
            "name": "示例公司"
        },
        "software_product": {
            "id": 1,
            "name": "MyApplication Pro"
        },
        "max_licenses": 200,
        "used_licenses": 0,
        "usage_rate": 0.0,
        "remaining_licenses": 200,
        "expires_at": "2024-12-31T23:59:59Z",
        "is_active": true
    },
    "message": "租户配额创建成功"
}"#,
    );
    let admin = token(Role::Admin, &[], &[]);
    let answer = portal.ask("POST", QUOTAS, &admin, body).await;
    assert_eq!(answer, (201, expected));
    let body = r#"{"tenant":2,"software_product":1,"max_licenses":0,"is_active":false}"#;
    let (status, text) = portal
        .ask("POST", QUOTAS.trim_end_matches('/'), &admin, body)
        .await;
    assert_eq!(status, 201, "{text}");
    let end = r#""max_licenses":0,"used_licenses":0,"usage_rate":0.0,"remaining_licenses":0,"expires_at":null,"is_active":false},"message":"租户配额创建成功"}"#;
    assert!(text.ends_with(end), "{text}");
    portal.running.end().await;
}

#[tokio::test]
async fn statistics_follow_from_the_rows_and_the_clock() {
    let portal = Portal::open(Dialects::default()).await;
    let quotas = [
        licence(2, 1, 100, Some(END)),
        licence(2, 9, 3, None),
        licence(5, 1, 10, Some(CREATED - 1)),
        licence(5, 9, 0, None),
    ];
    portal.running.has(quotas).await;
    portal.running.has(seats("demo", 1, 95)).await;
    portal.running.has(seats("demo", 9, 1)).await;
    let path = format!("{QUOTAS}usage_statistics/");
    let expected = |active: u32, expired: u32| {
        compact(&format!(
            r#"{{
    "success": true,
    "data": {{
        "total_quotas": 4,
        "active_quotas": {active},
        "expired_quotas": {expired},
        "usage_overview": {{"total_allocated": 113, "total_used": 96, "overall_usage_rate": 84.96}},
        "by_tenant": [
            {{"tenant_id": 2, "tenant_name": "示例公司", "total_quota": 103, "total_used": 96, "usage_rate": 93.2, "products_count": 2}},
            {{"tenant_id": 5, "tenant_name": "other", "total_quota": 10, "total_used": 0, "usage_rate": 0.0, "products_count": 2}}
        ],
        "high_usage_quotas": [
            {{"id": 1, "tenant_name": "示例公司", "product_name": "MyApplication Pro", "usage_rate": 95.0, "remaining_licenses": 5}}
        ]
    }}
}}"#
        ))
    };
    assert_eq!(portal.get(&path).await, (200, expected(3, 1)));
    assert_eq!(portal.get(path.trim_end_matches('/')).await.0, 200);
    portal.running.clock.set(END - 1);
    assert_eq!(portal.get(&path).await, (200, expected(3, 1)));
    portal.running.clock.set(END);
    assert_eq!(
        portal.get(&path).await,
        (200, expected(2, 2)),
        "it ends by the clock, before anything is recorded"
    );
    let own = token(Role::TenantAdmin, &["other"], &[]);
    let (_, text) = portal.ask("GET", &path, &own, "").await;
    let seen: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(seen["data"]["total_quotas"], 2, "{text}");
    assert_eq!(seen["data"]["by_tenant"][0]["tenant_id"], 5);
    assert_eq!(seen["data"]["high_usage_quotas"], json!([]));
    assert_eq!(seen["data"]["usage_overview"]["overall_usage_rate"], 0.0);
    let none = token(Role::TenantAdmin, &[], &[]);
    let (_, text) = portal.ask("GET", &path, &none, "").await;
    let nothing = r#"{"success":true,"data":{"total_quotas":0,"active_quotas":0,"expired_quotas":0,"usage_overview":{"total_allocated":0,"total_used":0,"overall_usage_rate":0.0},"by_tenant":[],"high_usage_quotas":[]}}"#;
    assert_eq!(text, nothing);
    portal.running.end().await;
}

#[tokio::test]
async fn errors_have_the_dialects_shape_and_only_its_own_header_opens_it() {
    let portal = Portal::open(Dialects::default()).await;
    let admin = token(Role::Admin, &[], &[]);
    for (method, target, token_shown, status) in [
        ("GET", QUOTAS.to_owned(), "nonsense".to_owned(), 401),
        (
            "GET",
            QUOTAS.to_owned(),
            token(Role::Viewer, &["demo"], &[]),
            403,
        ),
        (
            "POST",
            QUOTAS.to_owned(),
            token(Role::Viewer, &["demo"], &[]),
            403,
        ),
        (
            "GET",
            format!("{QUOTAS}usage_statistics/"),
            token(Role::Viewer, &[], &[]),
            403,
        ),
        ("GET", format!("{QUOTAS}77/"), admin.clone(), 404),
        ("GET", format!("{QUOTAS}0/"), admin.clone(), 404),
        ("GET", format!("{QUOTAS}x/"), admin.clone(), 404),
        (
            "GET",
            format!("{QUOTAS}99999999999999999999/"),
            admin.clone(),
            404,
        ),
        ("GET", format!("{QUOTAS}1/2/"), admin.clone(), 404),
        ("PUT", format!("{QUOTAS}1/"), admin.clone(), 405),
        ("DELETE", format!("{QUOTAS}1/"), admin.clone(), 405),
        ("PATCH", QUOTAS.to_owned(), admin.clone(), 405),
        ("POST", QUOTAS.to_owned(), admin.clone(), 400),
    ] {
        let (given, text) = portal.ask(method, &target, &token_shown, "").await;
        assert_eq!(given, status, "{method} {target} {text}");
        let body: Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["success", "code", "message", "errors"], "{text}");
        assert_eq!(
            (&body["success"], &body["code"]),
            (&json!(false), &json!(status))
        );
        assert!(body["errors"].is_object() && !body["message"].as_str().unwrap().is_empty());
    }
    for header in ["token", "x-auth-token"] {
        let request = http::Request::get(QUOTAS).header(header, &admin);
        assert_eq!(read(portal.rest.send(request, "").await).await.0, 401);
    }
    portal.running.end().await;
}

#[tokio::test]
async fn case_30_links_lead_where_the_caller_is_or_to_the_public_address() {
    let public = Dialects {
        public_url: Some("https://quota.example".into()),
        ..Dialects::default()
    };
    for (dialects, base) in [
        (Dialects::default(), "http://localhost:8080"),
        (public, "https://quota.example"),
    ] {
        let portal = Portal::open(dialects).await;
        portal.running.has(vec![licence(2, 1, 1, None); 3]).await;
        let (_, text) = portal
            .get(&format!("{QUOTAS}?tenant=2&page=2&x=%22&page_size=1"))
            .await;
        let body: Value = serde_json::from_str(&text).unwrap();
        let link = |page: u32| format!("{base}{QUOTAS}?tenant=2&page={page}&x=%22&page_size=1");
        assert_eq!(body["data"]["next"], link(3));
        assert_eq!(body["data"]["previous"], link(1));
        let bare = QUOTAS.trim_end_matches('/');
        let (_, text) = portal.get(&format!("{bare}?page_size=1")).await;
        let body: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            body["data"]["next"],
            format!("{base}{bare}?page_size=1&page=2")
        );
        for host in ["evil.example", "localhost", "localhost:8080.evil.example"] {
            let request = http::Request::get(QUOTAS)
                .header(
                    "authorization",
                    format!("Bearer {}", token(Role::Admin, &[], &[])),
                )
                .header("host", host)
                .header("x-forwarded-host", "localhost:8080")
                .extension(listener());
            let (status, text) = read(portal.rest.send(request, "").await).await;
            assert_eq!(status, 400, "{host}");
            assert!(!text.contains(host), "{text}");
        }
        portal.running.end().await;
    }
}

#[tokio::test]
async fn sub_seconds_are_not_shown_and_the_past_is_taken() {
    let portal = Portal::open(Dialects::default()).await;
    let admin = token(Role::Admin, &[], &[]);
    for (sent, shown) in [
        (json!("2020-02-29"), json!("2020-02-29T00:00:00Z")),
        (
            json!("2030-01-01T07:59:59.9+08:00"),
            json!("2029-12-31T23:59:59Z"),
        ),
        (Value::Null, Value::Null),
    ] {
        let body =
            json!({"tenant": 2, "software_product": 1, "max_licenses": 4, "expires_at": sent});
        let (status, text) = portal.ask("POST", QUOTAS, &admin, &body.to_string()).await;
        assert_eq!(status, 201, "{text}");
        let made: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(made["data"]["expires_at"], shown);
    }
    let committed = portal.running.ledger.read();
    let first = committed.state.licence_quotas().next().unwrap();
    assert_eq!(first.terms.expires_at, Some(Timestamp(1_582_934_400_000)));
    assert_eq!(first.grants(), 0);
    portal.running.end().await;
}
