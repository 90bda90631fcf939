//! Which format and which names a scrape gets, and what that makes the agent read.

use super::listener::{ask, serve};
use super::{board, observation};

#[tokio::test]
async fn a_scrape_is_answered_in_the_format_and_names_it_asks_for() {
    let address = serve(None).await;
    let get = |target: &str, accept: &str| {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        );
        async move { ask(address, &request).await }
    };
    let open = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3";
    let answer = get("/metrics", open).await;
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(
        answer.contains("vary: Accept") && answer.ends_with("\n# EOF\n"),
        "{answer}"
    );
    assert!(
        answer.contains("# TYPE gpuquota_worker_restarts counter\n"),
        "{answer}"
    );
    assert!(
        answer.contains("gpuquota_worker_restarts_total 2\n"),
        "{answer}"
    );
    let plain = get("/metrics", "text/plain").await;
    assert!(plain.contains("text/plain; version=0.0.4") && !plain.contains("# EOF"));
    // Names that are no OpenMetrics are not called that.
    let dcgm = get("/metrics?x=1&compat=dcgm", open).await;
    assert!(dcgm.contains("text/plain; version=0.0.4") && !dcgm.contains("gpuquota_"));
    assert!(
        get("/metrics?compat=", open)
            .await
            .starts_with("HTTP/1.1 400")
    );
    assert!(
        get("/metrics?nocompat=dcgm", open)
            .await
            .contains("gpuquota_up")
    );
}

#[test]
fn what_few_ask_for_is_wanted_for_five_minutes() {
    let board = board(observation());
    assert!(!board.more_wanted(0));
    board.wants_more(1000);
    board.wants_more(500);
    assert!(board.more_wanted(300_999) && !board.more_wanted(301_000));
}
