//! A real Prometheus scrapes server and agent and answers; `promtool` finds nothing to say about either text.

use std::io::Write as _;
use std::process::{Command, Stdio};

use gpuquota_tests::node::{Node, Place};
use gpuquota_tests::program::{Running, free_port};
use gpuquota_tests::quota::{GPU, purchase, quota};
use gpuquota_tests::server::Server;
use gpuquota_tests::wait::{SOON, until};
use serde_json::Value;

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
    let config = server.home().join("prometheus.yml");
    let targets = format!("'{}', '{}'", server.metrics, node.metrics);
    let text = format!(
        "global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}\nscrape_configs:\n- job_name: gpuquota\n  static_configs:\n  - targets: [{targets}]\n"
    );
    std::fs::write(&config, text).unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!(
        "--storage.tsdb.path={}",
        server.home().join("tsdb").display()
    ));
    command.arg(format!("--web.listen-address={address}"));
    let _prometheus = Running::start("prometheus", &mut command);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |query: &str| -> Result<Vec<(Value, String)>, String> {
        let query = query
            .replace('{', "%7B")
            .replace('}', "%7D")
            .replace('"', "%22")
            .replace(' ', "%20");
        let url = format!("http://{address}/api/v1/query?query={query}");
        let answer = client.get(url).send().await.map_err(|e| e.to_string())?;
        let answer: Value = answer.json().await.map_err(|e| e.to_string())?;
        let rows = answer["data"]["result"]
            .as_array()
            .cloned()
            .ok_or_else(|| answer.to_string())?;
        Ok(rows
            .iter()
            .map(|row| {
                (
                    row["metric"].clone(),
                    row["value"][1].as_str().unwrap_or("").to_owned(),
                )
            })
            .collect())
    };
    let becomes = async |query: &str, expected: &str| {
        until(&format!("{query} is {expected}"), SOON, async || {
            let rows = ask(query).await?;
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
    let rows = ask("gpuquota_quota_limit{tenant=\"a\"}").await.unwrap();
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
