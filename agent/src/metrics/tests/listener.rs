//! Who gets an answer from the listener, and who does not.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{board_at, observation};
use crate::metrics::dcgm::Dcgm;
use crate::metrics::http::Server;

pub(super) async fn ask(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

pub(super) async fn serve(token: Option<&str>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server {
        board: Arc::new(board_at(observation(), crate::clock::boottime_ms())),
        token: token.map(str::to_owned),
        dcgm: Dcgm::default(),
    };
    tokio::spawn(server.run(listener, CancellationToken::new()));
    address
}

#[tokio::test]
async fn the_listener_knows_two_paths_and_two_methods() {
    let address = serve(None).await;
    let request = |line: &str| format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let get = ask(address, &request("GET /metrics")).await;
    assert!(get.starts_with("HTTP/1.1 200") && get.contains("text/plain; version=0.0.4"));
    assert!(get.contains("# TYPE gpuquota_up gauge"));
    let head = ask(address, &request("HEAD /metrics")).await;
    assert!(
        head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert!(
        ask(address, &request("GET /healthz"))
            .await
            .contains("mode report only")
    );
    assert!(
        ask(address, &request("GET /"))
            .await
            .starts_with("HTTP/1.1 404")
    );
    for method in ["POST", "TRACE", "DELETE", "BREW"] {
        let answer = ask(address, &request(&format!("{method} /metrics"))).await;
        assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET, HEAD"));
    }
}

/// Case 66: whoever is on the node can open connections; that must not keep the scraper out.
#[tokio::test]
async fn idle_connections_do_not_keep_a_scraper_waiting() {
    let address = serve(None).await;
    let mut idle = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\n")
            .await
            .unwrap();
        idle.push(stream);
    }
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = tokio::time::timeout(Duration::from_secs(5), ask(address, request)).await;
    assert!(answer.unwrap().starts_with("HTTP/1.1 200"));
    // The oldest one made room for it.
    let mut rest = Vec::new();
    let _ = idle[0].read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn case_66_without_the_token_nothing_is_told() {
    let address = serve(Some("a-token-of-some-length")).await;
    let request = |path: &str, header: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n{header}Connection: close\r\n\r\n")
    };
    for path in ["/metrics", "/healthz"] {
        for header in [
            "",
            "Authorization: Bearer \r\n",
            "Authorization: Bearer a-token-of-some-lengtH\r\n",
            "Authorization: Basic a-token-of-some-length\r\n",
        ] {
            let answer = ask(address, &request(path, header)).await;
            assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
            assert!(!answer.contains("gpuquota"), "{answer}");
        }
        let header = "Authorization: Bearer a-token-of-some-length\r\n";
        assert!(
            ask(address, &request(path, header))
                .await
                .starts_with("HTTP/1.1 200")
        );
    }
}
