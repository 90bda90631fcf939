//! A quota is lowered below what is used: refused, looked at, drained, released by force (D1.4), and its end is noticed.

use gpuquota_tests::quota::{purchase, with};
use gpuquota_tests::rest::{Answer, Rest};
use gpuquota_tests::server::Server;
use gpuquota_tests::session::{Session, full, gpu};
use serde_json::{Value, json};

async fn put(caller: &Rest, query: &str, num: u64) -> Answer {
    let path = format!("/api/v1/quotas/a{query}");
    caller.json("PUT", &path, &purchase("TW", num)).await
}

async fn drains(caller: &Rest) -> Value {
    let answer = caller.get("/api/v1/drains").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["drains"].clone()
}

#[tokio::test]
async fn d1_4_a_lowered_quota_is_looked_at_then_drained_and_the_drain_outlives_a_crash() {
    let mut server = Server::start().await;
    let admin = server.admin();
    let node = json!({"region": "TW"});
    assert_eq!(
        admin.json("PUT", "/api/v1/nodes/n0", &node).await.status,
        200
    );
    put(&admin, "", 3).await.expect_done();
    let mut session = Session::of(&server, "n0").await;
    let held = |count: usize| {
        let gpus =
            (0..3).map(|at| gpu(&format!("GPU-{at}"), if at < count { &["a"] } else { &[] }));
        gpus.collect::<Vec<_>>()
    };
    session.acked(full(1, held(3))).await;

    let before = server.fingerprint().await;
    put(&admin, "", 1).await.expect_code(409, 1);
    let seen = put(&admin, "?dry_run=true", 1).await;
    assert_eq!(seen.status, 200, "{seen:?}");
    let (code, data) = (&seen.json()["code"], &seen.json()["data"]);
    assert_eq!(
        (code, &data["taken"]),
        (&json!(0), &json!(false)),
        "{seen:?}"
    );
    let group = &data["groups"][0];
    assert_eq!(
        (&group["used"], &group["excess"]),
        (&json!(3), &json!(2)),
        "{seen:?}"
    );
    let victims = group["victims"].as_array().unwrap();
    assert_eq!(victims.len(), 2, "{seen:?}");
    assert!(
        victims.iter().all(|victim| victim.get("lease").is_none()),
        "{seen:?}"
    );
    assert_eq!(victims[0]["devices"][0]["node"], "n0");
    assert_eq!(server.fingerprint().await, before);
    assert_eq!(drains(&admin).await, json!([]));

    put(&admin, "?on_excess=drain", 1).await.expect_done();
    let shown = drains(&admin).await;
    assert_eq!(
        (&shown[0]["tenant"], &shown[0]["cause"]),
        (&json!("a"), &json!("shrink"))
    );
    assert_eq!(shown[0]["plan"]["excess"], 2);
    let own = server.caller(&["--role", "viewer", "--tenant", "a"]);
    assert_eq!(drains(&own).await, shown);
    let other = server.caller(&["--role", "tenant-admin", "--tenant", "b"]);
    assert_eq!(drains(&other).await, json!([]));
    let labels = [("tenant", "a"), ("region", "TW"), ("type", "flexible")];
    let scrape = server.scrape().await;
    assert_eq!(scrape.value("gpuquota_drain_excess", &labels), Some(2.0));
    let deadline = scrape.value("gpuquota_drain_deadline_timestamp_seconds", &labels);
    assert!(deadline > Some(1.7e9), "{deadline:?}");

    drop(session);
    server.kill9();
    server.serve().await;
    let admin = server.admin();
    assert_eq!(drains(&admin).await, shown);
    let mut session = Session::of(&server, "n0").await;
    session.acked(full(2, held(1))).await;
    assert_eq!(drains(&admin).await, json!([]), "the tenant met it");

    put(&admin, "", 0).await.expect_done();
    let forced = drains(&admin).await;
    assert_eq!(forced[0]["cause"], "release");
    assert!(forced[0]["enforced_at"].is_string(), "{forced}");
    put(&admin, "", 1).await.expect_done();
    assert_eq!(drains(&admin).await, json!([]), "it was withdrawn");
}

#[expect(clippy::disallowed_methods, reason = "quotas end by the wall clock")]
fn today() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs() / 86_400
}

#[tokio::test]
async fn an_end_that_is_near_shows_in_the_metrics_with_its_notice() {
    let server = Server::start().await;
    let admin = server.admin();
    let today = today();
    for (tenant, days) in [("far", 40), ("near", 20), ("soon", 5)] {
        let end = with(purchase("TW", 1), "expired_at", date(today + days));
        admin.put(tenant, end).await.expect_done();
    }
    admin.put("never", purchase("TW", 1)).await.expect_done();
    let scrape = server.scrape().await;
    let of = |name, tenant| scrape.value(name, &[("tenant", tenant)]);
    let notice = |tenant| of("gpuquota_quota_expiry_notice_days", tenant);
    assert_eq!((notice("far"), notice("never")), (None, None));
    assert_eq!((notice("near"), notice("soon")), (Some(28.0), Some(7.0)));
    let end = |tenant| of("gpuquota_quota_expires_timestamp_seconds", tenant);
    let seconds = f64::from(u32::try_from((today + 5) * 86_400).unwrap());
    assert_eq!((end("soon"), end("never")), (Some(seconds), None));
}

// A day since 1970 as a date.
fn date(day: u64) -> String {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut year, mut left) = (1970, day);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < days {
            break;
        }
        left -= days;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", left + 1)
}
