//! Many who want the same, and answers that got lost.

use gpuquota_tests::dialect::LICENCES;
use gpuquota_tests::postgres::Cluster;
use gpuquota_tests::quota::purchase;
use gpuquota_tests::raw::Raw;
use gpuquota_tests::rest::{Answer, Rest};
use gpuquota_tests::server::{Place, Server};
use gpuquota_tests::session::{Session, full, gpu};
use gpuquota_tests::skip::{measured, skipped, slow};
use gpuquota_tests::wait::{SOON, now, until};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{LEASES, ask_for, keyed, lease, shown};

const CLIENTS: usize = 64;

#[tokio::test]
async fn case_36_of_64_clients_exactly_as_many_win_as_there_are_devices() {
    for_the_last_devices("case 36 on SQLite", &Place::File).await;
}

#[tokio::test]
async fn case_36_of_64_clients_exactly_as_many_win_on_postgresql() {
    let what = "case 36 on PostgreSQL";
    match Cluster::shared() {
        Ok(cluster) => for_the_last_devices(what, &Place::Database(cluster.database())).await,
        Err(why) => skipped(what, &why),
    }
}

async fn for_the_last_devices(what: &str, place: &Place) {
    let rounds = if slow() { 1000 } else { 20 };
    let begun = now();
    // The node says all it has at once, and nobody calls it silent for that.
    let patient = ("silent_after_seconds = 10", "silent_after_seconds = 3600");
    let server = Server::at(place, &[patient]).await;
    let admin = server.admin();
    admin.put("a", purchase("default", 64)).await.expect_done();
    let mut node = Session::of(&server, "n1").await;
    let uuids: Vec<String> = (0..8).map(|n| format!("GPU-{n}")).collect();
    let devices = || uuids.iter().map(|uuid| gpu(uuid, &[])).collect();
    node.acked(full(1, devices())).await;
    let clients: Vec<Rest> = (0..CLIENTS).map(|_| server.admin()).collect();
    let mut last_epoch = 0;
    for round in 0..rounds {
        let free = 1 + round % uuids.len();
        let taken = u32::try_from(uuids.len() - free).unwrap();
        let mut leases = Vec::new();
        if taken > 0 {
            leases.push(lease(&admin, &ask_for("a", taken, "devices")).await);
        }
        let mut asked = JoinSet::new();
        for client in clients.clone() {
            asked.spawn(async move {
                client
                    .json("POST", LEASES, &ask_for("a", 1, "devices"))
                    .await
            });
        }
        let answers: Vec<Answer> = asked.join_all().await;
        let won = answers.iter().filter(|answer| answer.status == 201);
        leases.extend(won.map(Answer::json));
        let lost = answers.iter().filter(|answer| answer.status == 409).count();
        let first = usize::from(taken > 0);
        assert_eq!(
            (leases.len() - first, lost),
            (free, CLIENTS - free),
            "round {round}"
        );
        let held = leases
            .iter()
            .flat_map(|it| it["devices"].as_array().unwrap());
        let mut held: Vec<&str> = held.map(|device| device["id"].as_str().unwrap()).collect();
        held.sort_unstable();
        assert_eq!(held, uuids, "each device once");
        let mut epochs: Vec<u64> = leases
            .iter()
            .map(|it| it["epoch"].as_u64().unwrap())
            .collect();
        epochs.sort_unstable();
        epochs.dedup();
        assert_eq!(epochs.len(), leases.len());
        assert!(epochs[0] > last_epoch, "epochs grow");
        last_epoch = *epochs.last().unwrap();
        for it in &leases {
            let path = format!("{LEASES}/{}?force=true", it["id"]);
            assert_eq!(admin.send("DELETE", &path, &[], "").await.status, 200);
        }
    }
    let took = begun.elapsed().as_secs_f64();
    measured(
        what,
        format!("{rounds} rounds of {CLIENTS} clients for the last 1 to 8 devices in {took:.1} s"),
    );
}

#[tokio::test]
async fn case_49_a_lost_answer_is_asked_for_again_and_is_the_same_lease_also_after_a_restart() {
    let mut server = gpuquota_tests::pair::server(&[]).await;
    let admin = server.admin();
    let body = ask_for("a", 3, "count_only");
    let text = body.to_string();
    let request = format!(
        "POST {LEASES} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Idempotency-Key: k\r\nContent-Length: {}\r\n\r\n{text}",
        server.rest,
        server.admin_token(),
        text.len()
    );
    let mut raw = Raw::connect(server.rest).await;
    assert!(raw.send(request.as_bytes()).await);
    // It is granted, and nobody reads the answer.
    until("the lease is granted", SOON, async || {
        let list = admin.get(LEASES).await.json();
        match list["leases"].as_array().map(Vec::len) {
            Some(1) => Ok(()),
            _ => Err(list.to_string()),
        }
    })
    .await;
    drop(raw);
    let first = keyed(&admin, "POST", LEASES, "k", &body).await;
    assert_eq!(first.status, 201, "{first:?}");
    let path = format!("{LEASES}/{}", first.json()["id"]);
    let renewal = json!({"ttl_seconds": 60});
    let renew = format!("{path}/renew");
    let renewed = keyed(&admin, "POST", &renew, "k", &renewal).await;
    let released = keyed(&admin, "DELETE", &path, "k", &Value::Null).await;
    assert_eq!((renewed.status, released.status), (200, 200));
    server.kill9();
    server.serve().await;
    let admin = server.admin();
    let before = server.seq().await;
    for (method, path, body, answer) in [
        ("POST", LEASES, &body, &first),
        ("POST", &renew, &renewal, &renewed),
        ("DELETE", &path, &Value::Null, &released),
    ] {
        let again = keyed(&admin, method, path, "k", body).await;
        assert_eq!((again.status, &again.text), (answer.status, &answer.text));
        assert_eq!(again.header("etag"), answer.header("etag"));
    }
    let other = keyed(&admin, "POST", LEASES, "k", &ask_for("a", 1, "count_only")).await;
    assert_eq!(other.json()["error"]["kind"], "operation_reused");
    assert_eq!(server.seq().await, before);
}

// Two writes of the same generation at once: one is done, the other hears that something changed.
async fn one_of_two(
    admin: &Rest,
    method: &str,
    path: &str,
    etag: &str,
    bodies: [Value; 2],
) -> Value {
    let headers = [("content-type", "application/json"), ("if-match", etag)];
    let write = async |body: &Value| admin.send(method, path, &headers, body.to_string()).await;
    let (one, two) = tokio::join!(write(&bodies[0]), write(&bodies[1]));
    let (done, not) = if one.status == 200 {
        (one, two)
    } else {
        (two, one)
    };
    assert_eq!((done.status, not.status), (200, 412), "{done:?} {not:?}");
    assert_ne!(done.header("etag"), etag);
    done.json()
}

#[tokio::test]
async fn case_41_of_two_writes_with_the_same_generation_one_is_done() {
    let server = gpuquota_tests::pair::server(&[]).await;
    let admin = server.admin();
    let granted = admin
        .json("POST", LEASES, &ask_for("a", 1, "count_only"))
        .await;
    let path = format!("{LEASES}/{}", granted.json()["id"]);
    // Within one millisecond the same end may come out again, which would be no change.
    for round in 0..10 {
        let etag = admin.get(&path).await.header("etag").to_owned();
        let bodies = [100, 200_000].map(|ttl| json!({"ttl_seconds": ttl + round}));
        let done = one_of_two(&admin, "POST", &format!("{path}/renew"), &etag, bodies).await;
        assert_eq!(shown(&admin, &done).await, done);
    }
    let stale = [("if-match", granted.header("etag"))];
    let refused = admin.send("DELETE", &path, &stale, "").await;
    assert_eq!(refused.json()["error"]["kind"], "changed", "{refused:?}");
    assert_eq!(refused.status, 412);
    for wrong in ["7", "\"x\"", "W/\"7\"", "\"1\", \"2\""] {
        let answer = admin
            .send("DELETE", &path, &[("if-match", wrong)], "")
            .await;
        assert_eq!(answer.status, 400, "{wrong}: {answer:?}");
    }
    assert_eq!(
        admin
            .send("DELETE", &path, &[("if-match", "*")], "")
            .await
            .status,
        200
    );
    // The same of a licence quota.
    let product = json!({"name": "p", "code": "P"});
    assert_eq!(
        admin
            .json("PUT", "/api/v1/software-products/1", &product)
            .await
            .status,
        200
    );
    let tenant = admin.get("/api/v1/tenants/a").await.json()["id"].clone();
    let quota = json!({"tenant": tenant, "software_product": 1, "max_licenses": 1});
    let made = admin.json("POST", LICENCES, &quota).await.json();
    let path = format!("{LICENCES}{}/", made["data"]["id"]);
    for number in 0..10 {
        let etag = admin.get(&path).await.header("etag").to_owned();
        let bodies = [2, 3].map(|max| json!({"max_licenses": 10 * number + max}));
        let done = one_of_two(&admin, "PATCH", &path, &etag, bodies).await;
        assert_eq!(admin.get(&path).await.json()["data"], done["data"]);
    }
}

#[tokio::test]
async fn case_51_a_reading_from_before_a_release_does_not_end_it_however_late_it_comes() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.put("a", purchase("default", 2)).await.expect_done();
    let mut node = Session::of(&server, "n1").await;
    // A session that has said nothing of itself gives nothing away.
    let early = admin
        .json("POST", LEASES, &ask_for("a", 1, "devices"))
        .await;
    assert_eq!(early.status, 409, "{early:?}");
    let free = || vec![gpu("GPU-1", &[])];
    node.acked(full(1, free())).await;
    let granted = lease(&admin, &ask_for("a", 1, "devices")).await;
    let path = format!("{LEASES}/{}", granted["id"]);
    let released = admin.send("DELETE", &path, &[], "").await;
    let row: u64 = released.header("gpuquota-seq").parse().unwrap();
    // It was read, and sent, before the release, and was under way until now: its age as sent is 0.
    let late = gpuquota_proto::agent_v1::Report {
        read_after: node.mark,
        ..full(2, free())
    };
    assert!(node.mark.is_some_and(|mark| mark.seq < row));
    node.acked(late).await;
    assert_eq!(shown(&admin, &granted).await["state"], "releasing");
    // Neither does one that claims to know what nobody told it.
    let claims = gpuquota_proto::agent_v1::Mark {
        session: node.number,
        seq: row + 1_000_000,
    };
    let claimed = gpuquota_proto::agent_v1::Report {
        read_after: Some(claims),
        ..full(3, free())
    };
    node.acked(claimed).await;
    assert_eq!(shown(&admin, &granted).await["state"], "releasing");
    // The node is told of the release by itself, and what it reads then ends it.
    node.marked(row).await.unwrap();
    node.acked(full(4, free())).await;
    assert_eq!(shown(&admin, &granted).await["state"], "ended");
}
