//! Nodes and certificates that are refused: banned by an operator, or retired.

use std::process::Command;
use std::time::Duration;

use gpuquota_proto::agent_v1::RenewRequest;
use gpuquota_proto::agent_v1::joining_client::JoiningClient;
use gpuquota_proto::identity::peer_identity;
use gpuquota_proto::tls::chain;
use gpuquota_tests::mtls::{Papers, channel};
use gpuquota_tests::postgres::Cluster;
use gpuquota_tests::program::{program, succeed};
use gpuquota_tests::server::{Place, QUICK, Server};
use gpuquota_tests::session::{Session, hello};
use gpuquota_tests::skip::skipped;
use gpuquota_tests::wait::{now, until};
use serde_json::json;
use tonic::{Code, Status};

use crate::joining::{join, join_token, request, text};

const AT_MOST: Duration = Duration::from_secs(5);

fn ban(server: &Server, args: &[&str]) -> String {
    let mut command = Command::new(program("gpuquota-server"));
    command.args(["ban", "--dir"]).arg(&server.dir).args(args);
    succeed(&mut command)
}

fn papers(server: &Server, node: &str) -> (Papers, String) {
    let dir = server.issue_agent(node);
    let leaf = chain(&dir.join("agent.crt")).unwrap();
    let serial = peer_identity(&leaf[0]).unwrap().serial;
    (Papers::read(&dir, "agent"), serial)
}

async fn opened(server: &Server, papers: &Papers, node: &str) -> Result<Session, Status> {
    Session::open(server, papers, hello(node)).await
}

async fn admitted(server: &Server, papers: &Papers, node: &str) -> Session {
    until("it may speak again", AT_MOST, async || {
        let opened = opened(server, papers, node).await;
        opened.map_err(|status| status.to_string())
    })
    .await
}

// Both may be the same server, or two on one journal.
async fn cut_off(asked: &Server, hearing: &Server) {
    let (own, serial) = papers(hearing, "n1");
    let (other, _) = papers(hearing, "n2");
    let mut bystander = opened(hearing, &other, "n2").await.unwrap();
    for who in [["--node", "n1"], ["--serial", serial.as_str()]] {
        let mut open = admitted(hearing, &own, "n1").await;
        let begin = now();
        let said = ban(asked, &[&who[..], &["--reason", "ticket 7"]].concat());
        assert!(said.contains("is refused from now on"), "{said}");
        assert_eq!(open.end().await, Code::PermissionDenied);
        assert!(begin.elapsed() < AT_MOST, "{:?}", begin.elapsed());
        let again = opened(hearing, &own, "n1").await;
        assert_eq!(again.unwrap_err().code(), Code::PermissionDenied);
        // Neither does it get itself another certificate.
        let line = channel(hearing.agents, &hearing.dir, Some(&own)).await;
        let mut renewing = JoiningClient::new(line.unwrap());
        let renewed = renewing.renew(RenewRequest {
            csr_der: request(None),
        });
        assert_eq!(renewed.await.unwrap_err().code(), Code::PermissionDenied);
        let listed = asked.admin().get("/api/v1/bans").await.json();
        assert_eq!(listed["bans"].as_array().map(Vec::len), Some(1), "{listed}");
        let audit = asked.admin().get("/api/v1/audit").await.text;
        assert!(
            audit.contains("ticket 7") && audit.contains("admin:cli"),
            "{audit}"
        );
        let said = ban(asked, &[&who[..], &["--lift"]].concat());
        assert!(said.contains("is accepted again"), "{said}");
    }
    let _ = admitted(hearing, &own, "n1").await;
    bystander
        .acked(gpuquota_tests::session::full(1, Vec::new()))
        .await;
}

#[tokio::test]
async fn case_5_a_banned_node_or_certificate_is_cut_off_and_refused_until_it_is_lifted() {
    let server = Server::with(QUICK).await;
    cut_off(&server, &server).await;
}

#[tokio::test]
async fn case_5_a_ban_counts_on_every_server_of_one_journal() {
    let cluster = match Cluster::shared() {
        Ok(cluster) => cluster,
        Err(why) => return skipped("case 5 on two servers", &why),
    };
    let place = Place::Database(cluster.database());
    let (one, two) = (
        Server::at(&place, QUICK).await,
        Server::at(&place, QUICK).await,
    );
    cut_off(&one, &two).await;
}

#[tokio::test]
async fn case_63_a_retired_node_comes_back_by_a_new_token_or_an_operators_word_only() {
    let server = Server::with(QUICK).await;
    let admin = server.admin();
    let (own, _) = papers(&server, "n1");
    let mut open = opened(&server, &own, "n1").await.unwrap();
    let retire = || {
        let mut command = Command::new(program("gpuquota-server"));
        command.args(["retire-node", "--force", "--node", "n1", "--dir"]);
        succeed(command.arg(&server.dir))
    };
    let _ = retire();
    assert_eq!(open.end().await, Code::PermissionDenied);
    let again = opened(&server, &own, "n1").await.unwrap_err();
    assert_eq!(again.code(), Code::PermissionDenied);
    assert!(again.message().contains("was retired"), "{again}");
    assert_eq!(admin.get("/api/v1/nodes/n1").await.status, 404);
    // With a new token's certificate it is a node; the old one makes it none.
    let dir = server.home().join("joined");
    let done = join(&server, &dir, &join_token(&server, "n1"));
    assert!(done.status.success(), "{}", text(&done.stderr));
    let new = Papers::read(&dir, "agent");
    let _open = opened(&server, &new, "n1").await.unwrap();
    let old = opened(&server, &own, "n1").await.unwrap_err();
    assert_eq!(old.code(), Code::PermissionDenied);
    assert_eq!(admin.get("/api/v1/nodes/n1").await.status, 200);
    // The operator's word makes it a node with what it has.
    let _ = retire();
    let body = json!({"region": "default"});
    let put = admin.json("PUT", "/api/v1/nodes/n1", &body).await;
    assert_eq!(put.status, 200, "{}", put.text);
    let _open = admitted(&server, &own, "n1").await;
}
