//! What a node with a good certificate may still not do (cases 34, 50, 61, 62, 65), and that an honest one heals.

use gpuquota_proto::agent_v1::agent_message::Body as ToServer;
use gpuquota_proto::agent_v1::server_message::Body as FromServer;
use gpuquota_proto::agent_v1::{
    DeviceHealth, DeviceKey, DeviceKind, DeviceState, Heartbeat, Report, ServerMessage,
};
use gpuquota_tests::mtls::{Papers, channel};
use gpuquota_tests::quota::{GPU, purchase};
use gpuquota_tests::server::Server;
use gpuquota_tests::session::{Session, full, gpu, hello};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

fn change(number: u64, devices: Vec<DeviceState>) -> Report {
    Report {
        full: false,
        ..full(number, devices)
    }
}

async fn used(server: &Server, tenant: &str) -> u64 {
    server.admin().quotas().await.used(tenant, "flexible", GPU)
}

#[tokio::test]
async fn case_50_only_the_newest_session_of_a_node_is_heard() {
    let server = Server::start().await;
    server
        .admin()
        .put("a", purchase("default", 4))
        .await
        .expect_done();
    let mut old = Session::of(&server, "n1").await;
    old.acked(full(1, vec![gpu("GPU-1", &["a"])])).await;
    let mut new = Session::of(&server, "n1").await;
    assert!(new.number > old.number);
    assert_eq!(old.end().await, Code::Aborted);
    old.send(ToServer::Report(change(2, vec![gpu("GPU-1", &[])])))
        .await;
    new.acked(change(2, vec![gpu("GPU-2", &["a"])])).await;
    assert_eq!(used(&server, "a").await, 2);
    assert_eq!(
        server.scrape().await.value("gpuquota_agent_sessions", &[]),
        Some(1.0)
    );
}

#[tokio::test]
async fn case_65_a_report_counts_once_however_often_it_is_sent() {
    let mut server = Server::start().await;
    server
        .admin()
        .put("a", purchase("default", 4))
        .await
        .expect_done();
    let mut node = Session::of(&server, "n1").await;
    let first = full(1, vec![gpu("GPU-1", &["a"])]);
    let second = change(2, vec![gpu("GPU-2", &["a"])]);
    node.acked(first.clone()).await;
    node.acked(second.clone()).await;
    let before = server.fingerprint().await;
    // An old number is acknowledged up to what is known, and does nothing; also when it says something else now.
    for replay in [
        first.clone(),
        second.clone(),
        full(1, vec![]),
        change(2, vec![gpu("GPU-1", &[])]),
    ] {
        match node.report(replay).await {
            Ok(FromServer::Ack(ack)) => assert_eq!(ack.number, 2),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(server.fingerprint().await, before);
    // A gap is asked about, not guessed over.
    match node.report(change(9, vec![gpu("GPU-9", &["a"])])).await {
        Ok(FromServer::SendFull(_)) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(server.fingerprint().await, before);
    // The same after a restart of the server, in a new session.
    server.kill9();
    server.serve().await;
    let mut again = Session::of(&server, "n1").await;
    let seq = server.seq().await;
    for replay in [first, second] {
        match again.report(replay).await {
            Ok(FromServer::Ack(ack)) => assert_eq!(ack.number, 2),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((server.seq().await, used(&server, "a").await), (seq, 2));
}

#[tokio::test]
async fn case_61_a_device_of_another_node_cannot_be_claimed_or_given_away() {
    let server = Server::start().await;
    let admin = server.admin();
    for tenant in ["a", "b"] {
        admin
            .put(tenant, purchase("default", 4))
            .await
            .expect_done();
    }
    let mut owner = Session::of(&server, "n1").await;
    owner.acked(full(1, vec![gpu("GPU-1", &["a"])])).await;
    let before = (used(&server, "a").await, admin.node("n1").await);
    let gone = DeviceKey {
        gpu_uuid: "GPU-1".to_owned(),
        ..DeviceKey::default()
    };
    let attempts = [
        full(1, vec![gpu("GPU-1", &["b"])]),
        full(1, vec![gpu("GPU-2", &["b"]), gpu("GPU-1", &[])]),
    ];
    for attempt in attempts {
        let mut thief = Session::of(&server, "n2").await;
        let denied = thief.report(attempt).await.unwrap_err();
        assert_eq!(denied.code(), Code::FailedPrecondition, "{denied}");
    }
    let mut thief = Session::of(&server, "n2").await;
    thief.acked(full(1, vec![gpu("GPU-2", &[])])).await;
    let release = Report {
        gone: vec![gone],
        ..change(2, vec![])
    };
    let denied = thief.report(release).await.unwrap_err();
    assert_eq!(denied.code(), Code::FailedPrecondition, "{denied}");
    assert_eq!((used(&server, "a").await, admin.node("n1").await), before);
    assert_eq!(used(&server, "b").await, 0);
    // The owner was not disturbed.
    owner.acked(change(2, vec![gpu("GPU-1", &[])])).await;
    assert_eq!(used(&server, "a").await, 0);
}

#[tokio::test]
async fn case_62_reports_that_no_agent_makes_are_refused_whole() {
    let server = Server::start().await;
    server
        .admin()
        .put("a", purchase("default", 4))
        .await
        .expect_done();
    let good = || gpu("GPU-1", &["a"]);
    let many = |count: usize| (0..count).map(|n| gpu(&format!("GPU-{n}"), &[])).collect();
    let named = |names: Vec<String>| DeviceState {
        tenants: names,
        ..good()
    };
    let reports = [
        full(1, many(2049)),
        full(0, vec![good()]),
        full(1, vec![good(), good()]),
        full(1, vec![named((0..257).map(|n| format!("t{n}")).collect())]),
        full(1, vec![named(vec!["../a".to_owned()])]),
        full(1, vec![named(vec![String::new()])]),
        full(
            1,
            vec![DeviceState {
                key: None,
                ..good()
            }],
        ),
        full(
            1,
            vec![DeviceState {
                kind: DeviceKind::Mig.into(),
                ..good()
            }],
        ),
        full(1, vec![DeviceState { kind: 77, ..good() }]),
        full(
            1,
            vec![DeviceState {
                gpu_model: String::new(),
                ..good()
            }],
        ),
        full(
            1,
            vec![DeviceState {
                model: "a\nb".to_owned(),
                ..good()
            }],
        ),
        full(1, vec![gpu("GPU/../1", &[])]),
        Report {
            spool_id: "a b".to_owned(),
            ..full(1, vec![good()])
        },
        Report {
            gone: vec![good().key.unwrap()],
            ..full(1, vec![])
        },
    ];
    for report in reports {
        let mut node = Session::of(&server, "n1").await;
        let what = format!("{report:?}");
        let denied = node.report(report).await.unwrap_err();
        assert_eq!(
            denied.code(),
            Code::InvalidArgument,
            "{denied} {:.300}",
            what
        );
    }
    let mut node = Session::of(&server, "n1").await;
    assert_eq!(used(&server, "a").await, 0);
    assert_eq!(
        server.admin().node("n1").await["devices"]
            .as_array()
            .map(Vec::len),
        Some(0)
    );
    // A health that is not said is unknown, not fine; a kept one is seen.
    let mut vague = good();
    vague.health = DeviceHealth::Unspecified.into();
    node.acked(full(1, vec![vague])).await;
    assert_eq!(
        server.admin().node("n1").await["devices"][0]["health"],
        "unknown"
    );
    assert_eq!(used(&server, "a").await, 1);
}

/// What no generated client can send: field 1 with bytes that are no message.
#[derive(Clone, PartialEq, prost::Message)]
struct Junk {
    #[prost(bytes = "vec", tag = "1")]
    hello: Vec<u8>,
}

async fn junk(server: &Server, papers: &Papers, bytes: Vec<u8>) -> Status {
    let channel = channel(server.agents, &server.dir, Some(papers))
        .await
        .unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/gpuquota.agent.v1.Agent/Session");
    let codec = ProstCodec::<Junk, ServerMessage>::default();
    let request = Request::new(tokio_stream::once(Junk { hello: bytes }));
    match grpc.streaming(request, path, codec).await {
        Err(status) => status,
        Ok(answer) => answer
            .into_inner()
            .message()
            .await
            .expect_err("junk was welcomed"),
    }
}

#[tokio::test]
async fn case_34_oversize_and_garbage_end_their_own_stream_only() {
    let mut server = Server::start().await;
    server
        .admin()
        .put("a", purchase("default", 4))
        .await
        .expect_done();
    let papers = Papers::read(&server.issue_agent("bad"), "agent");
    let mut good = Session::of(&server, "good").await;
    good.acked(full(1, vec![gpu("GPU-1", &["a"])])).await;
    let before = server.fingerprint().await;
    for bytes in [
        vec![0xff; 100],
        b"\x0a\xff\xff\xff\xff\x0f".to_vec(),
        b"\x0a\x02\xff\xfe".to_vec(),
    ] {
        let status = junk(&server, &papers, bytes).await;
        assert_ne!(status.code(), Code::Ok, "{status}");
    }
    let large = junk(&server, &papers, vec![0; 5 << 20]).await;
    assert!(
        [Code::OutOfRange, Code::ResourceExhausted].contains(&large.code()),
        "{large}"
    );
    let mut wrong = hello("bad");
    wrong.boot_id = "x".repeat(65);
    let status = Session::open(&server, &papers, wrong).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(server.fingerprint().await, before);
    // Within an open session too, and its neighbour goes on.
    let mut bad = Session::open(&server, &papers, hello("bad")).await.unwrap();
    bad.send(ToServer::Report(full(
        1,
        vec![DeviceState {
            model: "x".repeat(5 << 20),
            ..gpu("GPU-2", &["a"])
        }],
    )))
    .await;
    assert_eq!(bad.end().await, Code::InvalidArgument);
    good.acked(change(2, vec![gpu("GPU-3", &["a"])])).await;
    assert_eq!(used(&server, "a").await, 2);
    assert!(server.process().lives() && server.process().memory_kib("VmHWM") < 160 * 1024);
}

#[tokio::test]
async fn a_heartbeat_whose_digest_differs_asks_for_everything() {
    let server = Server::start().await;
    let mut node = Session::of(&server, "n1").await;
    node.acked(full(1, vec![gpu("GPU-1", &["a"])])).await;
    let wrong = Heartbeat {
        spool_id: "spool-1".to_owned(),
        last_number: 1,
        holder_digest: vec![0; 32],
        collect_age_ms: Some(10),
        read_after: None,
    };
    // A digest of a state that the server has not reached yet says nothing.
    node.send(ToServer::Heartbeat(Heartbeat {
        last_number: 2,
        ..wrong.clone()
    }))
    .await;
    node.send(ToServer::Heartbeat(wrong)).await;
    match node.next().await {
        Ok(FromServer::SendFull(ask)) => assert!(ask.reason.contains("digest"), "{ask:?}"),
        other => panic!("{other:?}"),
    }
    node.acked(full(2, vec![gpu("GPU-1", &[])])).await;
}
