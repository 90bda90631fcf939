//! HTTPS on the REST and metrics listeners: real TLS clients, certificates that change, and what is no TLS (case 13).

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gpuquota_tests::mtls::{Authority, Papers, tls_as};
use gpuquota_tests::program::succeed;
use gpuquota_tests::quota::purchase;
use gpuquota_tests::raw::{Raw, body, exchange, request, status};
use gpuquota_tests::rest::Rest;
use gpuquota_tests::server::{Server, edit};
use gpuquota_tests::wait::now;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ALL_VERSIONS, SupportedProtocolVersion, version};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const REST: (&str, &str) = (
    "# certificate = \"server.crt\"\n# key = \"server.key\"\n# Off",
    "certificate = \"rest.crt\"\nkey = \"rest.key\"\n# Off",
);
const METRICS: (&str, &str) = (
    "# As in [rest].\n# certificate = \"server.crt\"\n# key = \"server.key\"",
    "certificate = \"server.crt\"\nkey = \"server.key\"",
);
const METRIC: &str = "gpuquota_certificate_not_after_timestamp_seconds";

// REST over TLS with files of its own, so that the agents' stay as they are.
async fn server(edits: &[(&str, &str)]) -> Server {
    let mut server = Server::start().await;
    server.stop().await;
    for name in ["crt", "key"] {
        let from = server.dir.join(format!("server.{name}"));
        std::fs::copy(from, server.dir.join(format!("rest.{name}"))).unwrap();
    }
    edit(&server.dir.join("server.toml"), &[&[REST], edits].concat());
    server.serve().await;
    server
}

async fn connect(
    server: &Server,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Raw<TlsStream<TcpStream>>, String> {
    let stream = tls_as(server.rest, &server.dir, None, b"http/1.1", versions).await;
    stream.map(Raw)
}

fn seen(raw: &Raw<TlsStream<TcpStream>>) -> Vec<u8> {
    raw.0.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn der(papers: &Papers) -> Vec<u8> {
    let der = CertificateDer::from_pem_slice(papers.certificate.as_bytes());
    der.unwrap().to_vec()
}

fn list(server: &Server) -> Vec<u8> {
    let token = server.admin_token();
    let request = request("GET /api/v1/quota/user-quotas", token, "");
    request.replace("Connection: close\r\n", "").into_bytes()
}

// What stands there when it is read is a whole file, as `mv` gives it.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

async fn end(server: &Server, listener: &str) -> f64 {
    let labels = [("listener", listener)];
    server.scrape().await.value(METRIC, &labels).unwrap()
}

#[tokio::test]
async fn curl_and_both_versions_of_tls_are_served() {
    let server = server(&[]).await;
    let curl = |method: &str, path: &str, data: &str| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--cacert"]);
        curl.arg(server.dir.join("ca.crt"));
        curl.args(["-X", method, "-H", "Content-Type: application/json", "-d"]);
        curl.arg(data).arg("-H");
        curl.arg(format!("Authorization: Bearer {}", server.admin_token()));
        succeed(curl.arg(format!("https://localhost:{}{path}", server.rest.port())))
    };
    let quota = purchase("TW", 7).to_string();
    assert_eq!(curl("PUT", "/api/v1/quotas/a", &quota), r#"{"code":0}"#);
    for version in [&version::TLS12, &version::TLS13] {
        let mut raw = connect(&server, &[version]).await.unwrap();
        raw.send(&list(&server)).await;
        let answer = raw.answer().await;
        assert_eq!(status(&answer), 200, "{answer}");
        assert!(body(&answer).contains(r#""total_count":7"#), "{answer}");
    }
    // HTTP/2 is not spoken, so a client that speaks nothing else is told so.
    let other = tls_as(server.rest, &server.dir, None, b"h2", ALL_VERSIONS).await;
    assert!(other.is_err());
}

#[tokio::test]
async fn a_renewed_certificate_is_used_by_the_next_connection_and_open_ones_go_on() {
    let mut server = server(&[]).await;
    let before = der(&Papers::read(&server.dir, "rest"));
    let ends = (end(&server, "rest").await, end(&server, "agents").await);
    let mut open = connect(&server, ALL_VERSIONS).await.unwrap();
    assert_eq!(seen(&open), before);
    open.send(&list(&server)).await;
    assert_eq!(status(&open.answer().await), 200);

    let renewed = Authority::of_server(&server.dir).localhost(2090);
    let (certificate, key) = (server.dir.join("rest.crt"), server.dir.join("rest.key"));
    // Only half of it is there yet: the old pair serves on.
    replace(&key, &renewed.key);
    assert_eq!(seen(&connect(&server, ALL_VERSIONS).await.unwrap()), before);
    replace(&certificate, &renewed.certificate);
    let mut next = connect(&server, ALL_VERSIONS).await.unwrap();
    assert_eq!(seen(&next), der(&renewed));
    next.send(&list(&server)).await;
    assert_eq!(status(&next.answer().await), 200);
    open.send(&list(&server)).await;
    assert_eq!(status(&open.answer().await), 200);
    // 2090-01-01
    assert_eq!(end(&server, "rest").await, 3_786_912_000.0);
    assert!(ends.0 < 3_786_912_000.0 && ends.0 == ends.1, "{ends:?}");
    assert_eq!(end(&server, "agents").await, ends.1);

    // Neither open connections nor a handshake that never ends hold up the server's end.
    let _silent = Raw::connect(server.rest).await;
    let begin = now();
    server.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn unusable_files_keep_the_old_certificate_and_do_not_start_a_server() {
    let mut server = server(&[]).await;
    let good = Papers::read(&server.dir, "rest");
    let stranger = Authority::stranger().localhost(2090);
    let (certificate, key) = (server.dir.join("rest.crt"), server.dir.join("rest.key"));
    let ends = end(&server, "rest").await;
    for (certificate_text, key_text) in [
        ("", good.key.as_str()),
        ("no PEM at all", good.key.as_str()),
        (&stranger.certificate, good.key.as_str()),
        (&good.certificate, stranger.key.as_str()),
        (&good.certificate, ""),
        (&good.key, good.certificate.as_str()),
    ] {
        replace(&certificate, certificate_text);
        replace(&key, key_text);
        let mut raw = connect(&server, ALL_VERSIONS).await.unwrap();
        assert_eq!(seen(&raw), der(&good));
        raw.send(&list(&server)).await;
        assert_eq!(status(&raw.answer().await), 200);
        assert_eq!(end(&server, "rest").await, ends);
    }
    server
        .process()
        .line_with("the changed certificate cannot be used")
        .await;
    let log = server.process().log().join("\n");
    assert!(!log.contains("PRIVATE KEY"), "{log}");
    server.stop().await;
    let refused = server.refused_start().await;
    assert!(refused.contains("rest.crt"), "{refused}");
    std::fs::remove_file(&certificate).unwrap();
    let refused = server.refused_start().await;
    assert!(refused.contains("rest.crt"), "{refused}");
}

// A ClientHello for version 3.`minor` at most: random, no session, one suite, groups and signatures that any server takes.
fn hello(minor: u8) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let extensions = [
        0, 10, 0, 4, 0, 2, 0, 29, // x25519
        0, 11, 0, 2, 1, 0, // uncompressed points
        0, 13, 0, 4, 0, 2, 4, 3, // ECDSA over P-256 with SHA-256
    ];
    body.extend([0, 22]);
    body.extend(extensions);
    let length = u8::try_from(body.len()).unwrap();
    [&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length], &body[..]].concat()
}

#[tokio::test]
async fn case_13_what_is_no_tls_is_refused_and_handshakes_take_no_connections_place() {
    let mut server = server(&[("connections = 4096", "connections = 2")]).await;
    let http = String::from_utf8(list(&server)).unwrap();
    for bytes in [
        http.as_bytes(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0; 4096],
        &[0xff; 4096],
    ] {
        let answer = exchange(server.rest, bytes).await;
        assert!(!answer.contains("HTTP/"), "{answer}");
    }
    // The version alone is what is wrong with TLS 1.1: a fatal alert says so, where TLS 1.2 gets a ServerHello.
    let answer = exchange(server.rest, &hello(2)).await;
    assert_eq!(answer, "\x15\x03\x03\0\x02\x02\x46");
    let mut raw = Raw::connect(server.rest).await;
    raw.send(&hello(3)).await;
    raw.half_close().await;
    let answer = raw.rest().await.unwrap();
    assert!(answer.starts_with("\x16\x03\x03"), "{answer:?}");
    // Far more connections than there are places say nothing, or begin and never end.
    let mut slow = Vec::new();
    for number in 0..100 {
        let mut raw = Raw::connect(server.rest).await;
        if number % 2 == 0 {
            raw.send(&hello(3)[..20]).await;
        }
        slow.push(raw);
    }
    let begin = now();
    let mut raw = connect(&server, ALL_VERSIONS).await.unwrap();
    raw.send(&list(&server)).await;
    assert_eq!(status(&raw.answer().await), 200);
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "it waited for the others"
    );
    let log = server.process().log().join("\n");
    assert!(!log.contains("panicked"), "{log}");
    drop(slow);
}

// On every address, where only what is encrypted may be served.
async fn off_loopback(server: &mut Server) {
    let everywhere = |address: SocketAddr| SocketAddr::from(([0, 0, 0, 0], address.port()));
    server.stop().await;
    server.rest = everywhere(server.rest);
    server.metrics = everywhere(server.metrics);
}

#[tokio::test]
async fn off_loopback_a_server_without_certificates_does_not_start() {
    let mut server = Server::start().await;
    let config = server.dir.join("server.toml");
    off_loopback(&mut server).await;
    let refused = server.refused_start().await;
    assert!(refused.contains("metrics.certificate"), "{refused}");
    edit(&config, &[METRICS]);
    let refused = server.refused_start().await;
    assert!(
        refused.contains("set rest.certificate and rest.key"),
        "{refused}"
    );
    edit(&config, &[("plain_http = false", "plain_http = true")]);
    server.serve().await;
    let local = SocketAddr::from(([127, 0, 0, 1], server.rest.port()));
    let answer = Rest::new(local, Some(server.admin_token())).list("").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn off_loopback_with_certificates_rest_and_metrics_are_encrypted() {
    let mut server = server(&[METRICS]).await;
    off_loopback(&mut server).await;
    server.serve().await;
    for (port, path) in [
        (server.rest.port(), "/api/v1/quota/user-quotas"),
        (server.metrics.port(), "/metrics"),
    ] {
        let local = SocketAddr::from(([127, 0, 0, 1], port));
        let line = format!("GET {path}");
        let bytes = request(&line, server.admin_token(), "");
        assert_eq!(exchange(local, bytes.as_bytes()).await.find("HTTP/"), None);
        let stream = tls_as(local, &server.dir, None, b"http/1.1", ALL_VERSIONS).await;
        let mut raw = Raw(stream.unwrap());
        raw.send(bytes.as_bytes()).await;
        let answer = raw.rest().await.unwrap();
        assert_eq!(status(&answer), 200, "{answer}");
        let ends = answer.matches(METRIC).count();
        // HELP, TYPE and one row for each listener.
        assert_eq!(ends, if path == "/metrics" { 5 } else { 0 }, "{answer}");
    }
}

/// REST speaks HTTP/1.1 alone, so what floods HTTP/2 finds nothing to flood (case 33).
#[tokio::test]
async fn case_33_http_2_without_being_asked_gets_no_service() {
    // The preface, empty SETTINGS, and the header of a request on stream 1 that never ends.
    let frames = b"\0\0\0\x04\0\0\0\0\0\0\0\x04\x01\0\0\0\0\x01\x82\x86\x84\x41";
    let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), frames].concat();
    let plain = Server::start().await;
    let mut raw = Raw::connect(plain.rest).await;
    raw.send(&hello).await;
    let seen = raw.rest().await.unwrap();
    assert!(seen.is_empty() || status(&seen) == 400, "{seen:?}");
    assert_eq!(plain.admin().list("").await.status, 200);

    let server = server(&[]).await;
    let mut raw = connect(&server, ALL_VERSIONS).await.unwrap();
    raw.send(&hello).await;
    let seen = raw.rest().await.unwrap();
    assert!(seen.is_empty() || status(&seen) == 400, "{seen:?}");
    let mut raw = connect(&server, ALL_VERSIONS).await.unwrap();
    raw.send(&list(&server)).await;
    assert_eq!(status(&raw.answer().await), 200);
    // Upgrading to it is not taken either; the request is served as what it is (dialects, 002).
    let upgrade = "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    let request = request(
        "GET /api/v1/quota/user-quotas",
        plain.admin_token(),
        upgrade,
    );
    let request = request.replace(
        "Connection: close",
        "Connection: close, Upgrade, HTTP2-Settings",
    );
    let answer = exchange(plain.rest, request.as_bytes()).await;
    assert_eq!(status(&answer), 200, "{answer}");
}
