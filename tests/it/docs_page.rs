//! `/docs` in a real browser that reaches nothing but the server: every operation is on the page.

use std::process::Stdio;
use std::time::Duration;

use gpuquota_tests::server::Server;
use gpuquota_tests::skip::skipped;
use tokio::process::Command;

const DEADLINE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_browser_without_a_network_shows_every_operation() {
    let server = Server::start().await;
    let profile = tempfile::tempdir().unwrap();
    let page = format!("http://{}/docs", server.rest);
    let mut browser = Command::new("chromium");
    browser
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
        // Other names lead nowhere, so what the page needed from elsewhere would be missing.
        .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
        .arg("--virtual-time-budget=20000")
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(&page)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let shown = match tokio::time::timeout(DEADLINE, browser.output()).await {
        Ok(Ok(output)) => String::from_utf8(output.stdout).unwrap(),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return skipped(
                "the page of the API in a browser",
                "chromium is not installed",
            );
        }
        other => panic!("{other:?}"),
    };
    let document = server.admin().get("/openapi.json").await.json();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            // What the scripts draw for an operation; the list for readers without scripts has none of it.
            let drawn = format!("opblock-summary-{method}");
            assert!(shown.contains(&drawn), "{method} {path}: {shown:.2000}");
        }
        let drawn = format!("data-path=\"{path}\"");
        assert!(shown.contains(&drawn), "{path}: {shown:.2000}");
    }
}
