//! Bodies that are too long, too slow, no JSON, or no numbers.

use std::time::Duration;

use gpuquota_tests::dialect::{DIALECTS, Dialect, LICENCES};
use gpuquota_tests::program::s;
use gpuquota_tests::raw::{Raw, body, status};
use gpuquota_tests::server::Server;
use gpuquota_tests::wait::now;
use serde_json::{Value, json};

// Every call of a dialect: reads may have a body too.
fn calls(dialect: Dialect) -> Vec<(&'static str, &'static str)> {
    let writes = dialect.writes();
    let writes = writes.iter().map(|(method, path, _)| (*method, *path));
    std::iter::once(("GET", dialect.reads()))
        .chain(writes)
        .collect()
}

fn head(server: &Server, dialect: Dialect, method: &str, path: &str) -> String {
    let (name, value) = dialect.carrier().header(server.admin_token());
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\n{name}: {value}\r\n",
        server.rest
    )
}

#[track_caller]
fn expect(dialect: Dialect, wanted: u16, answer: &str) {
    let seen: Value = serde_json::from_str(body(answer)).unwrap();
    assert_eq!(status(answer), dialect.http(wanted), "{dialect:?} {answer}");
    assert!(dialect.is_refusal(wanted, &seen), "{dialect:?} {answer}");
}

pub(super) async fn case_24_bodies_without_bound(server: &Server) {
    for dialect in DIALECTS {
        for (method, path) in calls(dialect) {
            let head = head(server, dialect, method, path);
            let mut raw = Raw::connect(server.rest).await;
            raw.send(format!("{head}Content-Length: 1073741824\r\n\r\n").as_bytes())
                .await;
            let answer = raw.answer().await;
            expect(dialect, 413, &answer);
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        }
        let (method, path) = *calls(dialect).last().unwrap();
        let mut raw = Raw::connect(server.rest).await;
        let head = head(server, dialect, method, path);
        raw.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes())
            .await;
        let chunk = [b"4000\r\n".as_slice(), &[b' '; 0x4000], b"\r\n"].concat();
        let mut sent = 0;
        while sent < 4096 && raw.send(&chunk).await {
            sent += 1;
        }
        assert!(sent < 4096, "64 MiB were taken");
        // The answer may be lost when the server closes while the client still writes.
        let seen = raw.rest().await.unwrap_or_else(|seen| seen);
        assert!(seen.is_empty() || status(&seen) == 413, "{seen}");
        // Headers beyond any bound: HTTP's own refusal, before any dialect.
        let mut raw = Raw::connect(server.rest).await;
        let line = format!("X-Y: {}\r\n", "y".repeat(1000));
        raw.send(head.as_bytes()).await;
        let mut sent = 0;
        while sent < 32 << 10 && raw.send(line.as_bytes()).await {
            sent += 1;
        }
        assert!(sent < 32 << 10, "32 MiB of headers were taken");
        let seen = raw.rest().await.unwrap_or_else(|seen| seen);
        assert!(
            seen.is_empty() || [400, 431].contains(&status(&seen)),
            "{seen}"
        );
    }
}

pub(super) async fn case_24_one_byte_after_the_other(server: &Server) {
    let begin = now();
    let slow = DIALECTS.map(|dialect| {
        let (method, path) = *calls(dialect).last().unwrap();
        let head = head(server, dialect, method, path);
        let address = server.rest;
        let drip = async move {
            let mut raw = Raw::connect(address).await;
            raw.send(format!("{head}Content-Length: 100\r\n\r\n").as_bytes())
                .await;
            raw.drip(b' ', Duration::from_millis(500), s(25)).await
        };
        (dialect, tokio::spawn(drip))
    });
    for (dialect, answer) in slow {
        expect(dialect, 408, &answer.await.unwrap());
    }
    assert!(
        (s(9)..s(20)).contains(&begin.elapsed()),
        "{:?}",
        begin.elapsed()
    );
}

pub(super) async fn case_25_what_is_not_the_json_that_is_meant(server: &Server) {
    let reads = [(
        "GET",
        Dialect::GpuQuota.reads(),
        json!({"quota_source": "purchase"}),
    )];
    let reads = reads.map(|call| (Dialect::GpuQuota, call));
    let writes = DIALECTS.into_iter().flat_map(|dialect| {
        dialect
            .writes()
            .into_iter()
            .map(move |call| (dialect, call))
    });
    for (dialect, (method, path, good)) in reads.into_iter().chain(writes) {
        let admin = dialect.caller(server, server.admin_token());
        let good = good.to_string();
        let open = match good.strip_suffix('}').unwrap() {
            "{" => "{".to_owned(),
            fields => format!("{fields},"),
        };
        let deep = format!("{}{}", "[".repeat(32), "]".repeat(32));
        let texts: Vec<Vec<u8>> = vec![
            format!(r#"{open}"x":{deep}}}"#).into(),
            "[".repeat(60_000).into(),
            "{\"a\":".repeat(12_000).into(),
            format!(r#"{open}"x":1,"x":1}}"#).into(),
            format!(r#"{open}"x":{{"y":1,"y":1}}}}"#).into(),
            format!(r#"{open}"x":"\ud800"}}"#).into(),
            format!("\u{feff}{good}").into(),
            [open.as_bytes(), b"\"x\":\"\xff\"}"].concat(),
            format!(r#"{open}"x":NaN}}"#).into(),
            format!(r#"{open}"x":1e400}}"#).into(),
            format!(r#"{open}}}"#)
                .into_bytes()
                .split_last()
                .unwrap()
                .1
                .to_vec(),
            format!("{good} {good}").into(),
            format!("{good}\0").into(),
            "[]".into(),
            "null".into(),
        ];
        for text in texts {
            let shown = String::from_utf8_lossy(&text[..text.len().min(200)]).into_owned();
            let answer = admin.send(method, path, &[], text).await;
            assert_eq!(answer.status, 400, "{method} {path} {shown} {answer:?}");
            dialect.expect(400, &answer);
            assert!(answer.text.len() < 1000, "{answer:?}");
        }
        let keys: String = (0..100_000).map(|n| format!("\"k{n}\":0,")).collect();
        let answer = admin
            .send(method, path, &[], format!("{{{keys}\"x\":0}}"))
            .await;
        dialect.expect(413, &answer);
    }
}

pub(super) async fn case_26_numbers_that_are_none(server: &Server) {
    let none = [
        "-1",
        "2147483648",
        "9223372036854775808",
        "1.0",
        "1e0",
        "\"1\"",
        "true",
        "[]",
        "{}",
    ];
    let quota =
        r#"{"region":"default","quota_source":"purchase","gpu_model":"nvidia.com/gpu","num":#}"#;
    let licence = r#"{"tenant":2,"software_product":1,"max_licenses":#}"#;
    let seat = r#"{"tenant":"a","software_product":1,"owner":"u","ttl_seconds":#}"#;
    let counters = "/api/v1/projects/pa/resources/users";
    let first = format!("{LICENCES}1/");
    for (dialect, method, path, form, null_is_none) in [
        (Dialect::GpuQuota, "PUT", "/api/v1/quotas/a", quota, true),
        (Dialect::Licence, "POST", LICENCES, licence, true),
        (
            Dialect::Licence,
            "POST",
            LICENCES,
            r#"{"tenant":#,"software_product":1,"max_licenses":1}"#,
            true,
        ),
        (
            Dialect::Licence,
            "POST",
            LICENCES,
            r#"{"tenant":2,"software_product":#,"max_licenses":1}"#,
            true,
        ),
        (
            Dialect::Licence,
            "PATCH",
            &first,
            r#"{"max_licenses":#}"#,
            true,
        ),
        (Dialect::Native, "POST", "/api/v1/seats", seat, true),
        (
            Dialect::Native,
            "PUT",
            "/api/v1/tenants/a",
            r#"{"id":#}"#,
            false,
        ),
        (
            Dialect::Native,
            "PUT",
            counters,
            r#"{"quota":1,"used":#}"#,
            false,
        ),
        (
            Dialect::Native,
            "PUT",
            "/api/v1/resource-groups/G/card-limits/gpu",
            r#"{"cards":#}"#,
            false,
        ),
        (
            Dialect::Native,
            "PUT",
            "/api/v1/nodes/n1",
            r#"{"region":"default","inventory":{"gpus":#}}"#,
            false,
        ),
    ] {
        let admin = dialect.caller(server, server.admin_token());
        for value in none.iter().chain(null_is_none.then_some(&"null")) {
            let body = form.replace('#', value);
            let answer = admin.send(method, path, &[], body.clone()).await;
            assert_eq!(answer.status, 400, "{method} {path} {body} {answer:?}");
            dialect.expect(400, &answer);
        }
    }
}

pub(super) async fn case_20_fields_that_the_server_keeps(server: &Server) {
    let admin = server.admin();
    let path = format!("{LICENCES}1/");
    let before = admin.get(&path).await.json()["data"].clone();
    let patch = json!({
        "id": 77, "used_licenses": 8, "usage_rate": 99.0, "remaining_licenses": 0, "max_licenses": 10,
        "created_at": "2020-01-01T00:00:00Z", "updated_at": "2020-01-01T00:00:00Z",
    });
    let answer = admin.json("PATCH", &path, &patch).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut expected = before;
    expected["max_licenses"] = json!(10);
    expected["remaining_licenses"] = json!(10);
    let mut after = admin.get(&path).await.json()["data"].clone();
    expected["updated_at"] = after["updated_at"].take();
    after["updated_at"] = expected["updated_at"].clone();
    assert_eq!(after, expected);
    assert!(!after["updated_at"].as_str().unwrap().starts_with("2020"));
    for field in ["tenant", "software_product"] {
        let answer = admin
            .json("PATCH", &path, &json!({field: 3, "max_licenses": 1}))
            .await;
        Dialect::Licence.expect(400, &answer);
    }
    assert_eq!(admin.get(&path).await.json()["data"], after);
    let quota = json!({"tenant": 2, "software_product": 1, "max_licenses": 2, "id": 77, "used_licenses": 2});
    let made = admin.json("POST", LICENCES, &quota).await.json();
    assert_eq!(
        (&made["data"]["id"], &made["data"]["used_licenses"]),
        (&json!(3), &json!(0))
    );

    let was = admin.get("/api/v1/tenants/a").await.json();
    let odd = json!({"tenant": "b", "created": "2020-01-01T00:00:00Z", "name": "A"});
    let refused = admin.json("PUT", "/api/v1/tenants/a", &odd).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    // What an answer says may be sent back, and says nothing.
    let mut body = was.clone();
    body["tenant"] = json!("b");
    let is = admin.json("PUT", "/api/v1/tenants/a", &body).await.json();
    for field in ["tenant", "id", "created_at", "projects"] {
        assert_eq!(is[field], was[field], "{field}");
    }
}
