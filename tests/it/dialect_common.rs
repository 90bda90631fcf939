//! What every answer of the dialect keeps: methods, paths, request ids, repetitions (section 0 of the dialects).

use gpuquota_tests::quota::{purchase, quota, with};
use gpuquota_tests::server::Server;
use serde_json::json;

const LIST: &str = "/api/v1/quota/user-quotas";

#[tokio::test]
async fn case_32_other_methods_are_405_with_allow_and_head_is_a_get_without_body() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.put("a", purchase("TW", 1)).await.expect_done();
    let before = server.fingerprint().await;
    for (path, allow) in [(LIST, "GET, HEAD"), ("/api/v1/quotas/a", "PUT, DELETE")] {
        for method in [
            "POST", "PATCH", "OPTIONS", "TRACE", "BREW", "PUT", "DELETE", "GET",
        ] {
            if allow.contains(method) {
                continue;
            }
            let answer = admin.send(method, path, &[], "{}").await;
            answer.expect_code(405, 1);
            assert_eq!(answer.header("allow"), allow, "{method} {path}");
        }
    }
    let (get, head) = (
        admin.get(LIST).await,
        admin.send("HEAD", LIST, &[], "").await,
    );
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    for name in ["content-type", "content-length"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
    assert_eq!(
        admin.send("HEAD", "/api/v1/quotas/a", &[], "").await.status,
        405
    );
    assert_eq!(server.fingerprint().await, before);
}

#[tokio::test]
async fn nothing_redirects_and_every_404_has_the_dialects_shape() {
    let server = Server::start().await;
    let admin = server.admin();
    for path in [
        "/api/v1/quota/user-quotas/",
        "/api/v1/quotas/",
        "/api/v1/quotas",
        "/api/v1/quota",
        "/api/v1/quotas/a/",
        "/api/v1/quotas/a/b",
        "/api/v1/quota/x",
    ] {
        for method in ["GET", "PUT", "DELETE", "POST"] {
            admin
                .send(method, path, &[], purchase("TW", 1).to_string())
                .await
                .expect_code(404, 1);
        }
    }
    assert!(admin.quotas().await.0.is_empty());
}

#[tokio::test]
async fn case_31_a_request_id_is_echoed_only_when_it_is_plain() {
    let server = Server::start().await;
    let admin = server.admin();
    let long = "x".repeat(128);
    for id in ["a.B_9-z", &long] {
        let answer = admin.send("GET", LIST, &[("X-Request-Id", id)], "").await;
        assert_eq!(answer.header("x-request-id"), id);
    }
    let longer = "x".repeat(129);
    for id in ["", "a b", "a\"b", "<x>", "a=b", &longer] {
        let answer = admin.send("GET", LIST, &[("x-request-id", id)], "").await;
        let given = answer.header("x-request-id");
        assert!(!given.is_empty() && given != id, "{id}");
    }
    let (one, two) = (admin.get(LIST).await, admin.get(LIST).await);
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
}

#[tokio::test]
async fn unknown_fields_are_ignored_and_header_names_have_any_case() {
    let server = Server::start().await;
    let token = server.admin_token().to_owned();
    let stranger = gpuquota_tests::rest::Rest::new(server.rest, None);
    let body = with(
        with(purchase("TW", 1), "colour", "red"),
        "nested",
        json!({"a": [1]}),
    );
    let headers = [
        ("AUTHORIZATION", &*format!("bearer {token}")),
        ("CONTENT-TYPE", "text/plain"),
    ];
    let path = "/api/v1/quotas/a?unknown=1";
    stranger
        .send("PUT", path, &headers, body.to_string())
        .await
        .expect_done();
}

#[tokio::test]
async fn case_40_an_idempotency_key_replays_its_answer_also_after_a_restart() {
    let mut server = Server::start().await;
    let put = async |server: &Server, key: &str, tenant: &str, body: serde_json::Value| {
        let path = format!("/api/v1/quotas/{tenant}");
        let headers = [("Idempotency-Key", key)];
        server
            .admin()
            .send("PUT", &path, &headers, body.to_string())
            .await
    };
    put(&server, "k1", "a", purchase("TW", 5))
        .await
        .expect_done();
    // Changed since: a repetition answers the same and does nothing.
    put(&server, "k2", "a", purchase("TW", 7))
        .await
        .expect_done();
    let before = server.fingerprint().await;
    put(&server, "k1", "a", purchase("TW", 5))
        .await
        .expect_done();
    for (tenant, body) in [("a", purchase("TW", 6)), ("b", purchase("TW", 5))] {
        put(&server, "k1", tenant, body).await.expect_code(409, 5);
    }
    for key in ["", &"k".repeat(256)] {
        put(&server, key, "a", purchase("TW", 5))
            .await
            .expect_code(400, 3);
    }
    assert_eq!(server.fingerprint().await, before);
    assert_eq!(server.admin().quotas().await.total("a"), 7);

    // A denial is replayed too, byte for byte, although the reason is gone.
    let other = with(quota("TW", "assign", "x", 1), "id", 9);
    server.admin().put("a", other.clone()).await.expect_done();
    let clash = with(purchase("TW", 1), "id", 9);
    let denied = put(&server, "k3", "a", clash.clone()).await;
    denied.expect_code(409, 3);
    server.admin().delete("a", other).await.expect_done();
    let before = server.fingerprint().await;
    assert_eq!(
        put(&server, "k3", "a", clash.clone()).await.text,
        denied.text
    );
    server.kill9();
    server.serve().await;
    let again = put(&server, "k3", "a", clash.clone()).await;
    assert_eq!((again.status, again.text), (denied.status, denied.text));
    put(&server, "k1", "a", purchase("TW", 5))
        .await
        .expect_done();
    put(&server, "k1", "a", purchase("TW", 6))
        .await
        .expect_code(409, 5);
    assert_eq!(server.fingerprint().await, before);
    // The key belongs to its principal: another one's is another operation.
    let colleague = server.caller(&["--role", "admin", "--subject", "colleague"]);
    let headers = [("Idempotency-Key", "k1")];
    let body = purchase("TW", 6).to_string();
    colleague
        .send("PUT", "/api/v1/quotas/a", &headers, body)
        .await
        .expect_done();
    assert_eq!(server.admin().quotas().await.total("a"), 6);
}
