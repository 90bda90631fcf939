//! Credentials that are none: every one is the dialect's 401, and nothing but a 401 (cases 14, 15, 16, 23).

use std::time::{SystemTime, UNIX_EPOCH};

use gpuquota_tests::program::s;
use gpuquota_tests::quota::purchase;
use gpuquota_tests::raw::{body, exchange, status};
use gpuquota_tests::rest::Rest;
use gpuquota_tests::server::Server;
use gpuquota_tests::skip::measured;
use gpuquota_tests::wait::{now, until};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

const LIST: &str = "/api/v1/quota/user-quotas";

#[expect(clippy::disallowed_methods, reason = "tokens end by the wall clock")]
pub(crate) fn unix_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs().cast_signed()
}

pub(crate) struct Mint(Vec<u8>);

impl Mint {
    // With the server's own key: only what the token says can be wrong with it.
    pub(crate) fn of(server: &Server) -> Self {
        Self(
            std::fs::read(server.dir.join("token.key"))
                .unwrap()
                .trim_ascii()
                .to_vec(),
        )
    }

    fn token(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &EncodingKey::from_secret(&self.0)).unwrap()
    }

    pub(crate) fn with(&self, claims: &Value) -> String {
        self.token(&Header::new(Algorithm::HS256), claims)
    }
}

pub(crate) fn claims(more: Value) -> Value {
    let mut claims = json!({"iss": "gpuquota", "aud": "gpuquota", "sub": "t", "role": "admin"});
    claims
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    claims
}

async fn refused(server: &Server, token: &str, detail: u16) {
    let answer = Rest::new(server.rest, Some(token)).list("").await;
    answer.expect_code(401, detail);
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    // Case V8: no credential comes back.
    assert!(token.len() < 8 || !answer.text.contains(token));
}

#[tokio::test]
async fn case_14_no_token_and_what_is_no_token_is_the_dialects_401() {
    let server = Server::start().await;
    let nobody = Rest::new(server.rest, None);
    for (method, path) in [
        ("GET", LIST),
        ("PUT", "/api/v1/quotas/a"),
        ("DELETE", "/api/v1/quotas/a"),
    ] {
        let answer = nobody
            .send(method, path, &[], purchase("TW", 1).to_string())
            .await;
        answer.expect_code(401, 1);
    }
    let good = server.admin_token();
    let long = format!("{good}{}", "x".repeat(8 * 1024));
    for token in [
        "x",
        "a.b.c",
        "..",
        "null",
        &good[1..],
        &good[..good.len() - 1],
        &long,
    ] {
        refused(&server, token, 2).await;
    }
    for value in [
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Token x",
        good,
        "Bearer\tx",
    ] {
        let answer = nobody
            .send("GET", LIST, &[("authorization", value)], "")
            .await;
        answer.expect_code(401, 1);
    }
    for bytes in [&b"Bearer \xff\xfe"[..], "Bearer tökén".as_bytes()] {
        let mut request =
            format!("GET {LIST} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: ")
                .into_bytes();
        request.extend_from_slice(bytes);
        request.extend_from_slice(b"\r\n\r\n");
        let answer = exchange(server.rest, &request).await;
        assert!(
            status(&answer) == 401 && body(&answer).contains(r#""code":4010"#),
            "{answer}"
        );
    }
    // The longest that document 001 knows of still fits into the head.
    let answer = nobody
        .try_send(
            "GET",
            LIST,
            &[("authorization", &format!("Bearer {}", "x".repeat(40_000)))],
            "",
        )
        .await;
    assert_eq!(answer.unwrap().status, 401);
    assert_eq!(server.admin().list("").await.status, 200);
}

#[tokio::test]
async fn case_15_foreign_algorithms_keys_and_forms_are_denied() {
    let server = Server::start().await;
    let mint = Mint::of(&server);
    let good = claims(json!({"exp": unix_s() + 600}));
    // The mint is right: what follows is refused for what it says.
    let honest = Rest::new(server.rest, Some(&mint.with(&good)));
    assert_eq!(honest.list("").await.status, 200);
    let before = server.fingerprint().await;
    let token = mint.with(&good);
    let parts: Vec<&str> = token.split('.').collect();
    for header in [
        "eyJhbGciOiJub25lIn0",  // {"alg":"none"}
        "eyJhbGciOiJOT05FIn0",  // {"alg":"NONE"}
        "eyJhbGciOiJSUzI1NiJ9", // {"alg":"RS256"}
        "eyJ0eXAiOiJKV1QifQ",   // {"typ":"JWT"}
    ] {
        for signature in ["", parts[2]] {
            refused(&server, &format!("{header}.{}.{signature}", parts[1]), 2).await;
        }
    }
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        refused(&server, &mint.token(&Header::new(algorithm), &good), 2).await;
    }
    for kid in ["", "1", "../../../../dev/null", "' OR 1=1 --"] {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(kid.to_owned());
        refused(&server, &mint.token(&header, &good), 2).await;
    }
    refused(&server, &format!("{token}.{}", parts[2]), 2).await;
    // Signed with what everybody can read.
    let public = std::fs::read(server.dir.join("ca.crt")).unwrap();
    refused(&server, &Mint(public).with(&good), 2).await;
    refused(&server, &Mint(Vec::from([0; 32])).with(&good), 2).await;
    for wrong in [
        json!({"exp": unix_s() + 600, "iss": "other"}),
        json!({"exp": unix_s() + 600, "aud": "other"}),
        json!({"exp": unix_s() + 600, "role": "root"}),
        json!({"exp": unix_s() + 600, "role": ["admin"]}),
        json!({"exp": unix_s() + 600, "sub": ""}),
        json!({"exp": unix_s() + 600, "tenants": ["../x"]}),
    ] {
        refused(&server, &mint.with(&claims(wrong)), 2).await;
    }
    assert_eq!(server.fingerprint().await, before);
}

#[tokio::test]
async fn case_16_a_token_needs_an_end_that_has_not_come() {
    let server = Server::start().await;
    let mint = Mint::of(&server);
    let (past, next) = (unix_s() - 10, unix_s() + 600);
    let ms = |seconds: i64| (seconds * 1000).to_string();
    for good in [
        json!({"exp": next}),
        json!({"expireTime": ms(next)}),
        json!({"exp": next, "expireTime": ms(next)}),
    ] {
        let caller = Rest::new(server.rest, Some(&mint.with(&claims(good))));
        assert_eq!(caller.list("").await.status, 200);
    }
    for bad in [
        json!({}),
        json!({"exp": past}),
        json!({"exp": next, "expireTime": ms(past)}),
        json!({"exp": past, "expireTime": ms(next)}),
        json!({"expireTime": next.to_string()}),
        json!({"expireTime": next * 1000}),
        json!({"expireTime": format!("-{}", ms(next))}),
        json!({"expireTime": "9".repeat(30)}),
        json!({"expireTime": ""}),
        json!({"exp": -1}),
        json!({"exp": next.to_string()}),
        json!({"exp": 1e300}),
        json!({"exp": next, "nbf": next}),
    ] {
        refused(&server, &mint.with(&claims(bad)), 2).await;
    }
}

#[tokio::test]
async fn case_23_a_flood_of_wrong_tokens_is_429_while_a_valid_one_is_served() {
    let mut server = Server::start().await;
    let admin = server.admin();
    admin.put("a", purchase("TW", 1)).await.expect_done();
    let before = server.fingerprint().await;
    let wrong = Rest::new(server.rest, Some("wrong.wrong.wrong"));
    let resident = server.process().memory_kib("VmRSS");
    let (mut denied, mut throttled, mut slowest) = (0, 0, s(0));
    let begin = now();
    for round in 0..1000 {
        let answer = wrong.list("").await;
        match answer.status {
            401 => denied += 1,
            429 => {
                answer.expect_code(429, 1);
                assert_eq!(answer.header("retry-after"), "1");
                throttled += 1;
            }
            _ => panic!("{answer:?}"),
        }
        if round % 50 == 0 {
            let one = now();
            assert_eq!(admin.list("").await.status, 200);
            slowest = slowest.max(one.elapsed());
        }
    }
    let seconds = begin.elapsed().as_secs();
    // 50 at once and 5 a second.
    assert!(
        (50..=60 + 5 * (seconds + 1)).contains(&denied) && throttled > 0,
        "{denied} {throttled}"
    );
    measured(
        "1000 wrong tokens",
        format!(
            "{:?}, {denied} x 401, {throttled} x 429, slowest valid {slowest:?}",
            begin.elapsed()
        ),
    );
    let grown = server
        .process()
        .memory_kib("VmRSS")
        .saturating_sub(resident);
    assert!(grown < 8 * 1024, "memory grew by {grown} KiB");
    assert_eq!(server.fingerprint().await, before);
    // The budget comes back.
    until("a wrong token is a 401 again", s(5), async || {
        let answer = wrong.list("").await;
        if answer.status == 401 {
            Ok(())
        } else {
            Err(answer.text)
        }
    })
    .await;
}
