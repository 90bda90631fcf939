//! Nothing lost, nothing applied twice, in order.

use super::*;

#[tokio::test]
async fn reports_flow_and_a_stop_says_goodbye() {
    let mut bench = Bench::new();
    let server = FakeServer::start(&bench.server_files).await;
    let (task, stop) = bench.start(&server, bench.authority.agent(bench.dir.path(), "node1", 2));
    assert!(bench.tell(&[]) && bench.tell(&["a"]) && !bench.tell(&["a"]));
    server
        .until("two reports", |book| book.applied.len() == 2)
        .await;
    server
        .until("a heartbeat with the digest", |book| {
            book.heartbeats
                .iter()
                .any(|beat| beat.last_number == 2 && beat.holder_digest == bench.reporter.digest())
        })
        .await;
    assert!(bench.status.connected());
    server.book().ask_full = true;
    while !bench.tell(&["a"]) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server
        .until("the full report", |book| {
            book.applied.len() == 3 && book.applied[2].full
        })
        .await;
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(3), task)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(server.book().goodbyes, 1);
    assert_eq!(bench.outbox.figures().records, 0);
    assert!(!bench.status.connected());
}

#[tokio::test]
async fn case_48_what_happens_while_the_server_is_away_arrives_once_and_in_order() {
    let mut bench = Bench::new();
    let server = FakeServer::start(&bench.server_files).await;
    let (_task, _stop) = bench.start(&server, bench.authority.agent(bench.dir.path(), "node1", 2));
    bench.tell(&[]);
    server
        .until("the first", |book| book.applied.len() == 1)
        .await;
    let address = server.address;
    let book = server.stop().await;
    for turn in 0..100 {
        assert!(bench.tell(if turn % 2 == 0 { &["a"] } else { &["a", "b"] }) || turn > 60);
    }
    let told = usize::try_from(bench.outbox.figures().reports).unwrap();
    assert!(bench.outbox.figures().records >= told - 1);
    let server = FakeServer::start_at(&bench.server_files, address, book).await;
    server.until("all", |book| book.applied.len() == told).await;
    let book = server.book();
    assert_eq!(book.deliveries.len(), told);
    assert_eq!((book.sessions, bench.status.reconnects()), (2, 1));
}

#[tokio::test]
async fn case_48_the_spool_survives_the_agent() {
    let mut bench = Bench::new();
    bench.tell(&[]);
    bench.tell(&["a"]);
    // The agent ends; its successor opens the same spool.
    bench.outbox = Arc::new(Outbox::new(spool(bench.dir.path())));
    assert_eq!(bench.outbox.figures().records, 2);
    assert!(bench.tell(&["a"]));
    let server = FakeServer::start(&bench.server_files).await;
    let (_task, _stop) = bench.start(&server, bench.authority.agent(bench.dir.path(), "node1", 2));
    server
        .until("all three", |book| book.applied.len() == 3)
        .await;
    let book = server.book();
    assert_eq!(
        book.applied.iter().map(|r| r.full).collect::<Vec<_>>(),
        [true, false, true]
    );
    assert_eq!(book.last.len(), 1);
}

#[tokio::test]
async fn case_49_a_lost_answer_brings_the_same_report_again_and_it_counts_once() {
    let mut bench = Bench::new();
    let server = FakeServer::start(&bench.server_files).await;
    server.book().lose_next_ack = true;
    let (_task, _stop) = bench.start(&server, bench.authority.agent(bench.dir.path(), "node1", 2));
    bench.tell(&["a"]);
    server
        .until("it again", |book| book.deliveries.len() == 2)
        .await;
    let book = server.book();
    let same = |index: usize| {
        let mut report = book.deliveries[index].clone();
        report.age_ms = None;
        report
    };
    assert_eq!(same(0), same(1));
    assert_eq!(book.applied.len(), 1);
}

#[tokio::test]
async fn a_server_that_never_acknowledges_is_left() {
    let mut bench = Bench::new();
    let server = FakeServer::start(&bench.server_files).await;
    server.book().mute = true;
    let (_task, _stop) = bench.start(&server, bench.authority.agent(bench.dir.path(), "node1", 2));
    bench.tell(&["a"]);
    server
        .until("another session", |book| book.sessions >= 2)
        .await;
    server.book().mute = false;
    server
        .until("quiet", |_| bench.outbox.figures().records == 0)
        .await;
    assert_eq!(server.book().applied.len(), 1);
}

#[tokio::test]
async fn what_the_server_cannot_take_begins_anew_with_a_full_report() {
    let mut bench = Bench::new();
    let server = FakeServer::start(&bench.server_files).await;
    server.book().refuse = Some(Status::invalid_argument("bad"));
    bench.tell(&["a"]);
    let (_task, _stop) = bench.start(&server, bench.authority.agent(bench.dir.path(), "node1", 2));
    server.until("a session", |book| book.sessions == 1).await;
    server
        .until("given up", |_| bench.outbox.figures().records == 0)
        .await;
    server.book().refuse = None;
    assert!(bench.tell(&["a"]));
    server
        .until("a new scope", |book| {
            book.applied.last().is_some_and(|r| r.full && r.number == 1)
        })
        .await;
}

#[tokio::test]
async fn a_server_that_forgot_everything_heals_however_much_is_waiting() {
    let mut bench = Bench::new();
    let server = FakeServer::start(&bench.server_files).await;
    let files = bench.authority.agent(bench.dir.path(), "node1", 2);
    let (_task, _stop) = bench.start(&server, files);
    bench.tell(&[]);
    server
        .until("the first", |book| book.applied.len() == 1)
        .await;
    let address = server.address;
    server.stop().await;
    // More than may be in flight, and none of it follows what the new server knows.
    for turn in 0..300 {
        bench.now += 2000;
        bench.tell(if turn % 2 == 0 { &["a"] } else { &["b"] });
    }
    assert!(bench.outbox.figures().records > 200);
    let server = FakeServer::start_at(&bench.server_files, address, Arc::default()).await;
    server
        .until("increments", |book| !book.deliveries.is_empty())
        .await;
    for _ in 0..100 {
        bench.tell(&["b"]);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let book = server.book();
    let last = book.applied.last().unwrap();
    assert!(last.full && last.number == 1, "{last:?}");
    assert_eq!(book.applied.len(), 1);
    assert_eq!(bench.outbox.figures().records, 0);
}

#[tokio::test]
async fn case_51_what_was_read_before_a_mark_was_heard_does_not_say_so() {
    let mut bench = Bench::new();
    // Before any session.
    bench.tell(&["a"]);
    let server = FakeServer::start(&bench.server_files).await;
    let (_task, _stop) = bench.start(&server, bench.authority.agent(bench.dir.path(), "node1", 2));
    server
        .until("the first report", |book| book.applied.len() == 1)
        .await;
    assert_eq!(server.book().applied[0].read_after, None);
    let after = |seq| Some(Mark { session: 1, seq });
    // A reading in the session is said at once, although nothing changed.
    assert!(!bench.tell(&["a"]));
    let says = |book: &Book, seq| {
        let mut heartbeats = book.heartbeats.iter();
        heartbeats.any(|heartbeat| heartbeat.read_after == after(seq))
    };
    server
        .until("a reading of the session", |book| says(book, 1))
        .await;
    // The reading has begun when the mark comes.
    let heard = bench.outbox.heard();
    server.book().tell_mark = Some(7);
    while bench.outbox.heard() == heard {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.tell_read_after(heard, &[]);
    server
        .until("the change", |book| book.applied.len() == 2)
        .await;
    assert_eq!(server.book().applied[1].read_after, after(1));
    assert!(!says(&server.book(), 7));
    assert!(bench.tell(&["b"]));
    server
        .until("a reading after the mark", |book| says(book, 7))
        .await;
    assert_eq!(server.book().applied[2].read_after, after(7));
    // In another session the mark means nothing, and a report that goes again says what it said.
    server.book().mute = true;
    assert!(bench.tell(&[]));
    server
        .until("another session", |book| book.sessions >= 2)
        .await;
    server.book().mute = false;
    server
        .until("quiet", |_| bench.outbox.figures().records == 0)
        .await;
    assert_eq!(server.book().applied[3].read_after, after(7));
    assert_ne!(bench.outbox.heard(), after(7));
}
