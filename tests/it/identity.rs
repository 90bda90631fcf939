//! Tokens of a foreign issuer, whose keys come from a file or an address (cases 15 and 22).

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use gpuquota_tests::jwks::{IssuerKey, Jwks, key_set};
use gpuquota_tests::quota::purchase;
use gpuquota_tests::rest::Rest;
use gpuquota_tests::server::Server;
use gpuquota_tests::wait::{SOON, until};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};

const LIST: &str = "/api/v1/quota/user-quotas";
const NODES: &str = "/api/v1/nodes";

#[expect(clippy::disallowed_methods, reason = "tokens end by the wall clock")]
fn unix_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs().cast_signed()
}

fn claims(more: Value) -> Value {
    let mut claims = json!({
        "iss": "https://idp", "aud": "gpu", "sub": "s", "role": "1", "exp": unix_s() + 600
    });
    let more = more.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(more);
    claims
}

// A server that trusts `https://idp`, with these further lines in its entry.
async fn trusting(more: &str) -> Server {
    let entry = format!(
        "[[tokens.issuer]]\nissuer = \"https://idp\"\naudience = \"gpu\"\nalgorithm = \"ES256\"\nroles = {{ \"1\" = \"admin\", \"2\" = \"viewer\" }}\n{more}\n[log]\n"
    );
    Server::with(&[("[log]\n", &entry)]).await
}

fn caller(server: &Server, key: &IssuerKey) -> Rest {
    Rest::new(server.rest, Some(&key.token(&claims(json!({})))))
}

async fn answers(caller: &Rest, status: u16) {
    until(&format!("a token is answered {status}"), SOON, async || {
        let answer = caller.get(LIST).await;
        // A token that is wrong for long runs into the limit of wrong tokens.
        if answer.status == status || (status == 401 && answer.status == 429) {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    })
    .await;
}

async fn fetched(jwks: &Jwks, times: usize) {
    until("the key set is fetched", SOON, async || {
        if jwks.fetches() >= times {
            Ok(())
        } else {
            Err(jwks.fetches().to_string())
        }
    })
    .await;
}

#[tokio::test]
async fn keys_rotate_under_a_running_server_and_a_vanished_one_stops_counting() {
    let (old, new) = (IssuerKey::new("old"), IssuerKey::new("new"));
    let jwks = Jwks::start(&[&old]).await;
    let url = jwks.url();
    let server = trusting(&format!("jwks_url = \"{url}\"\njwks_refresh_seconds = 1")).await;
    let (with_old, with_new) = (caller(&server, &old), caller(&server, &new));
    // The very first request too: it waits for the first fetch.
    assert_eq!(with_old.get(LIST).await.status, 200);
    assert_eq!(with_new.get(LIST).await.status, 401);
    jwks.publish(&[&old, &new]);
    answers(&with_new, 200).await;
    assert_eq!(with_old.get(LIST).await.status, 200);
    jwks.publish(&[&new]);
    answers(&with_old, 401).await;
    assert_eq!(with_new.get(LIST).await.status, 200);
    // Who signs with the vanished key under the new name is nobody.
    let forged = IssuerKey::new("new");
    let refused = caller(&server, &forged).get(LIST).await;
    assert!([401, 429].contains(&refused.status), "{refused:?}");
}

#[tokio::test]
async fn failing_fetches_keep_the_last_good_set_and_are_logged_once() {
    let key = IssuerKey::new("k");
    let jwks = Jwks::start(&[&key]).await;
    let url = jwks.url();
    let mut server = trusting(&format!("jwks_url = \"{url}\"\njwks_refresh_seconds = 1")).await;
    let caller = caller(&server, &key);
    answers(&caller, 200).await;
    let large = format!("{{\"keys\":[], \"x\": \"{}\"}}", "x".repeat(256 * 1024));
    for (head, body) in [
        ("500 Oops", "{\"keys\": []}"),
        ("200 OK", "<html>"),
        ("200 OK", &large),
        // To a place where there would be a valid, empty set.
        ("302 Found\r\nLocation: /elsewhere", "{\"keys\": []}"),
    ] {
        jwks.say(head, body);
        fetched(&jwks, jwks.fetches() + 2).await;
        assert_eq!(caller.get(LIST).await.status, 200, "{head} {body:.20}");
    }
    jwks.publish(&[&key]);
    server
        .process()
        .line_with("the key set is there again")
        .await;
    let log = server.process().log();
    let lines = log.iter().filter(|line| line.contains("cannot be fetched"));
    assert_eq!(lines.count(), 1, "{log:?}");
    // A set that is good and empty takes the keys away.
    jwks.publish(&[]);
    answers(&caller, 401).await;
}

#[tokio::test]
async fn a_set_that_stays_away_too_long_stops_counting_and_a_dead_address_stops_no_start() {
    let key = IssuerKey::new("k");
    let jwks = Jwks::start(&[&key]).await;
    jwks.say("503 Down", "");
    let url = jwks.url();
    let server = trusting(&format!(
        "jwks_url = \"{url}\"\njwks_refresh_seconds = 1\njwks_keep_seconds = 1"
    ))
    .await;
    let caller = caller(&server, &key);
    answers(&caller, 401).await;
    assert_eq!(server.admin().get(LIST).await.status, 200);
    jwks.publish(&[&key]);
    answers(&caller, 200).await;
    jwks.say("503 Down", "");
    answers(&caller, 401).await;
}

#[tokio::test]
async fn case_15_two_hundred_unknown_keys_at_once_ask_for_one_fetch() {
    let (known, late) = (IssuerKey::new("known"), IssuerKey::new("late"));
    let jwks = Jwks::start(&[&known]).await;
    let server = trusting(&format!("jwks_url = \"{}\"", jwks.url())).await;
    fetched(&jwks, 1).await;
    answers(&caller(&server, &known), 200).await;
    jwks.publish(&[&known, &late]);
    jwks.slow(std::time::Duration::from_millis(500));
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..200 {
        let stranger = caller(&server, &IssuerKey::new(&format!("../{number}")));
        asked.spawn(async move { stranger.get(LIST).await.status });
    }
    // One of those that wait has a key that is really new.
    let honest = caller(&server, &late);
    assert_eq!(honest.get(LIST).await.status, 200);
    while let Some(status) = asked.join_next().await {
        let status = status.unwrap();
        assert!([401, 429].contains(&status), "{status}");
    }
    assert_eq!((jwks.fetches(), jwks.connections()), (2, 2));
    // Asked for lately: whoever comes now is answered without a fetch.
    let stranger = caller(&server, &IssuerKey::new("another"));
    assert!([401, 429].contains(&stranger.get(LIST).await.status));
    assert_eq!(jwks.connections(), 2);
}

#[tokio::test]
async fn case_22_a_foreign_token_is_revoked_at_once_with_and_without_an_id() {
    let key = IssuerKey::new("k");
    let folder = tempfile::tempdir().unwrap();
    let server = with_file(folder.path(), &key_set(&[&key]), "").await;
    for (more, known_as) in [
        (json!({"jti": "7"}), "https://idp|7"),
        (json!({"sub": "t"}), "sha256:"),
    ] {
        let claims = claims(more);
        let token = key.token(&claims);
        let caller = Rest::new(server.rest, Some(&token));
        assert_eq!(caller.get(LIST).await.status, 200);
        let body = json!({ "token": token }).to_string();
        let answer = server
            .admin()
            .send("POST", "/api/v1/tokens/revoke", &[], body)
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let id = answer.json()["revoked"].as_str().unwrap().to_owned();
        assert!(id.starts_with(known_as), "{id}");
        // Nor does it come back with another signature, of which ECDSA has many.
        let again = key.token(&claims);
        assert_ne!(again, token);
        for token in [token, again] {
            let caller = Rest::new(server.rest, Some(&token));
            assert_eq!(caller.get(LIST).await.status, 401);
        }
    }
    // Others of the same issuer go on.
    assert_eq!(caller(&server, &key).get(LIST).await.status, 200);
}

#[tokio::test]
async fn claims_become_roles_and_tenants() {
    let key = IssuerKey::new("k");
    let folder = tempfile::tempdir().unwrap();
    let more = "tenants_claim = \"realm.groups\"\ntenant_map = { \"/Research\" = \"research\" }";
    let server = with_file(folder.path(), &key_set(&[&key]), more).await;
    let admin = Rest::new(server.rest, Some(&key.token(&claims(json!({"role": 1})))));
    for tenant in ["research", "other"] {
        admin.put(tenant, purchase("TW", 1)).await.expect_done();
    }
    assert_eq!(admin.get(NODES).await.status, 200);
    let groups = json!({"groups": ["/Research", "other", "/Else"]});
    let viewer = key.token(&claims(json!({"role": ["x", "2"], "realm": groups})));
    let viewer = Rest::new(server.rest, Some(&viewer));
    let list = viewer.get(LIST).await.json();
    assert_eq!(list["data"]["total"], 1, "{list}");
    assert_eq!(list["data"]["items"][0]["tenant_name"], "research");
    assert_eq!(viewer.get(NODES).await.status, 403);
    for refused in [
        json!({"role": "admin"}),
        json!({"role": null}),
        json!({"aud": "other"}),
        json!({"iss": "https://idp/"}),
        json!({"iss": null}),
        json!({"exp": unix_s() - 1}),
    ] {
        let token = key.token(&claims(refused.clone()));
        let answer = Rest::new(server.rest, Some(&token)).get(LIST).await;
        assert_eq!(answer.status, 401, "{refused}");
    }
}

// A server that trusts the keys of a file.
async fn with_file(folder: &Path, keys: &str, more: &str) -> Server {
    let path = folder.join("keys.json");
    std::fs::write(&path, keys).unwrap();
    trusting(&format!("jwks_file = \"{}\"\n{more}", path.display())).await
}

#[tokio::test]
async fn a_key_set_file_is_read_again_when_it_changes_and_kept_when_it_breaks() {
    let (old, new) = (IssuerKey::new("old"), IssuerKey::new("new"));
    let folder = tempfile::tempdir().unwrap();
    let mut server = with_file(folder.path(), &key_set(&[&old]), "").await;
    let (with_old, with_new) = (caller(&server, &old), caller(&server, &new));
    assert_eq!(with_old.get(LIST).await.status, 200);
    assert_eq!(with_new.get(LIST).await.status, 401);
    let path = folder.path().join("keys.json");
    std::fs::write(&path, "{").unwrap();
    server
        .process()
        .line_with("changed and cannot be used")
        .await;
    assert_eq!(with_old.get(LIST).await.status, 200);
    // As tools do it: a new file under the old name.
    let beside = folder.path().join("beside");
    std::fs::write(&beside, key_set(&[&new])).unwrap();
    std::fs::rename(&beside, &path).unwrap();
    answers(&with_new, 200).await;
    assert_eq!(with_old.get(LIST).await.status, 401);
}

#[tokio::test]
async fn a_key_set_by_https_needs_a_certificate_of_the_named_authority() {
    let key = IssuerKey::new("k");
    let (jwks, ca) = Jwks::start_tls(&[&key]).await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("jwks_url = \"{}\"", jwks.url());
    for (ca, status) in [(ca, 200), (Jwks::start_tls(&[&key]).await.1, 401)] {
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, ca).unwrap();
        let server = trusting(&format!("{url}\njwks_ca_file = \"{}\"", path.display())).await;
        assert_eq!(caller(&server, &key).get(LIST).await.status, status);
    }
}

#[tokio::test]
async fn case_15_hs256_with_the_public_rsa_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.pem");
    let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    std::fs::write(&path, pair.serialize_pem()).unwrap();
    let lines = format!("algorithm = \"RS256\"\nkey = \"{}\"", path.display());
    let server = Server::with(&[("algorithm = \"HS256\"\nkey = \"token.key\"", &lines)]).await;
    // `gpuquota-server token` signs with it.
    assert_eq!(server.admin().get(NODES).await.status, 200);
    assert!(
        server
            .admin_token()
            .starts_with("eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.")
    );
    let own = json!({
        "iss": "gpuquota", "aud": "gpuquota", "sub": "s", "role": "admin", "exp": unix_s() + 600
    });
    let pem = pair.public_key_pem();
    for secret in [
        pem.as_bytes(),
        pem.trim_end().as_bytes(),
        pair.public_key_raw(),
    ] {
        let header = Header::new(Algorithm::HS256);
        let token = jsonwebtoken::encode(&header, &own, &EncodingKey::from_secret(secret));
        let answer = Rest::new(server.rest, Some(&token.unwrap()))
            .get(NODES)
            .await;
        assert_eq!(answer.status, 401);
    }
}
