//! A real Prometheus scrapes server and agent and answers; `promtool` finds nothing to say about either text.

use std::io::Write as _;
use std::process::{Command, Stdio};

use gpuquota_tests::node::{Node, Place};
use gpuquota_tests::prometheus::Prometheus;
use gpuquota_tests::quota::{GPU, purchase, quota};
use gpuquota_tests::server::Server;
use gpuquota_tests::wait::{SOON, until};

fn lint(what: &str, text: &str) {
    let mut promtool = Command::new("promtool");
    promtool
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = promtool
        .spawn()
        .expect("promtool is missing: install the package prometheus, as tests/run does");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        output.status.success() && said.is_empty(),
        "promtool about the {what}: {said}\n{text}"
    );
}

#[tokio::test]
async fn promtool_finds_nothing_to_say() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.put("a", purchase("default", 1)).await.expect_done();
    admin
        .put("b", quota("华东 \"1\"", "assign", "a\\b", 2))
        .await
        .expect_done();
    let mut node = Node::new(&server, "n1", "a100x2");
    node.edit(|scenario| scenario.slice("0", &["1g.10gb", "2g.20gb"]));
    node.run().await;
    node.up(&admin).await;
    let held = node.workload("a", Place::Gpu("1"));
    node.seen("a tenant is in the text", |scrape| {
        scrape.sum("gpuquota_tenant_devices", &[]) == 1.0
    })
    .await;
    let agent = node.scrape().await;
    lint("agent", &agent.text);
    lint("server", &server.scrape().await.text);
    // No process, command or job is a label: their number has no bound.
    for scrape in [agent.text, server.scrape().await.text] {
        for label in ["pid=", "command=", "job=", "process="] {
            assert!(
                !scrape.contains(&format!("{{{label}")) && !scrape.contains(&format!(",{label}")),
                "{label}"
            );
        }
    }
    drop(held);
}

#[tokio::test]
async fn a_real_prometheus_scrapes_both_and_answers() {
    let server = Server::start().await;
    server
        .admin()
        .put("a", purchase("default", 2))
        .await
        .expect_done();
    let node = Node::start(&server, "n1", "h100x4").await;
    let targets = format!("'{}', '{}'", server.metrics, node.metrics);
    let prometheus = Prometheus::start(
        server.home(),
        &format!("- job_name: gpuquota\n  static_configs:\n  - targets: [{targets}]\n"),
    );
    let becomes = async |query: &str, expected: &str| {
        until(&format!("{query} is {expected}"), SOON, async || {
            let rows = prometheus.ask(query).await?;
            match rows.as_slice() {
                [(_, value)] if value == expected => Ok(()),
                [] if expected.is_empty() => Ok(()),
                _ => Err(format!("{rows:?}")),
            }
        })
        .await;
    };
    becomes("sum(up{job=\"gpuquota\"})", "2").await;
    becomes("gpuquota_quota_used{tenant=\"a\"}", "0").await;
    let held = node.workload("a", Place::Gpu("0"));
    becomes("gpuquota_quota_used{tenant=\"a\"}", "1").await;
    becomes("gpuquota_tenant_devices", "1").await;
    let rows = prometheus.ask("gpuquota_quota_limit{tenant=\"a\"}").await;
    let rows = rows.unwrap();
    let labels = &rows[0].0;
    for (label, value) in [
        ("region", "default"),
        ("source", "purchase"),
        ("type", "flexible"),
        ("gpu_model", GPU),
    ] {
        assert_eq!(labels[label], value, "{labels}");
    }
    held.end();
    becomes("gpuquota_quota_used{tenant=\"a\"}", "0").await;
    becomes("gpuquota_tenant_devices", "").await;
}
