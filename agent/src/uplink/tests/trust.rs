//! Nobody talked to who should not be; who is refused does not storm.

use super::*;

#[tokio::test]
async fn case_50_who_was_taken_over_or_refused_waits_longer() {
    for refusal in [Status::aborted("newer"), Status::permission_denied("who?")] {
        let mut bench = Bench::new();
        let server = FakeServer::start(&bench.server_files).await;
        server.book().refuse = Some(refusal);
        let (_task, _stop) =
            bench.start(&server, bench.authority.agent(bench.dir.path(), "node1", 2));
        bench.tell(&["a"]);
        server.until("a session", |book| book.sessions == 1).await;
        tokio::time::sleep(QUICK.contended / 4).await;
        assert_eq!(server.book().sessions, 1);
        server.book().refuse = None;
        server
            .until("it is back", |book| book.applied.len() == 1)
            .await;
    }
}

#[tokio::test]
async fn case_2_and_3_another_authority_or_an_ended_certificate_gets_no_session() {
    let mut bench = Bench::new();
    let server = FakeServer::start(&bench.server_files).await;
    bench.tell(&["a"]);

    // Ended: the server refuses it.
    let dir = tempfile::tempdir().unwrap();
    let (task, stop) = bench.start(&server, bench.authority.agent(dir.path(), "node1", -3));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.book().sessions, 0);
    stop.cancel();
    task.await.unwrap();

    // Signed by another authority, which trusts ours: the server refuses it.
    let dir = tempfile::tempdir().unwrap();
    let files = Authority::new().agent(dir.path(), "node1", 2);
    std::fs::copy(bench.dir.path().join("ca.crt"), &files.ca).unwrap();
    let (task, stop) = bench.start(&server, files);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.book().sessions, 0);
    stop.cancel();
    task.await.unwrap();

    // Case 67: the other way round, a server of another authority is not talked to.
    let dir = tempfile::tempdir().unwrap();
    let (task, stop) = bench.start(&server, Authority::new().agent(dir.path(), "node1", 2));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.book().sessions, 0);
    stop.cancel();
    task.await.unwrap();

    // A certificate of another node is not even tried.
    let dir = tempfile::tempdir().unwrap();
    let (task, stop) = bench.start(&server, bench.authority.agent(dir.path(), "node2", 2));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.book().sessions, 0);
    stop.cancel();
    task.await.unwrap();
    assert_eq!(bench.outbox.figures().records, 1);
}

#[tokio::test]
async fn refusals_of_the_handshake_are_told_from_a_server_that_is_away() {
    let bench = Bench::new();
    let server = FakeServer::start(&bench.server_files).await;
    let dir = tempfile::tempdir().unwrap();
    let mut uplink = Uplink {
        server: Server {
            host: "127.0.0.1".into(),
            port: server.address.port(),
        },
        credentials: Credentials {
            files: bench.authority.agent(dir.path(), "node1", -3),
            node: "node1".into(),
            forms: Default::default(),
        },
        boot_id: "boot".into(),
        waits: QUICK,
        outbox: Arc::clone(&bench.outbox),
        dialogue: Arc::clone(&bench.dialogue),
        status: Arc::default(),
        authorities: None,
    };
    let stop = CancellationToken::new();
    let ended = uplink.attempt(None, &stop).await;
    assert!(matches!(ended, Ended::Refused(_)), "{ended:?}");
    uplink.server.port = 1;
    let ended = uplink.attempt(None, &stop).await;
    assert!(matches!(ended, Ended::Lost(_)), "{ended:?}");
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_up_without_a_gap_and_a_broken_one_is_not() {
    let mut bench = Bench::new();
    let server = FakeServer::start(&bench.server_files).await;
    let files = bench.authority.agent(bench.dir.path(), "node1", 2);
    let (_task, _stop) = bench.start(&server, files.clone());
    bench.tell(&["a"]);
    server
        .until("the first", |book| book.applied.len() == 1)
        .await;
    let before = bench.status.certificate_not_after_unix_s();

    std::fs::write(&files.key, "half a key").unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        (server.book().sessions, bench.status.connected()),
        (1, true)
    );

    bench.authority.agent(bench.dir.path(), "node1", 5);
    server
        .until("a session with it", |book| book.sessions == 2)
        .await;
    assert!(bench.status.certificate_not_after_unix_s() > before);
    bench.tell(&[]);
    server
        .until("the second", |book| book.applied.len() == 2)
        .await;
    assert_eq!(server.book().goodbyes, 0);
}
