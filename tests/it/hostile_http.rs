//! HTTP that tries to be two requests at once, or none for ever (cases 24 and 29).

use std::time::Duration;

use gpuquota_tests::program::s;
use gpuquota_tests::quota::purchase;
use gpuquota_tests::raw::{Raw, body, status};
use gpuquota_tests::server::Server;
use gpuquota_tests::skip::{left_out, slow};
use gpuquota_tests::wait::now;

/// What the server may have used at most in all of this.
const MEMORY_CAP_KIB: u64 = 160 * 1024;

#[tokio::test]
async fn case_29_no_second_request_is_ever_smuggled_in() {
    let server = Server::start().await;
    let admin = server.admin();
    let before = server.fingerprint().await;
    let token = server.admin_token();
    let inner = purchase("TW", 7).to_string();
    // Whoever reads this as a second request would make a quota.
    let second = format!(
        "PUT /api/v1/quotas/smuggled HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{inner}",
        inner.len()
    );
    let length = second.len();
    let first = format!(
        "GET /api/v1/quota/user-quotas HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    );
    let forms = [
        format!(
            "{first}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{second}",
            length + 5
        ),
        format!("{first}Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n{second}"),
        format!("{first}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{second}"),
        format!("{first}Content-Length: 0, {length}\r\n\r\n{second}"),
        format!("{first}Content-Length: +0\r\n\r\n{second}"),
        format!("{first}Content-Length: -1\r\n\r\n{second}"),
        format!("{first}Content-Length: 0x0\r\n\r\n{second}"),
        format!("{first}Content-Length : 0\r\n\r\n{second}"),
        format!("{first}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{second}"),
        format!("{first}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{second}"),
        format!("{first}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{second}"),
        format!(
            "{first}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{second}"
        ),
        format!("{first}Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n{second}"),
        format!("{first}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{second}"),
        format!("{first}Transfer-Encoding: chunked\r\n\r\n-1\r\n{second}"),
        format!("{first}X: y\r\n folded: Content-Length: 0\r\n\r\n{second}")
            .replace("\r\n\r\nPUT", "\r\nPUT"),
        format!("{first}X: y\nContent-Length: {length}\r\n\r\n{second}"),
        format!("{first}X: y\rContent-Length: 0\r\n\r\n{second}"),
        format!("{first}X\0: y\r\n\r\n{second}"),
        format!("{}\r\n{second}", first.replace("HTTP/1.1", "HTTP/1.1 x")),
    ];
    // Those whose length only one reading of HTTP allows: then the rest may not be a request either.
    for form in forms {
        let mut raw = Raw::connect(server.rest).await;
        raw.send(form.as_bytes()).await;
        raw.half_close().await;
        let seen = raw
            .rest()
            .await
            .unwrap_or_else(|seen| panic!("{form:?} was not closed: {seen}"));
        let made = admin
            .quotas()
            .await
            .row("smuggled", "flexible", "nvidia.com/gpu")
            .is_some();
        assert!(!made, "smuggled by {form:?}: {seen}");
        assert!(
            seen.matches("HTTP/1.1 ").count() <= 1,
            "two answers to {form:?}: {seen}"
        );
    }
    assert_eq!(server.fingerprint().await, before);
    // And an honest pipeline is two requests, so that the test would notice.
    let mut raw = Raw::connect(server.rest).await;
    raw.send(
        format!(
            "{first}\r\n{}",
            second.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
        )
        .as_bytes(),
    )
    .await;
    let seen = raw.rest().await.unwrap();
    assert_eq!(seen.matches("HTTP/1.1 200").count(), 2, "{seen}");
    assert_eq!(admin.quotas().await.total("smuggled"), 7);
}

#[tokio::test]
async fn case_24_who_sends_a_body_that_nobody_reads_gets_the_answer_all_the_same() {
    let server = Server::start().await;
    let rest = vec![b' '; 700 * 1024];
    for (path, wanted) in [("/nothing/here", 404), ("/api/v1/quotas/a", 401)] {
        for _ in 0..10 {
            let mut raw = Raw::connect(server.rest).await;
            let length = rest.len();
            let head =
                format!("PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
            raw.send(head.as_bytes()).await;
            for piece in rest.chunks(16 * 1024) {
                assert!(raw.send(piece).await, "{path}: the connection broke off");
            }
            let answer = raw.answer().await;
            assert_eq!(status(&answer), wanted, "{answer}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        }
    }
}

#[tokio::test]
async fn case_24_a_body_without_bound_is_413_and_takes_no_memory() {
    let mut server = Server::start().await;
    let before = server.fingerprint().await;
    let head = format!(
        "PUT /api/v1/quotas/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n",
        server.admin_token()
    );
    let mut raw = Raw::connect(server.rest).await;
    raw.send(format!("{head}Content-Length: 1073741824\r\n\r\n").as_bytes())
        .await;
    let answer = raw.answer().await;
    assert!(
        status(&answer) == 413 && body(&answer).starts_with(r#"{"code":41301"#),
        "{answer}"
    );
    // The rest of the body is never read, so the client is told that the connection ends.
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    // A gibibyte in chunks, as long as the server takes it.
    let mut raw = Raw::connect(server.rest).await;
    raw.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes())
        .await;
    let chunk = [b"100000\r\n".as_slice(), &[b' '; 0x10_0000], b"\r\n"].concat();
    let mut sent = 0;
    while sent < 1024 && raw.send(&chunk).await {
        sent += 1;
    }
    assert!(sent < 64, "{sent} MiB were taken");
    let seen = raw.rest().await.unwrap_or_else(|seen| seen);
    // The answer may be lost when the server closes while the client still writes.
    assert!(seen.is_empty() || status(&seen) == 413, "{seen}");
    // The same from someone without a token: refused before any of it is read.
    let mut raw = Raw::connect(server.rest).await;
    raw.send(b"PUT /api/v1/quotas/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n")
        .await;
    assert_eq!(status(&raw.answer().await), 401);
    assert_eq!(server.fingerprint().await, before);
    let peak = server.process().memory_kib("VmHWM");
    assert!(peak < MEMORY_CAP_KIB, "{peak} KiB");
}

#[tokio::test]
async fn case_24_headers_without_end_are_refused_and_take_no_memory() {
    let mut server = Server::start().await;
    let before = server.fingerprint().await;
    let mut refusals = Vec::new();
    for line in [
        format!("X-Y: {}\r\n", "y".repeat(1000)),
        "X: y\r\n".to_owned(),
        "y".repeat(1000),
    ] {
        let mut raw = Raw::connect(server.rest).await;
        raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n").await;
        let mut sent = 0;
        while sent < 100 << 20 && raw.send(line.as_bytes()).await {
            sent += line.len();
        }
        assert!(sent < 32 << 20, "{sent} bytes of headers were taken");
        refusals.push(raw.rest().await.unwrap_or_else(|seen| seen));
    }
    for seen in &refusals {
        assert!(
            seen.is_empty() || [400, 431].contains(&status(seen)),
            "{seen}"
        );
    }
    // 65 small ones are one too many.
    let many: String = (0..65).map(|n| format!("X-{n}: y\r\n")).collect();
    let mut raw = Raw::connect(server.rest).await;
    raw.send(format!("GET /healthz HTTP/1.1\r\n{many}\r\n").as_bytes())
        .await;
    assert_eq!(status(&raw.answer().await), 431);
    assert_eq!(server.fingerprint().await, before);
    let peak = server.process().memory_kib("VmHWM");
    assert!(peak < MEMORY_CAP_KIB, "{peak} KiB");
}

#[tokio::test]
async fn case_24_one_byte_a_second_ends_at_a_deadline_and_stops_nobody() {
    let server = Server::start().await;
    let admin = server.admin();
    let before = server.fingerprint().await;
    let head = format!(
        "PUT /api/v1/quotas/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 100\r\n\r\n",
        server.admin_token()
    );
    let mut slow_body = Raw::connect(server.rest).await;
    slow_body.send(head.as_bytes()).await;
    let mut slow_head = Raw::connect(server.rest).await;
    slow_head.send(b"GET /api").await;
    let begin = now();
    let answer = slow_body
        .drip(b'x', Duration::from_millis(500), s(25))
        .await;
    assert!(
        status(&answer) == 408 && body(&answer).starts_with(r#"{"code":40801"#),
        "{answer}"
    );
    let took = begin.elapsed();
    assert!(
        (s(9)..s(20)).contains(&took),
        "the body's deadline came after {took:?}"
    );
    assert_eq!(admin.list("").await.status, 200);
    if slow() {
        let seen = slow_head.drip(b'x', s(1), s(60)).await;
        assert!(
            seen.is_empty() || [400, 408].contains(&status(&seen)),
            "{seen}"
        );
        let took = begin.elapsed();
        assert!(
            (s(25)..s(50)).contains(&took),
            "the headers' deadline came after {took:?}"
        );
    } else {
        left_out(
            "case 24, headers byte by byte",
            "takes 30 s; set GPUQUOTA_SLOW=1",
        );
    }
    assert_eq!(server.fingerprint().await, before);
}
