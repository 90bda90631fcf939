//! Requests that are signed with an access key, all the way through the REST surface.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use gpuquota_server::auth::Authenticator;
use gpuquota_server::clock::Clock;
use gpuquota_server::config::Dialects;
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::declared::tenant;
use crate::rest::Rest;
use crate::running::{Running, START, SetClock};

const SECRET: &[u8] = b"a-secret-of-this-test";
/// START, as the signature has it.
const DATE: &str = "20270115T080000Z";

fn authenticator(dir: &Path, clock: Arc<dyn Clock>) -> Authenticator {
    let (key, secret) = (dir.join("token.key"), dir.join("ak.key"));
    std::fs::write(&key, [7; 32]).unwrap();
    std::fs::write(&secret, SECRET).unwrap();
    let text = format!(
        "key = {key:?}\n[[access_key]]\nid = \"AK1\"\nsecret_file = {secret:?}\nsubject = \"sdk\"\nrole = \"viewer\"\nprojects = [\"p\"]\n"
    );
    Authenticator::open(&toml::from_str(&text).unwrap(), &clock).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// The Authorization of a GET without query, written down from the signer's description.
fn signature(id: &str, path: &str, body: &str) -> String {
    let hashed = |text: &str| hex(digest(&SHA256, text.as_bytes()).as_ref());
    let form = format!(
        "GET\n{path}/\n\nhost:h\nx-sdk-date:{DATE}\n\nhost;x-sdk-date\n{}",
        hashed(body)
    );
    let text = format!("SDK-HMAC-SHA256\n{DATE}\n{}", hashed(&form));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let tag = hex(hmac::sign(&key, text.as_bytes()).as_ref());
    format!("SDK-HMAC-SHA256 Access={id}, SignedHeaders=host;x-sdk-date, Signature={tag}")
}

async fn asked(rest: &Rest, path: &str, authorization: &str, body: &str) -> (u16, Value) {
    let request = http::Request::builder()
        .uri(path)
        .header("host", "h")
        .header("x-sdk-date", DATE)
        .header("authorization", authorization);
    let answer = rest.send(request, body).await;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn case_15_a_signature_opens_its_own_projects_and_covers_the_body() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(dir.path(), SetClock::new(START)).await;
    running
        .told([tenant("a", &["p"]), tenant("b", &["q"])])
        .await;
    let tokens = authenticator(dir.path(), running.clock.clone());
    let rest = Rest::of(&running, Dialects::default(), tokens);
    let (own, foreign, hosts) = ("/v2/p/quotas", "/v2/q/quotas", "/v1.0/p/quota-sets/p");
    for path in [own, hosts] {
        for body in ["", "{}"] {
            let answer = asked(&rest, path, &signature("AK1", path, body), body).await;
            assert_eq!(answer.0, 200, "{path}: {answer:?}");
        }
    }
    let answer = asked(&rest, foreign, &signature("AK1", foreign, ""), "").await;
    assert_eq!(answer.1["error_code"], "WKS.00001403", "{answer:?}");
    let large = "x".repeat(64 * 1024 + 1);
    for (status, path, authorization, body) in [
        (401, own, signature("AK1", own, "{}"), "{ }"),
        (401, own, signature("AK1", foreign, ""), ""),
        (401, own, signature("AK2", own, ""), ""),
        (413, own, signature("AK1", own, &large), large.as_str()),
        // Dialects that know no signatures.
        (
            401,
            "/api/v1/tenants",
            signature("AK1", "/api/v1/tenants", ""),
            "",
        ),
        (
            401,
            "/api/v1/licenses/admin/quotas",
            signature("AK1", "/api/v1/licenses/admin/quotas", ""),
            "",
        ),
    ] {
        let answer = asked(&rest, path, &authorization, body).await;
        assert_eq!(answer.0, status, "{path} {authorization}: {:?}", answer.1);
    }
    // What was recorded is of no use later.
    running.clock.set(START + 15 * 60 * 1000 + 1);
    let answer = asked(&rest, own, &signature("AK1", own, ""), "").await;
    assert_eq!(answer.0, 401, "{answer:?}");
    running.end().await;
}
