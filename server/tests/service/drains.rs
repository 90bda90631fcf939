//! A quota is lowered over REST: refused, looked at, drained; who sees it, and which leases go.

use gpuquota_core::Command;
use gpuquota_core::command::{Outcome, RequestLease};
use gpuquota_core::id::{GpuModel, LeaseId, Region, TenantName};
use gpuquota_core::lease::{Lease, LeasePlacement};
use gpuquota_core::settings::Settings;
use gpuquota_server::auth::Role;
use gpuquota_server::service::Origin;
use http::Request;
use serde_json::{Value, json};

use crate::declared::{facts, gpu};
use crate::licence::read;
use crate::rest::{Rest, token};
use crate::running::{HOUR, Running, START, SetClock};

const GPU: &str = "nvidia.com/gpu";
const PUT: &str = "/api/v1/quotas/a";
const DRAINS: &str = "/api/v1/drains";

async fn ask(rest: &Rest, method: &str, target: &str, token: &str, body: &str) -> (u16, Value) {
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("authorization", format!("Bearer {token}"));
    let (status, text) = read(rest.send(request, body).await).await;
    (status, serde_json::from_str(&text).unwrap())
}

async fn written(rest: &Rest, method: &str, query: &str, num: u32) -> (u16, Value) {
    ending(rest, method, query, num, None).await
}

async fn ending(
    rest: &Rest,
    method: &str,
    query: &str,
    num: u32,
    end: Option<&str>,
) -> (u16, Value) {
    let body = json!({
        "region": "default", "quota_source": "purchase", "gpu_model": GPU, "num": num, "expired_at": end
    });
    let target = format!("{PUT}{query}");
    ask(
        rest,
        method,
        &target,
        &token(Role::Admin, &[], &[]),
        &body.to_string(),
    )
    .await
}

async fn drains(rest: &Rest, token: &str) -> Value {
    let (status, body) = ask(rest, "GET", DRAINS, token, "").await;
    assert_eq!(status, 200, "{body}");
    body["drains"].clone()
}

async fn leased(running: &Running) -> Lease {
    let request = RequestLease::of(
        TenantName::new("a").unwrap(),
        Region::new("default").unwrap(),
        GpuModel::new(GPU).unwrap(),
        1,
        LeasePlacement::Devices,
    );
    let command = Command::RequestLease(request);
    let granted = running.ledger.submit(command, Origin::server()).await;
    match granted.unwrap().outcome {
        Outcome::Lease(lease) => Lease::clone(&lease),
        other => unreachable!("{other:?}"),
    }
}

fn states(running: &Running) -> Vec<&'static str> {
    let committed = running.ledger.read();
    let state = |lease| committed.state.lease(LeaseId(lease)).map(Lease::state);
    (1..=3).filter_map(state).collect()
}

#[tokio::test]
async fn a_lowered_quota_is_refused_looked_at_and_drained_with_the_idle_lease_first() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    let rest = Rest::on(&running);
    let settings = Settings {
        drain_notice_ms: 3_600_000,
        ..Settings::default()
    };
    running.told([Command::SetSettings(settings)]).await;
    assert_eq!(written(&rest, "PUT", "", 3).await.0, 200);
    let free = || {
        (0..3)
            .map(|at| gpu(&format!("GPU-{at}"), GPU, &[]))
            .collect()
    };
    running.reported("n0", facts(None, None), free()).await;
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.extend(leased(&running).await.devices.into_keys());
    }
    // Processes of leases 1 and 3; lease 2 is idle.
    let devices = keys.iter().zip([true, false, true]);
    let held =
        devices.map(|(key, held)| gpu(&key.to_string(), GPU, if held { &["a"] } else { &[] }));
    running
        .reported("n0", facts(None, None), held.collect())
        .await;

    let (status, refused) = written(&rest, "PUT", "", 1).await;
    assert_eq!((status, &refused["code"]), (409, &json!(40901)));
    let (status, wrong) = written(&rest, "PUT", "?on_excess=kill", 1).await;
    assert_eq!((status, &wrong["code"]), (400, &json!(40003)));
    let seq = running.ledger.read().state.seq();
    for (query, taken) in [
        ("?dry_run=true", false),
        ("?dry_run=true&on_excess=drain", true),
    ] {
        let (status, plan) = written(&rest, "PUT", query, 1).await;
        assert_eq!((status, &plan["code"]), (200, &json!(0)), "{plan}");
        let data = &plan["data"];
        assert_eq!(
            (&data["taken"], data.get("message").is_none()),
            (&json!(taken), taken)
        );
        assert_eq!(
            (&data["cause"], &data["deadline"]),
            (&json!("shrink"), &json!("2027-01-15T09:00:00Z"))
        );
        let group = &data["groups"][0];
        assert_eq!(
            (&group["limit_before"], &group["limit_after"]),
            (&json!(3), &json!(1))
        );
        assert_eq!((&group["used"], &group["excess"]), (&json!(3), &json!(2)));
        let victims = group["victims"].as_array().unwrap().iter();
        let victims: Vec<_> = victims
            .map(|victim| (&victim["lease"], &victim["activity"]))
            .collect();
        assert_eq!(
            victims,
            [(&json!(2), &json!("idle")), (&json!(3), &json!("in_use"))]
        );
    }
    let (_, raised) = written(&rest, "PUT", "?dry_run=true", 4).await;
    let raised = &raised["data"];
    assert_eq!(raised["groups"][0]["limit_after"], 4);
    assert_eq!((raised.get("cause"), raised.get("deadline")), (None, None));
    let (_, coming) = ending(
        &rest,
        "PUT",
        "?dry_run=true",
        3,
        Some("2027-01-18T08:00:00Z"),
    )
    .await;
    let coming = &coming["data"];
    assert_eq!(
        (&coming["cause"], &coming["deadline"], &coming["taken"]),
        (
            &json!("expiry"),
            &json!("2027-01-18T09:00:00Z"),
            &json!(true)
        )
    );
    let victims = coming["groups"][0]["victims"].as_array().unwrap();
    assert_eq!(victims.len(), 3);
    let (_, release) = written(&rest, "DELETE", "?dry_run=true", 0).await;
    assert_eq!(
        (&release["data"]["taken"], &release["data"]["cause"]),
        (&json!(false), &json!("release"))
    );
    let (_, release) = written(&rest, "PUT", "?dry_run=true", 0).await;
    assert_eq!(
        release["data"]["groups"][0]["victims"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(written(&rest, "DELETE", "?on_excess=drain", 0).await.0, 400);
    assert_eq!(
        running.ledger.read().state.seq(),
        seq,
        "nothing was changed"
    );

    assert_eq!(
        written(&rest, "PUT", "?on_excess=drain", 2).await,
        (200, json!({ "code": 0 }))
    );
    let shown = drains(&rest, &token(Role::Admin, &[], &[])).await;
    assert_eq!(
        (&shown[0]["tenant"], &shown[0]["plan"]["excess"]),
        (&json!("a"), &json!(1))
    );
    assert_eq!(shown[0]["plan"]["victims"][0]["lease"], 2);
    assert_eq!(
        drains(&rest, &token(Role::Viewer, &["a"], &[])).await,
        shown
    );
    assert_eq!(
        drains(&rest, &token(Role::TenantAdmin, &["b"], &[])).await,
        json!([])
    );
    running.clock.set(START + HOUR - 1);
    running.told([Command::Sweep]).await;
    assert_eq!(states(&running), ["active", "active", "active"]);
    running.clock.set(START + HOUR);
    running.told([Command::Sweep]).await;
    assert_eq!(states(&running), ["active", "releasing", "active"]);
    let devices = keys.iter().zip([true, false, true]);
    let held =
        devices.map(|(key, held)| gpu(&key.to_string(), GPU, if held { &["a"] } else { &[] }));
    running.clock.set(START + HOUR + 1);
    running
        .reported("n0", facts(None, None), held.collect())
        .await;
    assert_eq!(states(&running), ["active", "ended", "active"]);
    assert_eq!(running.ledger.read().state.drains().count(), 0);
    running.end().await;
}

#[tokio::test]
async fn a_quota_is_put_out_of_force_and_back_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    let rest = Rest::on(&running);
    assert_eq!(written(&rest, "PUT", "", 3).await.0, 200);
    running
        .reported("n0", facts(None, None), vec![gpu("GPU-0", GPU, &[])])
        .await;
    leased(&running).await;
    let admin = token(Role::Admin, &[], &[]);
    let switch = async |by: &str, query: &str, active: bool| {
        let target = format!("/api/v1/entitlements/0{query}");
        let body = json!({ "is_active": active }).to_string();
        ask(&rest, "PATCH", &target, by, &body).await
    };
    let own = token(Role::TenantAdmin, &["a"], &[]);
    assert_eq!(switch(&own, "", false).await.0, 403);
    let (status, refused) = switch(&admin, "", false).await;
    assert_eq!(
        (status, &refused["error"]["kind"]),
        (409, &json!("below_use")),
        "{refused}"
    );
    let (status, plan) = switch(&admin, "?dry_run=true", false).await;
    assert_eq!((status, &plan["taken"]), (200, &json!(false)), "{plan}");
    assert_eq!(plan["groups"][0]["limit_after"], 0, "{plan}");
    assert_eq!(plan["groups"][0]["victims"][0]["lease"], 1, "{plan}");
    let (status, off) = switch(&admin, "?on_excess=drain", false).await;
    assert_eq!((status, &off["is_active"]), (200, &json!(false)), "{off}");
    assert_eq!(off["limit"], 3, "its terms stay: {off}");
    let (_, drains) = ask(&rest, "GET", "/api/v1/drains", &own, "").await;
    assert_eq!(drains["drains"][0]["cause"], "shrink", "{drains}");
    let (_, shown) = ask(&rest, "GET", "/api/v1/entitlements/0", &own, "").await;
    assert_eq!(shown, off);
    let other = token(Role::Viewer, &["b"], &[]);
    let hidden = ask(&rest, "GET", "/api/v1/entitlements/0", &other, "").await;
    assert_eq!(hidden.0, 404);
    let lease = json!({"tenant": "a", "region": "default", "gpu_model": GPU, "count": 1, "placement": "count_only"});
    let (status, denied) = ask(&rest, "POST", "/api/v1/leases", &own, &lease.to_string()).await;
    let because = &denied["error"]["explain"];
    assert_eq!(
        (status, &because["rule"]),
        (409, &json!("no_quota")),
        "{denied}"
    );
    assert_eq!(because["because"][0]["rule"], "quota_inactive", "{denied}");
    assert_eq!(switch(&admin, "", true).await.0, 200);
    let (_, drains) = ask(&rest, "GET", "/api/v1/drains", &own, "").await;
    assert_eq!(drains["drains"], json!([]));
    assert_eq!(switch(&admin, "?on_excess=maybe", true).await.0, 400);
    running.end().await;
}

#[tokio::test]
async fn nodes_on_which_others_have_leases_are_bound_only_with_the_notice() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    let rest = Rest::on(&running);
    assert_eq!(written(&rest, "PUT", "", 3).await.0, 200);
    let devices = [gpu("GPU-0", GPU, &["c"]), gpu("GPU-1", GPU, &[])];
    running
        .reported("n0", facts(None, None), devices.to_vec())
        .await;
    leased(&running).await;
    let admin = token(Role::Admin, &[], &[]);
    let body = json!({
        "region": "default", "quota_source": "purchase", "gpu_model": GPU, "num": 2, "node_name": ["n0"]
    });
    let bind = async |query: &str| {
        let target = format!("/api/v1/quotas/b{query}");
        ask(&rest, "PUT", &target, &admin, &body.to_string()).await
    };
    let (status, refused) = bind("").await;
    assert_eq!((status, &refused["code"]), (409, &json!(40902)));
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("(1)") && message.contains("on_excess"),
        "{message}"
    );
    let (status, shown) = bind("?dry_run=true&on_excess=drain").await;
    let data = &shown["data"];
    assert_eq!((status, &data["taken"]), (200, &json!(true)), "{shown}");
    let others = data["others"].as_array().unwrap();
    assert_eq!(others.len(), 2);
    assert_eq!(
        (
            &others[0]["tenant"],
            &others[0]["lease"],
            &others[0]["until"]
        ),
        (&json!("a"), &json!(1), &json!("2027-01-16T08:00:00Z"))
    );
    assert_eq!(
        (&others[1]["tenant"], others[1].get("until")),
        (&json!("c"), None)
    );
    assert_eq!(bind("?on_excess=drain").await.0, 200);
    let own = token(Role::Viewer, &["a"], &[]);
    let (_, lease) = ask(&rest, "GET", "/api/v1/leases/1", &own, "").await;
    assert_eq!(lease["leave_by"], "2027-01-16T08:00:00Z", "{lease}");
    // An end within a day is told at once.
    let ends = ending(&rest, "PUT", "", 3, Some("2027-01-15T20:00:00Z")).await;
    assert_eq!(ends.0, 200, "{ends:?}");
    let (_, told) = ask(&rest, "GET", "/api/v1/entitlements", &own, "").await;
    assert_eq!(told["quotas"][0]["noticed_days"], 1, "{told}");
    running.clock.set(START + 24 * HOUR);
    running.told([Command::Sweep]).await;
    assert_eq!(states(&running), ["releasing"]);
    running.end().await;
}
