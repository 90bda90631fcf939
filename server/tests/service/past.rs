//! The past: reads as of a row or a time, and who did what.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gpuquota_core::id::Seq;
use gpuquota_server::auth::Role;
use gpuquota_server::config::Dialects;
use gpuquota_server::service::Origin;
use gpuquota_server::service::history::Moment;
use gpuquota_server::store::sqlite::SqliteStore;
use serde_json::{Value, json};

use crate::journals::directory;
use crate::licence::{Portal, read};
use crate::rest::token;
use crate::running::{Running, START, SetClock, set};

const TENANT: &str = "/api/v1/tenants/demo";

impl Portal {
    async fn json(&self, target: &str) -> (u16, Value) {
        let (status, text) = self.get(target).await;
        (status, serde_json::from_str(&text).unwrap())
    }

    async fn put_because(&self, name: &str, reason: &str) -> u16 {
        let request = http::Request::builder()
            .method("PUT")
            .uri(TENANT)
            .header(
                "authorization",
                format!("Bearer {}", token(Role::Admin, &[], &[])),
            )
            .header("x-audit-reason", reason);
        let body = json!({ "name": name }).to_string();
        read(self.rest.send(request, &body).await).await.0
    }
}

#[tokio::test]
async fn a_read_as_of_a_row_or_a_time_is_what_it_was_then() {
    let portal = Portal::open(Dialects::default()).await;
    assert_eq!(portal.put_because("first", "ticket 1").await, 200);
    let first = portal.running.seq();
    portal.running.clock.set(START + 30_000);
    assert_eq!(portal.put_because("second", "ticket 2").await, 200);
    let name = async |target: String| portal.json(&target).await.1["name"].clone();
    assert_eq!(name(TENANT.into()).await, "second");
    assert_eq!(name(format!("{TENANT}?as_of={first}")).await, "first");
    assert_eq!(
        name(format!("{TENANT}?as_of={}", first + 1)).await,
        "second"
    );
    assert_eq!(
        name(format!("{TENANT}?as_of=2027-01-15T08:00:29Z")).await,
        "first"
    );
    assert_eq!(
        name(format!("{TENANT}?as_of=2027-01-15T08:00:30Z")).await,
        "second"
    );
    // Asked again, it begins from what was folded, and goes back as well.
    assert_eq!(name(format!("{TENANT}?as_of={first}")).await, "first");
    assert_eq!(portal.get(&format!("{TENANT}?as_of=0")).await.0, 404);
    for (wrong, why) in [
        ("99", "ends at row"),
        ("-1", "must be"),
        ("soon", "must be"),
        ("%2B1", "must be"),
        ("2027-01-15T08:00:31Z", "not come yet"),
    ] {
        let (status, text) = portal.get(&format!("{TENANT}?as_of={wrong}")).await;
        assert_eq!(status, 400, "{wrong}: {text}");
        assert!(text.contains(why), "{wrong}: {text}");
    }
    // Where it would change nothing it is not passed over.
    for target in ["/api/v1/usage", "/api/v1/audit"] {
        let (status, text) = portal.get(&format!("{target}?as_of=0")).await;
        assert_eq!(status, 400, "{target}: {text}");
    }
    portal.running.end().await;
}

#[tokio::test]
async fn quotas_are_listed_as_the_ledger_counts_them_now_and_then() {
    let portal = Portal::open(Dialects::default()).await;
    let first = portal.running.seq();
    for (tenant, limit) in [("a", 4), ("b", 2), ("a", 8)] {
        let set = set(tenant, limit);
        let done = portal.running.ledger.submit(set, Origin::server()).await;
        done.unwrap();
    }
    let listed = async |target: &str, bearer: &str| {
        let (status, text) = portal.ask("GET", target, bearer, "").await;
        assert_eq!(status, 200, "{text}");
        let list: Value = serde_json::from_str(&text).unwrap();
        let quotas = list["quotas"].as_array().unwrap().clone();
        let short = quotas.iter().map(|quota| {
            assert_eq!(
                (&quota["used"], &quota["expired"]),
                (&json!(0), &json!(false))
            );
            (quota["tenant"].clone(), quota["limit"].clone())
        });
        (short.collect::<Vec<_>>(), list["next"].clone())
    };
    let path = "/api/v1/entitlements";
    let admin = token(Role::Admin, &[], &[]);
    let (a, b) = ((json!("a"), json!(8)), (json!("b"), json!(2)));
    let all = listed(path, &admin).await;
    assert_eq!(all, (vec![a.clone(), b.clone()], Value::Null));
    let (page, next) = listed(&format!("{path}?limit=1"), &admin).await;
    assert_eq!(page, std::slice::from_ref(&a));
    let rest = format!("{path}?limit=1&after={next}");
    assert_eq!(listed(&rest, &admin).await, (vec![b.clone()], Value::Null));
    let of_b = token(Role::Viewer, &["b"], &[]);
    assert_eq!(listed(path, &of_b).await.0, std::slice::from_ref(&b));
    let of_a = format!("{path}?tenant=a");
    assert_eq!(listed(&of_a, &of_b).await.0, []);
    let then = format!("{path}?as_of={}", first + 1);
    assert_eq!(listed(&then, &admin).await.0, [(json!("a"), json!(4))]);
    let (status, _) = portal.get(&format!("{path}?limit=0")).await;
    assert_eq!(status, 400);
    portal.running.end().await;
}

#[tokio::test]
async fn the_audit_tells_who_changed_what_and_why_and_who_was_denied() {
    let portal = Portal::open(Dialects::default()).await;
    assert_eq!(portal.put_because("first", "ticket ä").await, 200);
    let before = portal.running.seq();
    let viewer = token(Role::Viewer, &["demo"], &[]);
    for _ in 0..3 {
        assert_eq!(portal.ask("PUT", TENANT, &viewer, "{}").await.0, 403);
    }
    assert_eq!(portal.running.seq(), before, "a denial is no row");
    assert_eq!(portal.put_because("second", &"x".repeat(256)).await, 400);
    let (status, audit) = portal.json("/api/v1/audit?tenant=demo").await;
    assert_eq!(status, 200, "{audit}");
    let change = &audit["changes"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&change["actor"], &change["reason"], &change["seq"]),
        (&json!("admin:t"), &json!("ticket ä"), &json!(before))
    );
    assert_eq!(change["events"][0]["display_name"], "first");
    let denied = &audit["denials"][0];
    assert_eq!(
        (&denied["actor"], &denied["rule"], &denied["count"]),
        (&json!("viewer:t"), &json!("forbidden"), &json!(3))
    );
    // Page by page it is the same.
    let (_, all) = portal.json("/api/v1/audit").await;
    let (mut after, mut paged) = (json!(0), Vec::new());
    while !after.is_null() {
        let (_, page) = portal
            .json(&format!("/api/v1/audit?limit=1&after={after}"))
            .await;
        paged.extend(page["changes"].as_array().unwrap().clone());
        after = page["next"].clone();
    }
    assert_eq!(json!(paged), all["changes"]);
    let (_, none) = portal
        .json("/api/v1/audit?tenant=other&actor=admin:t")
        .await;
    assert_eq!(
        (&none["changes"], &none["denials"]),
        (&json!([]), &json!([]))
    );
    portal.running.end().await;
}

#[tokio::test]
async fn the_audit_of_a_tenant_has_what_names_it_by_number_alone_and_its_denials() {
    let portal = Portal::open(Dialects::default()).await;
    let admin = token(Role::Admin, &[], &[]);
    let put = |num: u32| json!({"quota_source": "purchase", "gpu_model": "nvidia.com/gpu", "num": num, "region": "bj"});
    let quota = "/api/v1/quotas/demo";
    let answer = portal.ask("PUT", quota, &admin, &put(2).to_string()).await;
    assert_eq!(answer.0, 200, "{answer:?}");
    let lease = |count: u32| {
        json!({
            "tenant": "demo", "region": "bj", "gpu_model": "nvidia.com/gpu", "count": count,
            "placement": "count_only"
        })
    };
    let leases = "/api/v1/leases";
    let granted = portal
        .ask("POST", leases, &admin, &lease(1).to_string())
        .await;
    assert_eq!(granted.0, 201, "{granted:?}");
    let released = portal.ask("DELETE", "/api/v1/leases/1", &admin, "").await;
    assert_eq!(released.0, 200, "{released:?}");
    let request = http::Request::builder()
        .method("POST")
        .uri(leases)
        .header("authorization", format!("Bearer {admin}"))
        .header("x-audit-reason", "ticket 9");
    let denied = portal.rest.send(request, &lease(3).to_string()).await;
    assert_eq!(read(denied).await.0, 409);
    let (_, audit) = portal.json("/api/v1/audit?tenant=demo").await;
    let changes = audit["changes"].as_array().unwrap();
    let kinds: Vec<&str> = changes
        .iter()
        .flat_map(|change| change["events"].as_array().unwrap())
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert!(kinds.contains(&"lease_ended"), "{kinds:?}");
    let denial = &audit["denials"][0];
    for (field, value) in [
        ("tenant", "demo"),
        ("rule", "over_quota"),
        ("route", "POST /api/v1/leases"),
        ("reason", "ticket 9"),
    ] {
        assert_eq!(denial[field], value, "{denial}");
    }
    let (_, other) = portal.json("/api/v1/audit?tenant=other").await;
    assert_eq!(other["denials"], json!([]));
    portal.running.end().await;
}

// All that is told of each row, and how many rows were folded for it.
async fn told(dir: &Path) -> (Vec<String>, u64) {
    let running = Running::on(dir, SetClock::new(START)).await;
    let now = running.ledger.read();
    let last = now.state.seq().0;
    let mut told = Vec::new();
    // The newest first, so that what is kept of one helps no other.
    for row in (1..=last).rev() {
        let history = running.ledger.history();
        let then = history.at(Moment::Seq(Seq(row)), &now).await.unwrap();
        assert_eq!(then.state.seq(), Seq(row));
        told.push(serde_json::to_string(&then.state).unwrap() + &then.head.to_string());
    }
    let folded = running.ledger.history().folded();
    running.end().await;
    (told, folded)
}

#[tokio::test]
async fn the_past_is_the_same_from_a_snapshot_and_costs_fewer_rows() {
    let dir = directory().await;
    let dir = dir.path();
    let store = SqliteStore::open(&dir.join("ledger.db")).await.unwrap();
    let running = Running::opened(Arc::new(store), dir, SetClock::new(START), 20).await;
    for turn in 0..3 {
        let known = running.ledger.read().state.snapshot();
        for tenant in 0..25 {
            let command = set(&format!("t{tenant}"), turn + 1);
            let written = running.ledger.submit(command, Origin::server()).await;
            written.unwrap();
        }
        let noted = async {
            while running.ledger.read().state.snapshot() == known {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), noted)
            .await
            .unwrap();
    }
    running.end().await;
    let with = told(dir).await;
    // Whatever is in a file that the journal does not vouch for, nobody is told it.
    let snapshots = dir.join("snapshots");
    for file in std::fs::read_dir(&snapshots).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let other = text.replace("\"t3\"", "\"x3\"");
        assert_ne!(other, text, "it is in the state");
        std::fs::write(&path, other).unwrap();
    }
    let changed = told(dir).await;
    std::fs::remove_dir_all(&snapshots).unwrap();
    let without = told(dir).await;
    assert!(with.0 == without.0 && changed.0 == without.0);
    assert_eq!(changed.1, without.1);
    assert!(with.1 < without.1 * 2 / 3, "{} of {}", with.1, without.1);
}
