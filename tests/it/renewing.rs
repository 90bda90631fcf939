//! Certificates of seconds: renewed at half their life, and what happens when nobody is there to renew them.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use gpuquota_proto::identity::peer_identity;
use gpuquota_proto::tls::chain;
use gpuquota_tests::node::Node;
use gpuquota_tests::server::{QUICK, Server};
use gpuquota_tests::wait::{SOON, until, wall_ms};

use crate::joining::{join, join_token, joined, text};

/// As short as the configuration takes it, and how long that may take on a busy machine.
const LIFE: (&str, &str) = ("certificate_life = \"7d\"", "certificate_life = \"10s\"");
const LIVES: Duration = Duration::from_secs(60);

// End of the certificate in its file, milliseconds since 1970.
fn end(node: &Node) -> i64 {
    let leaf = chain(&node.dir.join("agent.crt")).unwrap();
    peer_identity(&leaf[0]).unwrap().not_after_unix_s * 1000
}

async fn renewed(node: &Node, after: i64) {
    until("the certificate is renewed", LIVES, async || {
        match end(node) {
            end if end > after => Ok(()),
            end => Err(format!("it ends at {end}")),
        }
    })
    .await;
}

async fn past(moment: i64) {
    until("it is later", LIVES, async || match wall_ms() {
        now if now > moment => Ok(()),
        now => Err(format!("it is {now}, not {moment}")),
    })
    .await;
}

#[tokio::test]
async fn a_node_renews_at_half_life_with_a_new_key_and_no_session_is_lost() {
    let server = Server::with(&[QUICK[0], LIFE]).await;
    let mut node = joined(&server, "n1");
    let key = std::fs::read(node.dir.join("agent.key")).unwrap();
    let first = end(&node);
    node.run().await;
    node.up(&server.admin()).await;
    // Twice past the end of the first one.
    renewed(&node, first + 5_000).await;
    node.up(&server.admin()).await;
    assert_ne!(std::fs::read(node.dir.join("agent.key")).unwrap(), key);
    let about = std::fs::metadata(node.dir.join("agent.key")).unwrap();
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
    assert!(!node.dir.join("agent.key.next").exists());
    until("the session has the newest one", SOON, async || {
        let scrape = node.scrape().await;
        let seen = scrape.value("gpuquota_certificate_not_after_timestamp_seconds", &[]);
        match seen {
            Some(seen) if seen * 1000.0 > first as f64 => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    })
    .await;
    let log = node.process().log();
    let says = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    assert!(says("going over to a new connection") >= 1, "{log:?}");
    assert_eq!(says("no session with the server"), 0, "{log:?}");
    assert_eq!(says("refused"), 0, "{log:?}");
}

#[tokio::test]
async fn cases_3_and_11_a_server_that_is_away_costs_no_token_before_the_end_and_one_after_it() {
    let mut server = Server::with(&[QUICK[0], LIFE]).await;
    let mut node = joined(&server, "n1");
    node.run().await;
    node.up(&server.admin()).await;
    let agent = node.process().pid();

    // Away when it was to be renewed, and back in time.
    server.stop().await;
    let before = end(&node);
    past(before - 4_000).await;
    assert_eq!(end(&node), before, "nobody was there");
    server.serve().await;
    renewed(&node, before).await;
    node.up(&server.admin()).await;

    // Away until it has ended: the agent goes on reading, the server refuses it, and a token mends that.
    server.stop().await;
    past(end(&node) + 1_000).await;
    node.seen("the agent goes on", |scrape| {
        scrape.value("gpuquota_nvml_state", &[("state", "ok")]) == Some(1.0)
    })
    .await;
    server.serve().await;
    until("it is refused", SOON, async || {
        let log = server.process().log();
        match log.iter().any(|line| line.contains("certificate expired")) {
            true => Ok(()),
            false => Err(log.join("\n")),
        }
    })
    .await;
    until("its node is silent", SOON, async || {
        match server.admin().node("n1").await {
            known if known["state"] == "silent" => Ok(()),
            known => Err(known.to_string()),
        }
    })
    .await;
    let token = join_token(&server, "n1");
    let again = join(&server, &node.dir, &token);
    assert!(again.status.success(), "{}", text(&again.stderr));
    node.up(&server.admin()).await;
    assert_eq!(node.process().pid(), agent, "it was restarted");
}
