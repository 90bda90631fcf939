//! Several servers on one PostgreSQL, as agents and portals see them; and that no log tells the database's password.

use std::time::Duration;

use gpuquota_proto::agent_v1::Heartbeat;
use gpuquota_proto::agent_v1::agent_message::Body as ToServer;
use gpuquota_tests::postgres::Cluster;
use gpuquota_tests::program::{Running, free_address};
use gpuquota_tests::quota::{GPU, purchase};
use gpuquota_tests::server::{Place, QUICK, Server, edit};
use gpuquota_tests::session::{Session, full, gpu};
use gpuquota_tests::skip::skipped;
use gpuquota_tests::wait::{SOON, throughout, until};
use tonic::Code;

/// A server on a database instead of its file.
async fn server(url: &str) -> Server {
    Server::at(&Place::Database(url.to_owned()), QUICK).await
}

async fn used(server: &Server, expected: u64) {
    until(&format!("{expected} are used"), SOON, async || {
        let quotas = server.admin().quotas().await;
        match quotas.used("a", "flexible", GPU) {
            used if used == expected => Ok(()),
            used => Err(used.to_string()),
        }
    })
    .await;
}

async fn alive(session: &Session) {
    let heartbeat = Heartbeat {
        spool_id: "spool-1".to_owned(),
        ..Heartbeat::default()
    };
    session.send(ToServer::Heartbeat(heartbeat)).await;
}

async fn state(server: &Server, expected: &str) -> Result<(), String> {
    let known = server.admin().node("n1").await;
    match known["state"] == expected {
        true => Ok(()),
        false => Err(known.to_string()),
    }
}

#[tokio::test]
async fn case_50_agents_hang_on_any_replica_and_what_one_learns_all_know() {
    let cluster = match Cluster::shared() {
        Ok(cluster) => cluster,
        Err(why) => return skipped("case 50 on two servers", &why),
    };
    let url = cluster.database();
    let (one, mut two) = (server(&url).await, server(&url).await);
    let done = one.admin().put("a", purchase("default", 4)).await;
    done.expect_done();
    // What was written at one is read at the other, by the row that the answer named.
    let headers = [("gpuquota-seq", done.header("gpuquota-seq"))];
    let list = "/api/v1/quota/user-quotas";
    let read = two
        .admin()
        .try_send("GET", list, &headers, String::new())
        .await
        .unwrap();
    assert!(
        read.status == 200 && read.text.contains("\"a\""),
        "{}",
        read.text
    );

    let mut old = Session::of(&one, "n1").await;
    old.acked(full(1, vec![gpu("GPU-1", &["a"])])).await;
    used(&two, 1).await;
    // The node goes on at the other server: the first one ends what it still has of it.
    let mut new = Session::of(&two, "n1").await;
    assert!(new.number > old.number);
    assert_eq!(old.end().await, Code::Aborted);
    new.acked(full(2, vec![gpu("GPU-1", &["a"]), gpu("GPU-2", &["a"])]))
        .await;
    used(&one, 2).await;
    // The first hears nothing of the node now, and does not call that silence.
    throughout("the node is up", Duration::from_secs(5), async || {
        alive(&new).await;
        state(&one, "up").await
    })
    .await;
    // Once the server that heard it is gone, any other may.
    two.kill9();
    until("the node is silent", SOON, async || {
        state(&one, "silent").await
    })
    .await;
    used(&one, 2).await;
    let again = Session::of(&one, "n1").await;
    assert!(again.number > new.number);
    state(&one, "up").await.unwrap();
}

#[tokio::test]
async fn the_password_of_the_database_stands_in_no_log_and_no_answer() {
    let cluster = match Cluster::shared() {
        Ok(cluster) => cluster,
        Err(why) => return skipped("the password of the database", &why),
    };
    const SECRET: &str = "s3cret-of-the-ledger";
    let mut server = Server::start().await;
    server.stop().await;
    let (config, file) = (
        server.dir.join("server.toml"),
        server.dir.join("database.url"),
    );
    let url = cluster
        .database()
        .replace("gpuquota@", &format!("gpuquota:{SECRET}@"));
    let path = "path = \"ledger.db\"";
    // In a file that others may read it is refused.
    edit(&config, &[(path, &format!("{path}\ndatabase = \"{url}\""))]);
    let refused = server.refused_start().await;
    assert!(
        refused.contains("ledger.url_file") && !refused.contains(SECRET),
        "{refused}"
    );
    let line = format!("database = \"{url}\"");
    edit(&config, &[(&line, "url_file = \"database.url\"")]);
    for wrong in [
        url.replace("postgres://", "mysql://"),
        format!("{url}?pasword={SECRET}"),
        url.replace(&format!(":{}/", cluster.port()), ":1/"),
    ] {
        std::fs::write(&file, wrong).unwrap();
        let refused = server.refused_start().await;
        assert!(!refused.contains(SECRET), "{refused}");
    }
    std::fs::write(&file, url).unwrap();
    (server.rest, server.agents, server.metrics) = (free_address(), free_address(), free_address());
    let mut process = Running::start("server", server.command().env("RUST_LOG", "trace"));
    process.line_with(" serving ").await;
    let put = server.admin().put("a", purchase("default", 4)).await;
    put.expect_done();
    let ended = process.terminate().await;
    let log = process.log();
    assert!(ended.success() && log.len() > 5, "{log:?}");
    assert!(log.iter().all(|line| !line.contains(SECRET)));
}
