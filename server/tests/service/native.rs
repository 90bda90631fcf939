//! The native API: what is kept is shown, and a repeated write is answered as it was the first time.

use gpuquota_core::pool::Accelerator;
use gpuquota_server::auth::Role;
use gpuquota_server::config::Dialects;
use serde_json::{Value, json};

use crate::directory::{cards, licence, seats};
use crate::licence::{Portal, read};
use crate::rest::token;

const SEATS: &str = "/api/v1/seats";

impl Portal {
    async fn keyed(&self, method: &str, target: &str, body: &str, token: &str) -> (u16, String) {
        let request = http::Request::builder()
            .method(method)
            .uri(target)
            .header("authorization", format!("Bearer {token}"))
            .header("idempotency-key", format!("{method} once"));
        read(self.rest.send(request, body).await).await
    }
}

#[tokio::test]
async fn case_39_a_seat_is_given_back_once_and_its_calls_are_answered_alike() {
    let portal = Portal::open(Dialects::default()).await;
    portal.running.has([licence(2, 1, 3, None)]).await;
    portal.running.has(seats("demo", 1, 2)).await;
    let own = token(Role::TenantAdmin, &["demo"], &[]);
    let one = format!("{SEATS}/1");
    let renew = format!("{one}/renew");
    let ttl = r#"{"ttl_seconds":60}"#;
    let renewed = portal.keyed("POST", &renew, ttl, &own).await;
    assert_eq!(renewed.0, 200, "{renewed:?}");
    let gone = portal.keyed("DELETE", &one, "", &own).await;
    assert_eq!(gone, (200, "{}".into()));
    // The seat is away, yet the caller of either hears again what it heard.
    let seq = portal.running.seq();
    assert_eq!(portal.keyed("DELETE", &one, "", &own).await, gone);
    assert_eq!(portal.keyed("POST", &renew, ttl, &own).await, renewed);
    assert_eq!(portal.running.seq(), seq);
    // The same key does not reach another seat, and without the key there is none.
    let other = portal
        .keyed("DELETE", &format!("{SEATS}/2"), "", &own)
        .await;
    assert_eq!(other.0, 409, "{other:?}");
    let (status, missing) = portal.ask("DELETE", &one, &own, "").await;
    assert_eq!(status, 404, "{missing}");
    // Somebody else's key is another key, and a foreign seat reads like none.
    let foreign = token(Role::TenantAdmin, &["other"], &[]);
    let target = format!("{SEATS}/2");
    let answer = portal.ask("DELETE", &target, &foreign, "").await;
    assert_eq!(answer, (404, missing));
    assert!(portal.running.ledger.read().state.seats().count() == 1);
    portal.running.end().await;
}

#[tokio::test]
async fn a_card_limit_is_listed_also_of_a_group_that_nobody_described() {
    let portal = Portal::open(Dialects::default()).await;
    let limits = [
        cards("g", None, Accelerator::Gpu, 4),
        cards("g", Some("demo"), Accelerator::Mlu, 1),
    ];
    portal.running.has(limits).await;
    let (status, listed) = portal.get("/api/v1/resource-groups").await;
    assert_eq!(status, 200, "{listed}");
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let expected = json!({
        "resource_group": "g", "max_time": "unlimited", "tenants": null, "nodes": [],
        "card_limits": [
            {"accelerator": "gpu", "tenant": null, "cards": 4},
            {"accelerator": "mlu", "tenant": "demo", "cards": 1},
        ],
    });
    assert_eq!(listed["resource_groups"], json!([expected]));
    portal.running.end().await;
}
