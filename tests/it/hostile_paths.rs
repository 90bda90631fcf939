//! Paths as no client library would send them (case 28), and targets that are no paths (cases 30, 32).

use gpuquota_tests::quota::purchase;
use gpuquota_tests::raw::{body, exchange, request, status};
use gpuquota_tests::server::Server;

#[tokio::test]
async fn case_28_hostile_paths() {
    let server = Server::start().await;
    let admin = server.admin();
    for tenant in ["a", "b", "quotas", "A"] {
        admin.put(tenant, purchase("TW", 5)).await.expect_done();
    }
    let before = server.fingerprint().await;
    let put = purchase("TW", 1).to_string();
    let token = server.admin_token();
    let long = "a".repeat(8 * 1024);
    let name = "a".repeat(256);
    let cases: &[(&str, &[u16])] = &[
        ("/api/v1/quotas/%2e%2e", &[400]),
        ("/api/v1/quotas/%2e", &[400]),
        ("/api/v1/quotas/..", &[400]),
        ("/api/v1/quotas/../quotas/a", &[404]),
        ("/api/v1/x/../quotas/a", &[404]),
        ("/api/v1/quotas/a%2Fb", &[400]),
        ("/api/v1/quotas/%2e%2e%2fa", &[400]),
        ("/api/v1/quotas/%2561", &[400]),
        ("/api/v1/quotas/%252e%252e", &[400]),
        ("/api/v1/quotas/a%00", &[400]),
        ("/api/v1/quotas/a%0d%0aX-Evil:%201", &[400]),
        ("/api/v1/quotas/%ff", &[400]),
        ("/api/v1/quotas/%c0%ae", &[400]),
        ("/api/v1/quotas/%", &[400]),
        ("/api/v1/quotas/a%2", &[400]),
        ("/api/v1/quotas/a%zz", &[400]),
        ("/api/v1/quotas/a;b=c", &[400]),
        ("/api/v1/quotas/a%20", &[400]),
        ("/api/v1/quotas/%E4%BA%91", &[400]),
        ("/api/v1/quotas/", &[404]),
        ("/api/v1/quotas//", &[404]),
        ("/api/v1/quotas//a", &[404]),
        ("/api/v1//quotas/a", &[404]),
        ("//api/v1/quotas/a", &[404]),
        ("/API/v1/quotas/a", &[404]),
        ("/api/v1/quotas/a/", &[404]),
        ("/api/v1/quotas/a\\..\\b", &[400]),
    ];
    for (path, expected) in cases {
        for method in ["PUT", "DELETE"] {
            let extra = format!("Content-Length: {}\r\n", put.len());
            let text = request(&format!("{method} {path}"), token, &extra) + &put;
            let answer = exchange(server.rest, text.as_bytes()).await;
            assert!(
                expected.contains(&status(&answer)),
                "{method} {path}: {answer}"
            );
            assert!(!answer.contains("\r\nX-Evil"), "{answer}");
            if path.starts_with("/api/v1/quotas") {
                assert!(
                    body(&answer).starts_with(r#"{"code":4"#),
                    "{method} {path}: {answer}"
                );
            }
        }
    }
    for path in [
        format!("/api/v1/quotas/{long}"),
        format!("/api/v1/quotas/{name}"),
    ] {
        let answer = exchange(
            server.rest,
            request(&format!("PUT {path}"), token, "").as_bytes(),
        )
        .await;
        assert_eq!(status(&answer), 400, "{answer}");
    }
    let endless = format!("GET /api/v1/{}", "a".repeat(100_000));
    let answer = exchange(server.rest, request(&endless, token, "").as_bytes()).await;
    assert!([0, 400, 414, 431].contains(&status(&answer)), "{answer}");
    // A raw NUL or a blank in the target is not HTTP.
    for target in [
        "/api/v1/quotas/a\0",
        "/api/v1/quotas/a b",
        "/api/v1/quotas/a\u{1}",
    ] {
        let answer = exchange(
            server.rest,
            request(&format!("PUT {target}"), token, "").as_bytes(),
        )
        .await;
        assert_eq!(status(&answer), 400, "{answer}");
    }
    assert_eq!(server.fingerprint().await, before);
    // Decoded once, it is the tenant's own name.
    let text = request(
        "PUT /api/v1/quotas/%61",
        token,
        &format!("Content-Length: {}\r\n", put.len()),
    ) + &put;
    let answer = exchange(server.rest, text.as_bytes()).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(admin.quotas().await.total("a"), 1);
}

#[tokio::test]
async fn case_32_connect_and_targets_of_other_forms_serve_nobody_else() {
    let server = Server::start().await;
    server
        .admin()
        .put("a", purchase("TW", 1))
        .await
        .expect_done();
    let before = server.fingerprint().await;
    let token = server.admin_token();
    for line in [
        "CONNECT example.org:443",
        "CONNECT /api/v1/quotas/a",
        "OPTIONS *",
        "GET *",
        "DELETE *",
        "TRACE /api/v1/quota/user-quotas",
        "TRACE /api/v1/quotas/a",
    ] {
        let answer = exchange(
            server.rest,
            request(line, token, "Max-Forwards: 0\r\n").as_bytes(),
        )
        .await;
        assert!(
            [400, 404, 405].contains(&status(&answer)),
            "{line}: {answer}"
        );
        // TRACE would echo the credential.
        assert!(!answer.contains(token), "{answer}");
        if line.starts_with("TRACE") {
            assert!(
                status(&answer) == 405 && answer.to_ascii_lowercase().contains("\r\nallow: "),
                "{answer}"
            );
            assert!(body(&answer).starts_with(r#"{"code":40501"#), "{answer}");
        }
    }
    assert_eq!(server.fingerprint().await, before);
}

#[tokio::test]
async fn case_30_a_forged_host_changes_no_answer() {
    let server = Server::start().await;
    server
        .admin()
        .put("a", purchase("TW", 1))
        .await
        .expect_done();
    let expected = server.admin().list("").await.text;
    let token = server.admin_token();
    for host in ["evil.example", "evil.example:1\tx", ""] {
        let text = format!(
            "GET /api/v1/quota/user-quotas HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nX-Forwarded-Host: evil.example\r\nConnection: close\r\n\r\n"
        );
        let answer = exchange(server.rest, text.as_bytes()).await;
        assert!(!answer.contains("evil"), "{answer}");
        assert!([200, 400].contains(&status(&answer)), "{answer}");
        if status(&answer) == 200 {
            assert_eq!(body(&answer), expected);
        }
    }
}
