//! The uplink against a real TLS server: nothing lost, nothing applied twice, nobody trusted who should not be.

use std::path::Path;
use std::time::Duration;

use gpuquota_proto::tls::TlsFiles;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::Status;

use super::fake_server::{Authority, FakeServer};
use super::*;
use crate::facts::Node;
use crate::gpu::reading::{Health, NvmlState};
use crate::observation::{AttributedProcess, Device, DeviceKey, Observation, Owner, Source};
use crate::report::{Reporter, bucket::Allowance};
use crate::spool::{Limits, Spool};

const QUICK: Waits = Waits {
    first: Duration::from_millis(10),
    longest: Duration::from_millis(80),
    stable_after: Duration::from_secs(10),
    refused: Duration::from_millis(600),
    contended: Duration::from_millis(600),
};

struct Bench {
    dir: TempDir,
    authority: Authority,
    server_files: TlsFiles,
    outbox: Arc<Outbox>,
    reporter: Reporter,
    status: Arc<UplinkStatus>,
    now: u64,
}

fn spool(dir: &Path) -> Spool {
    let limits = Limits {
        bytes: 1 << 20,
        records: 1000,
    };
    Spool::open(&dir.join("spool"), "node1", "boot", limits)
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let server_files = authority.server(dir.path());
        let node = Node {
            cpu_cores: None,
            memory_bytes: None,
        };
        Self {
            outbox: Arc::new(Outbox::new(spool(dir.path()))),
            reporter: Reporter::new(node, Allowance::default(), Vec::new()),
            status: Arc::default(),
            authority,
            server_files,
            dir,
            now: 1000,
        }
    }

    fn start(&self, server: &FakeServer, files: TlsFiles) -> (JoinHandle<()>, CancellationToken) {
        let uplink = Uplink {
            server: Server {
                host: server.address.ip().to_string(),
                port: server.address.port(),
            },
            credentials: Credentials {
                files,
                node: "node1".into(),
            },
            boot_id: "boot".into(),
            waits: QUICK,
            outbox: Arc::clone(&self.outbox),
            status: Arc::clone(&self.status),
        };
        let stop = CancellationToken::new();
        (tokio::spawn(uplink.run(stop.clone())), stop)
    }

    fn tell(&mut self, tenants: &[&str]) -> bool {
        self.now += 1000;
        let process = |name: &&str| AttributedProcess {
            pid: 1,
            start_time: None,
            owner: Owner::Tenant {
                name: (*name).into(),
                source: Source::Slice,
            },
            used_memory_bytes: None,
        };
        let device = Device {
            health: Health::Ok,
            model: "H100".into(),
            gpu_model: "nvidia.com/gpu".into(),
            profile: None,
            mig_uuid: None,
            minor: None,
            partitioned: false,
            memory: None,
            processes: tenants.iter().map(process).collect(),
        };
        let observation = Observation {
            at_boottime_ms: self.now,
            nvml: NvmlState::Ok,
            driver_version: None,
            devices: [(DeviceKey::Gpu("GPU-a".into()), device)].into(),
        };
        self.outbox
            .tell(&mut self.reporter, &observation, Some(self.now))
    }
}

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
        },
        boot_id: "boot".into(),
        waits: QUICK,
        outbox: Arc::clone(&bench.outbox),
        status: Arc::default(),
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
