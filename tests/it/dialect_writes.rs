//! PUT and DELETE of the GPU quota dialect: decisions D0.4 to D0.6 and D1.1 to D1.9.

use gpuquota_tests::quota::{GPU, purchase, quota, with, without};
use gpuquota_tests::server::Server;
use gpuquota_tests::session::{Session, full, gpu};
use serde_json::{Value, json};

#[tokio::test]
async fn case_18_what_a_put_must_say_and_must_not_contradict() {
    let server = Server::start().await;
    let admin = server.admin();
    let good = purchase("TW", 3);
    admin
        .put("a", with(good.clone(), "tenant", "a"))
        .await
        .expect_done();
    let before = server.fingerprint().await;
    admin
        .put("a", with(good.clone(), "tenant", "b"))
        .await
        .expect_code(400, 4);
    admin
        .delete("a", with(good.clone(), "tenant", "b"))
        .await
        .expect_code(400, 4);
    for field in ["region", "quota_source", "gpu_model", "num"] {
        for body in [
            without(good.clone(), field),
            with(good.clone(), field, Value::Null),
        ] {
            admin.put("a", body.clone()).await.expect_code(400, 2);
            if field != "num" {
                admin.delete("a", body).await.expect_code(400, 2);
            }
        }
    }
    let wrong = [
        ("quota_source", json!("gift")),
        ("quota_source", json!("PURCHASE")),
        ("quota_type", json!("mega")),
        ("region", json!("")),
        ("region", json!(7)),
        ("gpu_model", json!("x".repeat(254))),
        ("expired_at", json!("2026-01-02T15:04:05Z07:00")),
        ("expired_at", json!("tomorrow")),
        ("expired_at", json!(1_800_000_000)),
        ("node_name", json!("gpu02")),
        ("node_name", json!(["UPPER"])),
        ("id", json!("212")),
        ("id", json!(-1)),
    ];
    for (field, value) in wrong {
        admin
            .put("a", with(good.clone(), field, value))
            .await
            .expect_code(400, 3);
    }
    let wrong = [
        ("PUT", "?dry_run=maybe", 3),
        ("PUT", "?on_excess=kill", 3),
        ("DELETE", "?dry_run=1", 3),
        ("DELETE", "?on_excess=drain", 6),
    ];
    for (method, query, detail) in wrong {
        let path = format!("/api/v1/quotas/a{query}");
        admin
            .send(method, &path, &[], good.to_string())
            .await
            .expect_code(400, detail);
    }
    assert_eq!(server.fingerprint().await, before);
}

#[tokio::test]
async fn case_26_counts_are_whole_numbers_of_32_bits() {
    let server = Server::start().await;
    let admin = server.admin();
    admin
        .put("a", purchase("TW", 2_147_483_647))
        .await
        .expect_done();
    assert_eq!(admin.quotas().await.total("a"), 2_147_483_647);
    let before = server.fingerprint().await;
    let bad = [
        "-1",
        "2147483648",
        "9223372036854775808",
        "1.0",
        "1e0",
        "\"1\"",
        "true",
        "[1]",
    ];
    for num in bad {
        let body = format!(
            r#"{{"region":"TW","quota_source":"purchase","gpu_model":"nvidia.com/gpu","num":{num}}}"#
        );
        admin
            .send("PUT", "/api/v1/quotas/a", &[], body)
            .await
            .expect_code(400, 3);
    }
    admin
        .put("a", with(purchase("TW", 1), "num", Value::Null))
        .await
        .expect_code(400, 2);
    assert_eq!(server.fingerprint().await, before);
}

#[tokio::test]
async fn types_follow_the_model_and_every_spelling_is_free_text() {
    let server = Server::start().await;
    let admin = server.admin();
    for (model, quota_type) in [
        (GPU, "flexible"),
        ("nvidia.com/mig-1g.10gb", "mig"),
        ("tyui-3", "vgpu"),
        ("华为 昇腾", "vgpu"),
    ] {
        admin
            .put("a", quota("TW", "assign", model, 2))
            .await
            .expect_done();
        let quotas = admin.quotas().await;
        assert_eq!(
            quotas.row("a", quota_type, model).map(|row| row.total),
            Some(2),
            "{quotas:?}"
        );
    }
    // Said otherwise, it is another quota beside the first.
    let other = with(quota("TW", "assign", "tyui-3", 5), "quota_type", "mig");
    admin.put("a", other).await.expect_done();
    assert_eq!(admin.quotas().await.total("a"), 4 * 2 + 5);
    // A PUT replaces: the number is the new total, and an end that is not said is cleared.
    let ending = with(
        quota("TW", "assign", "tyui-3", 9),
        "expired_at",
        "2020-02-03T01:00:00+02:00",
    );
    admin.put("a", ending).await.expect_done();
    let row =
        |quotas: gpuquota_tests::quota::Quotas| quotas.row("a", "vgpu", "tyui-3").unwrap().clone();
    let ended = row(admin.quotas().await);
    assert_eq!(
        (ended.total, &ended.details[0]["expire_time"]),
        (9, &json!("2020-02-02T23:00:00Z"))
    );
    admin
        .put("a", quota("TW", "assign", "tyui-3", 1))
        .await
        .expect_done();
    let cleared = row(admin.quotas().await);
    assert_eq!(
        (cleared.total, cleared.details[0].get("expire_time")),
        (1, None)
    );
}

#[tokio::test]
async fn an_id_is_the_tenants_own_and_never_merges_two_quotas() {
    let server = Server::start().await;
    let admin = server.admin();
    let first = with(quota("US", "assign", "tyui-3", 2), "id", 212);
    admin.put("a", first.clone()).await.expect_done();
    // The document itself uses 212 twice, for two tenants.
    admin
        .put("b", with(purchase("US", 1), "id", 212))
        .await
        .expect_done();
    let before = server.fingerprint().await;
    admin
        .put("a", with(purchase("US", 1), "id", 212))
        .await
        .expect_code(409, 3);
    admin
        .delete("a", with(purchase("US", 1), "id", 212))
        .await
        .expect_code(409, 3);
    admin
        .delete("a", with(first.clone(), "id", 999))
        .await
        .expect_code(404, 2);
    assert_eq!(server.fingerprint().await, before);
    // An id that is not known yet is stored; one that is known picks the type of its quota.
    admin.put("a", with(first, "id", 213)).await.expect_done();
    let odd = with(
        with(quota("US", "assign", "x", 1), "quota_type", "mig"),
        "id",
        7,
    );
    admin.put("a", odd).await.expect_done();
    admin
        .put("a", with(quota("US", "assign", "x", 4), "id", 7))
        .await
        .expect_done();
    let quotas = admin.quotas().await;
    assert_eq!(
        quotas.row("a", "mig", "x").map(|row| row.total),
        Some(4),
        "{quotas:?}"
    );
    assert_eq!(
        quotas.row("a", "vgpu", "tyui-3").unwrap().details[0]["id"],
        213
    );
}

#[tokio::test]
async fn a_dedicated_quota_needs_keeps_and_defends_its_nodes() {
    let server = Server::start().await;
    let admin = server.admin();
    let own = with(
        with(quota("US", "assign", GPU, 1), "node_name", json!(["gpu02"])),
        "id",
        214,
    );
    admin.put("a", own.clone()).await.expect_done();
    // Named by its id alone it keeps them.
    admin
        .put("a", with(quota("US", "assign", GPU, 2), "id", 214))
        .await
        .expect_done();
    let row = admin
        .quotas()
        .await
        .row("a", "dedicated", GPU)
        .unwrap()
        .clone();
    assert_eq!(
        (row.total, &row.details[0]["node_name"]),
        (2, &json!(["gpu02"]))
    );
    let before = server.fingerprint().await;
    let none = with(quota("US", "assign", GPU, 1), "quota_type", "dedicated");
    admin.put("c", none.clone()).await.expect_code(400, 2);
    admin
        .put("c", with(none, "node_name", json!([])))
        .await
        .expect_code(400, 2);
    let flexible = with(own.clone(), "quota_type", "flexible");
    admin.put("a", flexible).await.expect_code(400, 4);
    admin.put("b", own.clone()).await.expect_code(409, 4);
    assert_eq!(server.fingerprint().await, before);
    // Released, the node is free for another tenant.
    admin
        .put("a", with(with(own.clone(), "num", 0), "id", 214))
        .await
        .expect_done();
    admin.put("b", own).await.expect_done();
}

#[tokio::test]
async fn what_is_in_use_is_released_only_by_force() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.put("a", purchase("default", 3)).await.expect_done();
    let mut node = Session::of(&server, "n1").await;
    node.acked(full(
        1,
        vec![gpu("GPU-1", &["a"]), gpu("GPU-2", &["a", "b"])],
    ))
    .await;
    assert_eq!(admin.quotas().await.used("a", "flexible", GPU), 2);
    let before = server.fingerprint().await;
    let denied = admin.put("a", purchase("default", 1)).await;
    let text = denied.expect_code(409, 1).json()["message"].to_string();
    assert!(
        text.contains('2') && text.contains('1'),
        "the excess is explained: {text}"
    );
    admin
        .delete("a", purchase("default", 1))
        .await
        .expect_code(409, 2);
    let forced = |value: &str| format!("/api/v1/quotas/a?force={value}");
    let body = purchase("default", 1).to_string();
    admin
        .send("DELETE", &forced("1"), &[], body.clone())
        .await
        .expect_code(400, 3);
    admin
        .send("DELETE", &forced("false"), &[], body.clone())
        .await
        .expect_code(409, 2);
    assert_eq!(server.fingerprint().await, before);
    admin.put("a", purchase("default", 2)).await.expect_done();
    admin
        .send("DELETE", &forced("true"), &[], body)
        .await
        .expect_done();
    assert!(admin.quotas().await.0.is_empty());
    // num 0 is the same, and is done also where nothing is.
    for _ in 0..2 {
        admin.put("a", purchase("default", 2)).await.expect_done();
        admin.put("a", purchase("default", 0)).await.expect_done();
        admin.put("a", purchase("default", 0)).await.expect_done();
        assert!(admin.quotas().await.0.is_empty());
    }
}

#[tokio::test]
async fn a_delete_without_a_body_is_read_from_its_parameters() {
    let server = Server::start().await;
    let admin = server.admin();
    admin
        .put("a", with(purchase("TW 1", 1), "id", 5))
        .await
        .expect_done();
    let query = "region=TW%201&quota_source=purchase&gpu_model=nvidia.com%2Fgpu";
    let delete = async |query: &str| {
        admin
            .send("DELETE", &format!("/api/v1/quotas/a?{query}"), &[], "")
            .await
    };
    delete("").await.expect_code(400, 2);
    delete(&format!("{query}&region=US"))
        .await
        .expect_code(400, 3);
    delete(&format!("{query}&id=x")).await.expect_code(400, 3);
    delete(&format!("{query}&tenant=b"))
        .await
        .expect_code(400, 4);
    delete(&format!("{query}&id=6")).await.expect_code(404, 2);
    delete(&format!("{query}&id=5")).await.expect_done();
    delete(query).await.expect_code(404, 2);
}
