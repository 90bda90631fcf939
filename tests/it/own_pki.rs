//! Certificates of another authority: own files and SPIFFE ids, no joining (cases 2, 4, 6 and 7 in that form).

use std::process::Command;

use gpuquota_tests::mtls::{Authority, Papers};
use gpuquota_tests::node::Node;
use gpuquota_tests::program::program;
use gpuquota_tests::server::{QUICK, Server};
use gpuquota_tests::session::{Session, hello};
use gpuquota_tests::wait::{SOON, until};
use rcgen::ExtendedKeyUsagePurpose;

use crate::joining::text;

const YEARS: (i32, i32) = (2020, 2090);
const SERVER_ID: &str = "spiffe://example.org/gpuquota/server";
const FORM: &str = "node_identity = \"spiffe://example.org/gpu/{node}/agent\"\n";

fn id(node: &str) -> String {
    format!("spiffe://example.org/gpu/{node}/agent")
}

fn fails(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "it did not fail");
    text(&output.stderr)
}

async fn said(node: &mut Node, what: &str) {
    until(what, SOON, async || {
        let log = node.process().log();
        match log.iter().any(|line| line.contains(what)) {
            true => Ok(()),
            false => Err(log.join("\n")),
        }
    })
    .await;
}

#[tokio::test]
async fn cases_2_4_6_and_7_another_authoritys_ids_name_nodes_and_the_server_and_nothing_else_does()
{
    let mut server = Server::with(QUICK).await;
    let mut node = Node::new(&server, "n1", "h100x1");
    let ours = Papers::read(&node.dir, "agent");
    server.stop().await;
    let config = server.dir.join("server.toml");
    let text_of = std::fs::read_to_string(&config).unwrap();
    let edited = text_of.replace(
        "ca_key = \"ca.key\"\n",
        &format!("ca_key = \"ca.key\"\n{FORM}"),
    );
    std::fs::write(&config, edited).unwrap();
    let refused = fails(&mut server.command());
    assert!(refused.contains("move that key away"), "{refused}");
    std::fs::remove_file(server.dir.join("ca.key")).unwrap();
    let (foreign, trusted) = Authority::foreign();
    std::fs::write(server.dir.join("ca.crt"), &trusted).unwrap();
    foreign.server(SERVER_ID).write(&server.dir, "server");
    server.serve().await;

    // Sessions: exactly one id of exactly this form.
    let (good, other) = (id("n1"), id("n2"));
    let long = id(&"a".repeat(300));
    let bad: &[&[&str]] = &[
        &[],
        &[&good, &other],
        &[&good, &good],
        &["spiffe://gpuquota/node/n1"],
        &["spiffe://other.example/gpu/n1/agent"],
        &["spiffe://example.org/gpu/n1"],
        &["spiffe://example.org/gpu/n1/agent/"],
        &["spiffe://example.org/gpu/n0/../n1/agent"],
        &["spiffe://example.org/gpu/n1%2fx/agent"],
        &["spiffe://example.org/gpu/N1/agent"],
        &["spiffe://EXAMPLE.org/gpu/n1/agent"],
        &["SPIFFE://example.org/gpu/n1/agent"],
        &[&long],
    ];
    let refused = async |papers: &Papers, what: &str| {
        let opened = Session::open(&server, papers, hello("n1")).await;
        assert!(opened.is_err(), "{what} was let in");
    };
    for names in bad {
        refused(&foreign.issue(names, "n1", YEARS), &format!("{names:?}")).await;
    }
    refused(&ours, "the certificate of our own authority").await;
    let strange = Authority::stranger().issue(&[&good], "n1", YEARS);
    refused(&strange, "a stranger's").await;
    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    refused(
        &foreign.issue_for(&[&good], "n1", YEARS, usage),
        "a server's use",
    )
    .await;
    assert_eq!(server.admin().get("/api/v1/nodes/n1").await.status, 404);

    // An agent: mixing is refused, then it speaks to the server with that id, whatever its address.
    std::fs::write(node.dir.join("ca.crt"), &trusted).unwrap();
    foreign
        .issue(&[&good], "n1", YEARS)
        .write(&node.dir, "agent");
    let path = node.dir.join("agent.toml");
    let text_of = std::fs::read_to_string(&path).unwrap();
    let text_of = text_of.replace("https://localhost:", "https://127.0.0.1:") + "";
    std::fs::write(&path, format!("{FORM}renew = true\n{text_of}")).unwrap();
    assert!(fails(&mut node.command()).contains("another authority"));
    let mut join = Command::new(program("gpuquota-agent"));
    let pin = format!("sha256:{}", "0".repeat(64));
    join.args(["join", "--server", "https://localhost:1", "--token", "x"]);
    let joined = fails(join.args(["--ca-hash", &pin, "--dir"]).arg(&node.dir));
    assert!(joined.contains("another authority"), "{joined}");
    let wrong = "server_identity = \"spiffe://example.org/gpuquota/other\"\n";
    std::fs::write(&path, format!("{FORM}{wrong}{text_of}")).unwrap();
    node.run().await;
    said(&mut node, "TLS with the server failed").await;
    assert_eq!(server.admin().get("/api/v1/nodes/n1").await.status, 404);
    assert!(node.process().terminate().await.success());
    node.process = None;
    let right = format!("server_identity = \"{SERVER_ID}\"\n");
    std::fs::write(&path, format!("{FORM}{right}{text_of}")).unwrap();
    node.run().await;
    node.up(&server.admin()).await;
    // Another tool renews its files: it goes over by itself, and never asks us.
    foreign
        .issue(&[&good], "n1", YEARS)
        .write(&node.dir, "agent");
    said(&mut node, "going over to a new connection").await;
    node.up(&server.admin()).await;
    let log = node.process().log().join("\n");
    assert!(!log.contains("no session with the server"), "{log}");
}
