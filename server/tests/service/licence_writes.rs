//! Making and changing licence quotas (document 003): who may, which values are taken, what never changes.

use gpuquota_core::id::LicenceQuotaId;
use gpuquota_server::auth::Role;
use gpuquota_server::config::Dialects;
use serde_json::{Value, json};

use crate::directory::{licence, seats};
use crate::licence::{CREATED, END, Portal, QUOTAS};
use crate::rest::token;

const GOOD: &str = r#"{"tenant":2,"software_product":1,"max_licenses":4}"#;

impl Portal {
    async fn refused(&self, method: &str, target: &str, token: &str, body: &str) -> (u16, Value) {
        let before = self.running.seq();
        let (status, text) = self.ask(method, target, token, body).await;
        assert!(status >= 400, "{method} {target} {body}: {text}");
        assert_eq!(self.running.seq(), before, "nothing is written: {text}");
        (status, serde_json::from_str(&text).unwrap())
    }
}

fn may_write() -> Dialects {
    Dialects {
        tenant_admin_sets_licences: true,
        ..Dialects::default()
    }
}

#[tokio::test]
async fn case_19_who_may_write_what() {
    let admin = token(Role::Admin, &[], &[]);
    let own = token(Role::TenantAdmin, &["demo"], &[]);
    let foreign = token(Role::TenantAdmin, &["other"], &[]);
    let viewer = token(Role::Viewer, &["demo"], &[]);
    let for_tenant = |number: u32| GOOD.replace("\"tenant\":2", &format!("\"tenant\":{number}"));
    for (dialects, own_status) in [(Dialects::default(), 403), (may_write(), 201)] {
        let allowed = own_status == 201;
        let portal = Portal::open(dialects).await;
        portal.running.has([licence(2, 1, 1, None)]).await;
        let one = format!("{QUOTAS}1/");
        for caller in [&viewer, &foreign] {
            assert_eq!(portal.refused("POST", QUOTAS, caller, GOOD).await.0, 403);
        }
        let unknown = portal.refused("POST", QUOTAS, &own, &for_tenant(77)).await;
        let taken = portal.refused("POST", QUOTAS, &own, &for_tenant(5)).await;
        assert_eq!(unknown, taken, "whether a tenant exists is not told");
        assert_eq!(unknown.0, 403);
        let wrong_too = r#"{"tenant":5,"max_licenses":-1}"#;
        assert_eq!(portal.refused("POST", QUOTAS, &own, wrong_too).await, taken);
        assert_eq!(portal.refused("PATCH", &one, &viewer, "{}").await.0, 403);
        let missing = portal
            .refused("PATCH", &format!("{QUOTAS}7/"), &foreign, "{}")
            .await;
        assert_eq!(portal.refused("PATCH", &one, &foreign, "{}").await, missing);
        assert_eq!(portal.refused("GET", &one, &foreign, "").await, missing);
        assert_eq!(missing.0, 404);
        let raise = r#"{"max_licenses":9}"#;
        let posted = portal.ask("POST", QUOTAS, &own, GOOD).await.0;
        let patched = portal.ask("PATCH", &one, &own, raise).await.0;
        assert_eq!(posted, own_status);
        assert_eq!(patched, if allowed { 200 } else { 403 });
        assert_eq!(portal.ask("GET", &one, &own, "").await.0, 200);
        assert_eq!(portal.ask("POST", QUOTAS, &admin, GOOD).await.0, 201);
        assert_eq!(portal.ask("PATCH", &one, &admin, raise).await.0, 200);
        portal.running.end().await;
    }
}

#[tokio::test]
async fn case_20_nothing_that_is_only_read_can_be_written() {
    let portal = Portal::open(Dialects::default()).await;
    portal.running.has([licence(2, 1, 100, Some(END))]).await;
    portal.running.has(seats("demo", 1, 3)).await;
    let admin = token(Role::Admin, &[], &[]);
    let one = format!("{QUOTAS}1/");
    let before: Value = serde_json::from_str(&portal.get(&one).await.1).unwrap();
    portal.running.clock.set(CREATED + 60_000);
    for assigned in [
        json!({}),
        json!({"id": 9, "used_licenses": 0, "usage_rate": 0, "remaining_licenses": "x", "unknown": [1]}),
        json!({"created_at": "2020-01-01", "updated_at": null, "tenant": 2, "software_product": 1}),
        json!({"tenant_id": 5, "expired": true, "max_licenses": 100, "is_active": true}),
        json!({"expires_at": "2024-12-31T23:59:59Z"}),
    ] {
        let text = assigned.to_string();
        let (status, text) = portal.ask("PATCH", &one, &admin, &text).await;
        assert_eq!(status, 200, "{assigned} {text}");
        let patched: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(patched["data"], before["data"], "{assigned}");
        assert_eq!(patched["message"], "租户配额更新成功");
        let keys: Vec<&String> = patched.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["success", "data", "message"]);
    }
    for (field, body) in [
        ("tenant", r#"{"tenant":5,"max_licenses":7}"#),
        ("tenant", r#"{"tenant":null}"#),
        ("tenant", r#"{"tenant":"2"}"#),
        ("software_product", r#"{"software_product":9}"#),
        ("software_product", r#"{"software_product":{"id":1}}"#),
    ] {
        let (status, refused) = portal.refused("PATCH", &one, &admin, body).await;
        assert_eq!(status, 400, "{body}");
        assert!(refused["errors"][field][0].is_string(), "{refused}");
    }
    let body = r#"{"tenant":2,"software_product":1,"max_licenses":5,"id":99,"used_licenses":5,"created_at":"2020-01-01"}"#;
    let (status, text) = portal.ask("POST", QUOTAS, &admin, body).await;
    assert_eq!(status, 201);
    let made: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&made["data"]["id"], &made["data"]["used_licenses"]),
        (&json!(2), &json!(0))
    );
    portal.running.end().await;
}

#[tokio::test]
async fn case_26_values_that_are_not_taken_name_their_field_and_write_nothing() {
    let portal = Portal::open(Dialects::default()).await;
    portal.running.has([licence(2, 1, 100, None)]).await;
    let admin = token(Role::Admin, &[], &[]);
    let numbers = [
        "-1",
        "2147483648",
        "9223372036854775808",
        "1.0",
        "\"1\"",
        "true",
        "null",
        "[1]",
    ];
    for bad in numbers {
        for field in ["tenant", "software_product", "max_licenses"] {
            let good = json!({"tenant": 2, "software_product": 1, "max_licenses": 4});
            let good = good.as_object().unwrap().iter();
            let parts = good.map(|(name, value)| match name == field {
                true => format!("\"{name}\":{bad}"),
                false => format!("\"{name}\":{value}"),
            });
            let body = format!("{{{}}}", parts.collect::<Vec<_>>().join(","));
            let (status, refused) = portal.refused("POST", QUOTAS, &admin, &body).await;
            assert_eq!((status, &refused["code"]), (400, &json!(400)), "{body}");
            assert!(refused["errors"][field][0].is_string(), "{body} {refused}");
        }
        let body = format!("{{\"max_licenses\":{bad}}}");
        let (status, refused) = portal
            .refused("PATCH", &format!("{QUOTAS}1/"), &admin, &body)
            .await;
        assert_eq!(status, 400, "{body}");
        assert!(
            refused["errors"]["max_licenses"][0].is_string(),
            "{refused}"
        );
    }
    let with = |field: &str| GOOD.replace('}', &format!(",{field}}}"));
    for (field, body) in [
        ("tenant", GOOD.replace("\"tenant\":2", "\"tenant\":77")),
        ("tenant", GOOD.replace("\"tenant\":2", "\"tenant\":0")),
        (
            "software_product",
            GOOD.replace("product\":1", "product\":77"),
        ),
        ("tenant", "{}".into()),
        ("software_product", r#"{"tenant":2}"#.into()),
        (
            "max_licenses",
            r#"{"tenant":2,"software_product":1}"#.into(),
        ),
        ("is_active", with("\"is_active\":null")),
        ("is_active", with("\"is_active\":1")),
        ("is_active", with("\"is_active\":\"true\"")),
        (
            "expires_at",
            with("\"expires_at\":\"2026-01-02T15:04:05Z07:00\""),
        ),
        ("expires_at", with("\"expires_at\":\"\"")),
        ("expires_at", with("\"expires_at\":1735689599")),
    ] {
        let (status, refused) = portal.refused("POST", QUOTAS, &admin, &body).await;
        assert_eq!(status, 400, "{body}");
        let blamed: Vec<&String> = refused["errors"].as_object().unwrap().keys().collect();
        assert_eq!(blamed, [field], "{body} {refused}");
    }
    for body in [r#"{"is_active":null}"#, r#"{"expires_at":"soon"}"#] {
        let (status, _) = portal
            .refused("PATCH", &format!("{QUOTAS}1/"), &admin, body)
            .await;
        assert_eq!(status, 400, "{body}");
    }
    for body in ["[]", "{", "{\"tenant\":2,\"tenant\":2}", "x"] {
        let (status, refused) = portal.refused("POST", QUOTAS, &admin, body).await;
        assert_eq!((status, &refused["errors"]), (400, &json!({})), "{body}");
    }
    let (status, refused) = portal
        .refused("POST", QUOTAS, &admin, &" ".repeat(70_000))
        .await;
    assert_eq!((status, &refused["code"]), (413, &json!(413)));
    portal.running.end().await;
}

#[tokio::test]
async fn below_what_is_in_use_is_a_conflict_and_all_else_changes() {
    let portal = Portal::open(Dialects::default()).await;
    portal.running.has([licence(2, 1, 100, Some(END))]).await;
    portal.running.has(seats("demo", 1, 5)).await;
    let admin = token(Role::Admin, &[], &[]);
    let one = format!("{QUOTAS}1/");
    let (status, refused) = portal
        .refused("PATCH", &one, &admin, r#"{"max_licenses":4}"#)
        .await;
    assert_eq!((status, &refused["code"]), (409, &json!(409)));
    assert!(
        refused["errors"]["max_licenses"][0].is_string(),
        "{refused}"
    );
    portal.running.clock.set(CREATED + 1500);
    let (_, before) = portal.get(QUOTAS).await;
    assert!(before.contains(r#""max_licenses":100"#), "{before}");
    let body = r#"{"max_licenses":5,"expires_at":null,"is_active":false}"#;
    let (status, text) = portal.ask("PATCH", &one, &admin, body).await;
    assert_eq!(status, 200, "{text}");
    let row: Value = serde_json::from_str(&text).unwrap();
    let expected = json!({
        "id": 1,
        "tenant": {"id": 2, "name": "示例公司", "code": "DEMO_COMPANY"},
        "software_product": {"id": 1, "name": "MyApplication Pro", "code": "MYAPP_PRO"},
        "max_licenses": 5, "used_licenses": 5, "usage_rate": 100.0, "remaining_licenses": 0,
        "expires_at": null, "is_active": false,
        "created_at": "2024-01-15T10:30:00Z", "updated_at": "2024-01-15T10:30:01Z",
    });
    assert_eq!(row["data"].to_string(), expected.to_string());
    let (_, listed) = portal.get(QUOTAS).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        listed["data"]["results"],
        json!([expected]),
        "a list after a write shows it"
    );
    portal.running.end().await;
}

#[tokio::test]
async fn a_new_quota_that_ended_with_another_takes_none_of_its_use() {
    let portal = Portal::open(Dialects::default()).await;
    let end = CREATED + 1000;
    portal.running.has([licence(2, 1, 100, Some(end))]).await;
    portal.running.has(seats("demo", 1, 75)).await;
    portal.running.clock.set(end + 1000);
    let admin = token(Role::Admin, &[], &[]);
    let body = r#"{"tenant":2,"software_product":1,"max_licenses":200,"expires_at":"2024-01-15T10:30:01Z"}"#;
    let (status, made) = portal.ask("POST", QUOTAS, &admin, body).await;
    assert_eq!(status, 201, "{made}");
    let made: Value = serde_json::from_str(&made).unwrap();
    let figures =
        |row: &Value| [&row["used_licenses"], &row["remaining_licenses"]].map(Value::as_u64);
    assert_eq!(figures(&made["data"]), [Some(0), Some(200)]);
    let (_, listed) = portal.get(QUOTAS).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(figures(&listed["data"]["results"][0]), [Some(75), Some(25)]);
    portal.running.end().await;
}

#[tokio::test]
async fn case_39_a_repeated_creation_makes_one_quota_and_answers_alike() {
    let portal = Portal::open(Dialects::default()).await;
    let admin = token(Role::Admin, &[], &[]);
    let post = |body: &'static str| {
        let request = http::Request::post(QUOTAS)
            .header("authorization", format!("Bearer {admin}"))
            .header("idempotency-key", "once");
        async { crate::licence::read(portal.rest.send(request, body).await).await }
    };
    let first = post(GOOD).await;
    assert_eq!(first.0, 201);
    let changed = portal
        .ask(
            "PATCH",
            &format!("{QUOTAS}1/"),
            &admin,
            r#"{"max_licenses":9}"#,
        )
        .await;
    assert_eq!(changed.0, 200);
    assert_eq!(post(GOOD).await, first);
    assert_eq!(
        post(r#"{"tenant":2,"software_product":1,"max_licenses":5}"#)
            .await
            .0,
        409
    );
    let committed = portal.running.ledger.read();
    assert_eq!(committed.state.licence_quotas().count(), 1);
    let quota = committed.state.licence_quota(LicenceQuotaId(1)).unwrap();
    assert_eq!(quota.terms.max, 9);
    portal.running.end().await;
}
