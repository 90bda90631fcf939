//! What an agent asks leave for and tells of, as operators and another system hear of it: an agent that is the test itself.

use std::sync::{Arc, Mutex};

use gpuquota_proto::agent_v1::agent_message::Body as ToServer;
use gpuquota_proto::agent_v1::server_message::Body as FromServer;
use gpuquota_proto::agent_v1::{
    DeviceKey, DeviceState, Go, Intent, Outcome, OutcomeKind, Rung, Step, ViolationClass,
};
use gpuquota_tests::quota::purchase;
use gpuquota_tests::server::Server;
use gpuquota_tests::session::{Session, full, gpu};
use gpuquota_tests::wait::{SOON, until};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

type Heard = Arc<Mutex<Vec<Value>>>;

// Whatever is posted there; the address to give to the server.
async fn hook() -> (String, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/steps", listener.local_addr().unwrap());
    let heard = Heard::default();
    let book = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let body = posted(stream).await;
            let events = body["events"].as_array().unwrap().clone();
            book.lock().unwrap().extend(events);
        }
    });
    (url, heard)
}

async fn posted(stream: TcpStream) -> Value {
    let mut stream = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    while stream.read_line(&mut line).await.unwrap() > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    let _ = stream.read_exact(&mut body).await.unwrap();
    let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
    stream.write_all(answer).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

fn step(rung: Rung, pid: Option<u32>) -> Step {
    Step {
        rung: rung.into(),
        tenant: "b".into(),
        device: Some(DeviceKey {
            gpu_uuid: "GPU-1".into(),
            ..DeviceKey::default()
        }),
        class: ViolationClass::Squatter.into(),
        pid,
        start_time: pid.map(|_| 7),
        group: "/b.slice".into(),
    }
}

async fn asks(node: &mut Session, id: u64, steps: Vec<Step>) -> Go {
    let intent = Intent {
        id,
        incarnation: 0,
        version: 1,
        steps,
    };
    node.send(ToServer::Intent(intent)).await;
    match node.next().await.unwrap() {
        FromServer::Go(go) => go,
        other => unreachable!("no go but {other:?}"),
    }
}

async fn tells(node: &mut Session, number: u64, step: Step, detail: &str) {
    let outcome = Outcome {
        boot_id: "boot-1".into(),
        number,
        step: Some(step),
        version: 1,
        kind: OutcomeKind::Done.into(),
        detail: detail.into(),
        ..Outcome::default()
    };
    node.send(ToServer::Outcome(outcome)).await;
    match node.next().await.unwrap() {
        FromServer::OutcomeTaken(taken) => assert!(taken.number >= number),
        other => unreachable!("not taken but {other:?}"),
    }
}

async fn hears(heard: &Heard, count: usize) -> Vec<Value> {
    until("the other system hears of it", SOON, async || {
        let heard = heard.lock().unwrap().clone();
        match heard.len() >= count {
            true => Ok(heard),
            false => Err(format!("{heard:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn case_73_another_system_hears_once_of_each_step_and_of_those_that_wait_for_a_person() {
    let (url, heard) = hook().await;
    let webhook = format!("[webhook]\nurl = \"{url}\"\n\n[log]");
    let server = Server::with(&[("[log]", &webhook)]).await;
    let admin = server.admin();
    admin.put("a", purchase("default", 1)).await.expect_done();
    let evict = json!({"enforcing": {"enforcement": {"mode": "evict"}, "guard": {"processes": 2, "percent": 100}}});
    assert_eq!(
        admin.json("PUT", "/api/v1/settings", &evict).await.status,
        200
    );
    let mut node = Session::of(&server, "n1").await;
    node.acked(full(1, vec![gpu("GPU-1", &["b"])])).await;
    let many = |pids: std::ops::Range<u32>| pids.map(|pid| step(Rung::Term, Some(pid))).collect();
    // Too many at once: nothing begins, and a second attempt is no second event.
    for id in 1..3 {
        let go = asks(&mut node, id, many(10..13)).await;
        assert!(
            go.allowed.is_empty() && go.refused.contains("an admin must confirm"),
            "{go:?}"
        );
    }
    let confirmation = "/api/v1/tenants/b/enforcement/confirmation";
    let confirmed = admin
        .json("POST", confirmation, &json!({"for_seconds": 60}))
        .await;
    assert_eq!(confirmed.status, 200);
    assert_eq!(asks(&mut node, 3, many(10..13)).await.allowed, [0, 1, 2]);
    tells(&mut node, 5, step(Rung::Term, Some(10)), "first").await;
    // Told again, as after an answer that was lost.
    tells(&mut node, 5, step(Rung::Term, Some(10)), "again").await;
    tells(&mut node, 6, step(Rung::Warn, None), "last").await;
    let events = hears(&heard, 3).await;
    let short: Vec<_> = events
        .iter()
        .map(|it| (&it["event"], &it["rung"], &it["detail"], &it["processes"]))
        .collect();
    let (null, word) = (Value::Null, |text: &str| json!(text));
    assert_eq!(
        short,
        [
            (&word("steps_held"), &null, &null, &json!(3)),
            (&word("step"), &word("term"), &word("first"), &null),
            (&word("step"), &word("warn"), &word("last"), &null),
        ]
    );
    assert_eq!(
        (
            &events[1]["tenant"],
            &events[1]["node"],
            &events[1]["device"]
        ),
        (&word("b"), &word("n1"), &word("GPU-1"))
    );
    let scrape = server.scrape().await;
    let told = scrape.value("gpuquota_webhook_events_total", &[("result", "told")]);
    assert_eq!(told, Some(3.0), "{}", scrape.text);
    let rows = admin.get("/api/v1/steps?tenant=b").await.json();
    let rows = rows["steps"].as_array().unwrap();
    let ended = |row: &&Value| !row["result"].is_null();
    assert_eq!(
        (rows.len(), rows.iter().filter(ended).count()),
        (4, 2),
        "{rows:?}"
    );
}

#[tokio::test]
async fn case_73_steps_against_nobodys_processes_wait_for_a_person_too() {
    let (url, heard) = hook().await;
    let webhook = format!("[webhook]\nurl = \"{url}\"\n\n[log]");
    let server = Server::with(&[("[log]", &webhook)]).await;
    let admin = server.admin();
    let evict = json!({"enforcing": {"enforcement": {"mode": "evict"}, "unattributed": "evict", "guard": {"processes": 2, "percent": 100}}});
    let set = admin.json("PUT", "/api/v1/settings", &evict).await;
    assert_eq!(set.status, 200, "{}", set.text);
    let mut node = Session::of(&server, "n1").await;
    let nobodys = DeviceState {
        unattributed: true,
        ..gpu("GPU-1", &[])
    };
    node.acked(full(1, vec![nobodys])).await;
    let many = || {
        let nobodys = |pid| Step {
            tenant: String::new(),
            class: ViolationClass::Unattributed.into(),
            ..step(Rung::Term, Some(pid))
        };
        (10..13).map(nobodys).collect()
    };
    let go = asks(&mut node, 1, many()).await;
    assert!(
        go.allowed.is_empty() && go.refused.contains("an admin must confirm"),
        "{go:?}"
    );
    let event = &hears(&heard, 1).await[0];
    assert_eq!(
        (&event["event"], &event["tenant"], &event["processes"]),
        (&json!("steps_held"), &Value::Null, &json!(3))
    );
    let held = server
        .scrape()
        .await
        .value("gpuquota_steps_held", &[("tenant", "")]);
    assert_eq!(held, Some(1.0));
    let row = &admin.get("/api/v1/violations").await.json()["violations"][0];
    assert_eq!(
        (&row["tenant"], &row["mode"]),
        (&Value::Null, &json!("warn"))
    );
    assert!(
        row["held"]
            .as_str()
            .unwrap()
            .contains("an admin must confirm")
    );
    let confirmation = "/api/v1/unattributed/enforcement/confirmation";
    let body = json!({"for_seconds": 60});
    let confirmed = admin.json("POST", confirmation, &body).await;
    assert_eq!(
        (confirmed.status, &confirmed.json()["tenant"]),
        (200, &Value::Null)
    );
    assert_eq!(asks(&mut node, 2, many()).await.allowed, [0, 1, 2]);
}

#[tokio::test]
async fn a_node_that_asks_for_more_than_the_journal_takes_is_refused_at_once_in_its_next_session_too()
 {
    let server = Server::start().await;
    let mut node = Session::of(&server, "n1").await;
    let many = || (0..256).map(|pid| step(Rung::Term, Some(pid))).collect();
    let early = |go: &Go| go.refused.contains("asks for more than the journal takes");
    for id in 0..4 {
        let go = asks(&mut node, id, many()).await;
        assert!(go.allowed.is_empty() && !early(&go), "{id}: {go:?}");
    }
    // It would be its turn in 12.8 s, and the session waits for nothing.
    let go = asks(&mut node, 4, many()).await;
    assert!(early(&go), "{go:?}");
    drop(node);
    let mut node = Session::of(&server, "n1").await;
    let go = asks(&mut node, 1, many()).await;
    assert!(early(&go), "{go:?}");
    let mut other = Session::of(&server, "n2").await;
    let go = asks(&mut other, 1, many()).await;
    assert!(!early(&go), "what one node uses is its own: {go:?}");
}
