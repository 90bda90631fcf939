//! Who may speak for a node: only whoever has its certificate of the server's own authority (cases 1 to 4, 6, 7, 13, 67).

use gpuquota_tests::mtls::{Authority, Papers, client, tls};
use gpuquota_tests::node::Node;
use gpuquota_tests::quota::{GPU, purchase};
use gpuquota_tests::raw::{Raw, exchange};
use gpuquota_tests::server::Server;
use gpuquota_tests::session::{Session, full, gpu, hello};
use gpuquota_tests::wait::{SOON, until};
use rcgen::ExtendedKeyUsagePurpose;
use tonic::Code;

const GOOD_YEARS: (i32, i32) = (2020, 2090);

fn uri(node: &str) -> String {
    format!("spiffe://gpuquota/node/{node}")
}

async fn refused(server: &Server, what: &str, papers: &Papers) {
    // With TLS 1.3 a client learns of the refusal only when it reads.
    let opened = Session::open(server, papers, hello("n1")).await;
    assert!(opened.is_err(), "{what} was let in as session {opened:?}");
}

#[tokio::test]
async fn cases_1_to_4_only_a_valid_client_certificate_of_this_authority_counts() {
    let server = Server::start().await;
    server
        .admin()
        .put("a", purchase("default", 4))
        .await
        .expect_done();
    let mut node = Session::of(&server, "n1").await;
    node.acked(full(1, vec![gpu("GPU-1", &["a"])])).await;
    let before = (server.fingerprint().await, server.admin().node("n1").await);

    let naked = client(server.agents, &server.dir, None).await;
    if let Ok(mut naked) = naked {
        let answer = naked.session(tokio_stream::empty()).await;
        assert!(answer.is_err(), "no certificate was let in");
    }
    let own = Authority::of_server(&server.dir);
    let name = uri("n1");
    let names: &[&str] = &[&name];
    refused(
        &server,
        "another CA",
        &Authority::stranger().issue(names, "n1", GOOD_YEARS),
    )
    .await;
    refused(
        &server,
        "an expired one",
        &own.issue(names, "n1", (2020, 2021)),
    )
    .await;
    refused(
        &server,
        "one of the future",
        &own.issue(names, "n1", (2080, 2090)),
    )
    .await;
    let server_use = ExtendedKeyUsagePurpose::ServerAuth;
    refused(
        &server,
        "a server's use",
        &own.issue_for(names, "n1", GOOD_YEARS, server_use),
    )
    .await;
    refused(
        &server,
        "the server's own",
        &Papers::read(&server.dir, "server"),
    )
    .await;
    refused(
        &server,
        "the authority itself",
        &Papers::read(&server.dir, "ca"),
    )
    .await;
    assert_eq!(
        (server.fingerprint().await, server.admin().node("n1").await),
        before
    );

    // An agent's certificate does not make a server either: the same handshake the other way round.
    let good = own.issue(names, "n1", GOOD_YEARS);
    let as_server = server.issue_agent("impostor");
    for (from, to) in [("agent.crt", "server.crt"), ("agent.key", "server.key")] {
        std::fs::copy(as_server.join(from), server.dir.join(to)).unwrap();
    }
    let answer = tls(server.agents, &server.dir, Some(&good)).await;
    assert!(
        answer.is_err(),
        "an agent's certificate was taken for a server's"
    );
    assert_eq!(server.admin().quotas().await.used("a", "flexible", GPU), 1);
}

#[tokio::test]
async fn case_3_a_renewed_certificate_opens_the_door_again() {
    let server = Server::start().await;
    let own = Authority::of_server(&server.dir);
    let name = uri("n1");
    refused(
        &server,
        "an expired one",
        &own.issue(&[&name], "n1", (2020, 2021)),
    )
    .await;
    let renewed = own.issue(&[&name], "n1", GOOD_YEARS);
    let session = Session::open(&server, &renewed, hello("n1")).await.unwrap();
    assert_eq!(session.number, 1);
}

#[tokio::test]
async fn cases_6_and_7_a_name_is_one_plain_uri_and_nothing_else() {
    let server = Server::start().await;
    let own = Authority::of_server(&server.dir);
    let before = server.fingerprint().await;
    let (one, two) = (uri("n1"), uri("n2"));
    let long = uri(&"a".repeat(300));
    let cases: &[&[&str]] = &[
        &[],
        &[&one, &two],
        &[&one, &one],
        &["spiffe://gpuquota/node/n1/../admin"],
        &["spiffe://gpuquota/node/n1%2fadmin"],
        &["spiffe://gpuquota/node/n1."],
        &["spiffe://gpuquota/node/N1"],
        &["spiffe://gpuquota/node/n1\0"],
        &["spiffe://gpuquota/node/"],
        &["spiffe://gpuquota/node/.."],
        &["spiffe://gpuquota/node/n1/"],
        &["spiffe://other/node/n1"],
        &["SPIFFE://gpuquota/node/n1"],
        &[&long],
    ];
    for names in cases {
        let what = format!("{names:?}");
        refused(&server, &what, &own.issue(names, "n1", GOOD_YEARS)).await;
    }
    assert_eq!(server.fingerprint().await, before);
    let honest = own.issue(&[&one], "something else", GOOD_YEARS);
    Session::open(&server, &honest, hello("n1")).await.unwrap();
    assert!(server.admin().node("something else").await.is_null());
    assert_eq!(server.admin().node("n1").await["state"], "up");
}

#[tokio::test]
async fn case_13_what_is_no_tls_is_refused_and_the_listener_lives() {
    let mut server = Server::start().await;
    let before = server.fingerprint().await;
    // A ClientHello that offers TLS 1.1 at most: record, handshake header, version 3.2, random, no session, one suite.
    let mut hello_bytes = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello_bytes.extend([7; 32]);
    hello_bytes.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        hello_bytes,
        vec![0; 4096],
        vec![0xff; 4096],
    ] {
        let answer = exchange(server.agents, &bytes).await;
        assert!(
            !answer.contains("HTTP/") && !answer.contains("panick"),
            "{answer}"
        );
    }
    // Connections that say nothing take nobody's place.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(Raw::connect(server.agents).await);
    }
    assert_eq!(server.fingerprint().await, before);
    let session = Session::of(&server, "n1").await;
    assert_eq!(session.number, 1);
    let log = server.process().log().join("\n");
    assert!(
        !log.contains("panicked") && log.contains("refused"),
        "{log}"
    );
    drop(silent);
}

#[tokio::test]
async fn a_message_of_another_node_is_denied() {
    let server = Server::start().await;
    server
        .admin()
        .put("a", purchase("default", 4))
        .await
        .expect_done();
    let before = server.fingerprint().await;
    let papers = Papers::read(&server.issue_agent("n1"), "agent");
    let denied = Session::open(&server, &papers, hello("n2"))
        .await
        .unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert_eq!(server.fingerprint().await, before);
    assert!(server.admin().node("n2").await.is_null());
    // Also in the middle of an honest session.
    let mut session = Session::open(&server, &papers, hello("")).await.unwrap();
    let mut report = full(1, vec![gpu("GPU-1", &["a"])]);
    report.node = "n2".to_owned();
    let denied = session.report(report).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert_eq!(server.admin().quotas().await.used("a", "flexible", GPU), 0);
    assert!(server.admin().node("n2").await.is_null());
}

#[tokio::test]
async fn case_67_an_agent_speaks_to_no_server_of_another_authority() {
    let (own, spoofed) = (Server::start().await, Server::start().await);
    let mut node = Node::new(&own, "n1", "h100x1");
    let config = node.dir.join("agent.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let [of_own, of_other] = [&own, &spoofed].map(|server| server.agents.port().to_string());
    std::fs::write(&config, text.replace(&of_own, &of_other)).unwrap();
    node.run().await;
    until("the agent refuses it", SOON, async || {
        let log = node.process().log();
        match log
            .iter()
            .any(|line| line.contains("TLS with the server failed"))
        {
            true => Ok(()),
            false => Err(log.join("\n")),
        }
    })
    .await;
    assert_eq!(spoofed.admin().get("/api/v1/nodes/n1").await.status, 404);
}
