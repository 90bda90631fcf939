//! Who gets an answer from the listener, and who does not.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{board_at, observation};
use crate::metrics::dcgm::Dcgm;
use crate::metrics::http::Server;

pub(super) async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

pub(super) async fn serve(token: Option<&str>) -> SocketAddr {
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

const SCRAPES: usize = 100;

/// Case 66: whoever is on the node can open connections, and leave them silent, half said or unread; that must not keep the
/// scraper out. The scraper takes its time
/// to say what it wants.
#[tokio::test]
async fn case_66_a_flood_of_connections_does_not_keep_a_scraper_from_its_answer() {
    let address = serve(None).await;
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let flood = std::thread::spawn(move || flood(address, &seen));
    let scrapes =
        tokio::task::spawn_blocking(move || (0..SCRAPES).filter(|_| is_answered(address)).count());
    let answered = tokio::time::timeout(Duration::from_secs(30), scrapes).await;
    over.store(true, Ordering::Relaxed);
    let came = tokio::task::spawn_blocking(|| flood.join().unwrap());
    assert_eq!(answered.unwrap().unwrap(), SCRAPES);
    assert!(came.await.unwrap() > 300, "that was no flood");
}

fn flood(address: SocketAddr, over: &AtomicBool) -> usize {
    let words = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    // Most say nothing or half of it; one in sixteen does not read its answer.
    let says = |came: usize| match came % 16 {
        0 => &words[..],
        1..8 => &words[..20],
        _ => &[],
    };
    let mut held = VecDeque::new();
    let mut came = 0;
    while !over.load(Ordering::Relaxed) {
        for _ in 0..40 {
            let Ok(mut stream) = std::net::TcpStream::connect(address) else {
                continue;
            };
            let _ = stream.write_all(says(came));
            held.push_back(stream);
            came += 1;
        }
        held.drain(..held.len().saturating_sub(300));
        std::thread::sleep(Duration::from_millis(5));
    }
    came
}

fn is_answered(address: SocketAddr) -> bool {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    // Reset where the place went to another one.
    let whole = stream
        .write_all(request)
        .and_then(|()| stream.read_to_end(&mut answer));
    whole.is_ok() && answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"\n")
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
