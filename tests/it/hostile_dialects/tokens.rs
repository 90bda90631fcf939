//! Whose requests these are: credentials that are none, and those of others.

use std::time::Duration;

use gpuquota_tests::dialect::{DIALECTS, Dialect, LICENCES};
use gpuquota_tests::quota::purchase;
use gpuquota_tests::raw::{body, exchange, status};
use gpuquota_tests::rest::{Carrier, Rest};
use gpuquota_tests::server::Server;
use gpuquota_tests::skip::measured;
use gpuquota_tests::wait::now;
use serde_json::{Value, json};

use crate::hostile_tokens::{Mint, claims, unix_s};

const CARRIERS: [Carrier; 3] = [Carrier::Bearer, Carrier::XAuthToken, Carrier::Token];

// Each from an address of its own: wrong credentials have a budget, which is another case.
fn caller(server: &Server, dialect: Dialect, token: Option<&str>, case: u8) -> Rest {
    let number = DIALECTS.iter().position(|other| *other == dialect).unwrap();
    Rest::new(server.rest, token).by(dialect.carrier()).from([
        127,
        0,
        case,
        10 + u8::try_from(number).unwrap(),
    ])
}

// Reads and writes of the dialect must all be refused so.
async fn refused(caller: &Rest, dialect: Dialect, status: u16) {
    let answer = caller.get(dialect.reads()).await;
    dialect.expect(status, &answer);
    for (method, path, body) in dialect.writes().iter().take(2) {
        let answer = caller.json(method, path, body).await;
        dialect.expect(status, &answer);
    }
}

pub(super) async fn case_14_no_token_and_what_is_no_token(server: &Server) {
    let good = server.admin_token();
    let long = "x".repeat(8 * 1024);
    for dialect in DIALECTS {
        assert_eq!(
            dialect
                .caller(server, good)
                .get(dialect.reads())
                .await
                .status,
            200
        );
        refused(&caller(server, dialect, None, 14), dialect, 401).await;
        for token in ["", " ", "x", "a.b.c", &good[1..], &long] {
            refused(&caller(server, dialect, Some(token), 14), dialect, 401).await;
        }
        for bytes in [&b"\xff\xfe"[..], "tökén".as_bytes()] {
            let (name, value) = dialect.carrier().header("");
            let head = format!(
                "GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{name}: {value}",
                dialect.reads()
            );
            let request = [head.as_bytes(), bytes, b"\r\n\r\n"].concat();
            let answer = exchange(server.rest, &request).await;
            let seen: Value = serde_json::from_str(body(&answer)).unwrap();
            assert!(dialect.is_refusal(401, &seen), "{dialect:?} {answer}");
            assert_eq!(status(&answer), dialect.http(401));
        }
    }
}

pub(super) async fn case_15_16_forged_and_ended_tokens(server: &Server) {
    let mint = Mint::of(server);
    let next = unix_s() + 600;
    let good = mint.with(&claims(json!({"exp": next})));
    let parts: Vec<&str> = good.split('.').collect();
    // {"alg":"none"}
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", parts[1]);
    let foreign = format!("{}.{}.{}", parts[0], parts[1], "A".repeat(43));
    let ended = mint.with(&claims(json!({"exp": unix_s() - 10})));
    let both = mint.with(&claims(
        json!({"exp": next, "expireTime": ((next - 1000) * 1000).to_string()}),
    ));
    let endless = mint.with(&claims(json!({})));
    for dialect in DIALECTS {
        assert_eq!(
            dialect
                .caller(server, &good)
                .get(dialect.reads())
                .await
                .status,
            200
        );
        for token in [&unsigned, &foreign, &ended, &both, &endless] {
            refused(&caller(server, dialect, Some(token), 15), dialect, 401).await;
        }
    }
}

/// Bodies and statuses to the letter; times only as far as a busy machine tells the same in both.
pub(super) async fn case_17_a_foreign_thing_answers_like_nothing(server: &Server) {
    let token = server.token(&["--role", "tenant-admin", "--tenant", "a"]);
    let asked = [
        (
            Dialect::GpuQuota,
            "PUT",
            ["/api/v1/quotas/b", "/api/v1/quotas/x"],
            purchase("default", 1),
        ),
        (
            Dialect::GpuQuota,
            "DELETE",
            ["/api/v1/quotas/b", "/api/v1/quotas/x"],
            purchase("default", 1),
        ),
        (
            Dialect::Workspace,
            "GET",
            ["/v2/pb/quotas", "/v2/px/quotas"],
            Value::Null,
        ),
        (
            Dialect::QuotaSet,
            "GET",
            ["/v1.0/pa/quota-sets/pb", "/v1.0/pa/quota-sets/px"],
            Value::Null,
        ),
        (
            Dialect::QuotaSet,
            "GET",
            ["/v1.0/pb/quota-sets/pb", "/v1.0/px/quota-sets/px"],
            Value::Null,
        ),
        (
            Dialect::Licence,
            "GET",
            [&*format!("{LICENCES}2/"), &*format!("{LICENCES}99/")],
            Value::Null,
        ),
        (
            Dialect::Licence,
            "PATCH",
            [&*format!("{LICENCES}2/"), &*format!("{LICENCES}99/")],
            json!({"max_licenses": 1}),
        ),
        (
            Dialect::Native,
            "GET",
            ["/api/v1/tenants/b", "/api/v1/tenants/x"],
            Value::Null,
        ),
    ];
    for (dialect, method, paths, body) in asked {
        let caller = dialect.caller(server, &token);
        let mut took = [Duration::MAX; 2];
        let mut answers = [None, None];
        for _ in 0..10 {
            for (at, path) in paths.iter().enumerate() {
                let begin = now();
                let answer = caller.json(method, path, &body).await;
                took[at] = took[at].min(begin.elapsed());
                answers[at] = Some(answer);
            }
        }
        let [there, nowhere] = answers.map(Option::unwrap);
        assert_eq!(
            (there.status, &there.text),
            (nowhere.status, &nowhere.text),
            "{paths:?}"
        );
        let denied = if [200, 403].contains(&there.status) {
            403
        } else {
            404
        };
        dialect.expect(denied, &there);
        measured(
            "foreign and not there",
            format!("{dialect:?} {method} {took:?}"),
        );
        let [short, long] = if took[0] < took[1] {
            took
        } else {
            [took[1], took[0]]
        };
        assert!(
            long < short * 4 + Duration::from_millis(2),
            "{paths:?} {took:?}"
        );
    }
}

pub(super) async fn case_19_a_tenant_administrator_sets_nothing(server: &Server) {
    let token = server.token(&["--role", "tenant-admin", "--tenant", "a"]);
    let caller = Rest::new(server.rest, Some(&token));
    for tenant in [2, 3, 99] {
        let quota = json!({"tenant": tenant, "software_product": 1, "max_licenses": 500});
        Dialect::Licence.expect(403, &caller.json("POST", LICENCES, &quota).await);
    }
    let up = json!({"max_licenses": 500});
    let own = caller.json("PATCH", &format!("{LICENCES}1/"), &up).await;
    Dialect::Licence.expect(403, &own);
    for (method, path, body) in Dialect::GpuQuota.writes() {
        Dialect::GpuQuota.expect(403, &caller.json(method, path, &body).await);
    }
    for (method, path, body) in Dialect::Native.writes() {
        if path != "/api/v1/seats" {
            Dialect::Native.expect(403, &caller.json(method, path, &body).await);
        }
    }
    let limit = json!({"hard_limit": -1});
    let answer = caller
        .json("PUT", "/api/v1/tenants/a/host-limits/c4", &limit)
        .await;
    Dialect::Native.expect(403, &answer);
}

pub(super) async fn case_21_another_dialects_header(server: &Server) {
    let admin = server.admin_token();
    for dialect in DIALECTS {
        let own = dialect.carrier();
        for carrier in CARRIERS.into_iter().filter(|carrier| *carrier != own) {
            let wrong = caller(server, dialect, Some(admin), 21).by(carrier);
            refused(&wrong, dialect, 401).await;
            // A wrong one elsewhere does no harm, and the right one elsewhere no good.
            let (name, value) = carrier.header("wrong");
            let right = dialect.caller(server, admin);
            let headers = [(name, value.as_str())];
            let answer = right.send("GET", dialect.reads(), &headers, "").await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let (name, value) = carrier.header(admin);
            let wrong = caller(server, dialect, Some("wrong"), 22);
            let headers = [(name, value.as_str())];
            let answer = wrong.send("GET", dialect.reads(), &headers, "").await;
            dialect.expect(401, &answer);
        }
    }
}

pub(super) async fn case_22_a_revoked_token(server: &Server) {
    let token = server.token(&["--role", "admin", "--subject", "leaver"]);
    for dialect in DIALECTS {
        let answer = dialect.caller(server, &token).get(dialect.reads()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let revoke = json!({"token": token});
    let answer = server
        .admin()
        .json("POST", "/api/v1/tokens/revoke", &revoke)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    for dialect in DIALECTS {
        refused(&caller(server, dialect, Some(&token), 23), dialect, 401).await;
    }
}

pub(super) async fn case_23_a_flood_of_wrong_tokens(server: &Server) {
    for dialect in DIALECTS {
        let wrong = caller(server, dialect, Some("wrong.wrong.wrong"), 24);
        let mut throttled = 0;
        for _ in 0..80 {
            let answer = wrong.get(dialect.reads()).await;
            if answer.status == 429 {
                dialect.expect(429, &answer);
                assert_eq!(answer.header("retry-after"), "1");
                throttled += 1;
            } else {
                dialect.expect(401, &answer);
            }
        }
        assert!(throttled > 0, "{dialect:?}");
        // A valid one is served from the same address all the while.
        let right = caller(server, dialect, Some(server.admin_token()), 24);
        assert_eq!(right.get(dialect.reads()).await.status, 200);
    }
}
