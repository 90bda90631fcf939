//! Requests that the vendor's own signer signed, and what may not be changed in them.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;

/// 2026-11-22T08:15:00Z
const SIGNED_AT: Timestamp = Timestamp(1_795_335_300_000);
const SECRET: &[u8] = b"sk-of-the-example-0123456789abcdefghij";

// Made by the signer of huaweicloudsdkcore 3.1 with this secret and the id AKEXAMPLE0001.
struct Vector {
    target: &'static str,
    more: &'static [(&'static str, &'static str)],
    names: &'static str,
    signature: &'static str,
    body: &'static str,
}
const PLAIN: Vector = Vector {
    target: "/v2/45df5566cb3443ab910cf0daebcapoi8/quotas",
    more: &[],
    names: "content-type;host;x-project-id;x-sdk-date",
    signature: "9572cc5c4ad4c3b3ab07be4a65abc01ed751612f36538f86eb98f1cdb5fbe369",
    body: "",
};
const QUERY: Vector = Vector {
    target: "/v1.0/p~1/quota-sets/t%20x?a=x%20y%2Bz%2F%C3%A4&a-b=~&b=2&empty=&flag=true&list=a&list=z",
    more: &[
        ("user-agent", "huaweicloud-usdk-python/3.0"),
        ("x-note", "  käse "),
    ],
    names: "content-type;host;user-agent;x-note;x-project-id;x-sdk-date",
    signature: "b9427ba9731c17edec18a86edb81b665b3ce6a2a9783584452435639a1c4c657",
    body: "",
};
const BODY: Vector = Vector {
    target: "/v2/p/quotas/",
    more: &[],
    names: "content-type;host;x-project-id;x-sdk-date",
    signature: "e54337715c9ae78aab9f64cb4fcc5b2ff122b5528b6a66045201d6f81da9d0a6",
    body: "{\"page\": 1}",
};

fn keys() -> AccessKeys {
    let text = "id = \"AKEXAMPLE0001\"\nsecret_file = \"s\"\nsubject = \"sdk\"\nrole = \"viewer\"\nprojects = [\"p\"]";
    let mut keys = AccessKeys::default();
    keys.insert(&toml::from_str(text).unwrap(), SECRET);
    keys
}

// The vector as a request, with headers and body replaced or (with an empty text) taken away.
fn verdict(
    vector: &Vector,
    changes: &[(&'static str, &str)],
    now: Timestamp,
) -> Result<Verified, TokenError> {
    let authorization = format!(
        "SDK-HMAC-SHA256 Access=AKEXAMPLE0001, SignedHeaders={}, Signature={}",
        vector.names, vector.signature
    );
    let mut headers = HeaderMap::new();
    let base = [
        ("content-type", "application/json"),
        ("host", "gpuquota.example:8080"),
        ("x-project-id", "45df5566cb3443ab910cf0daebcapoi8"),
        ("x-sdk-date", "20261122T081500Z"),
        ("authorization", authorization.as_str()),
    ];
    let (mut target, mut body, mut method) = (vector.target, vector.body, "GET");
    let changes = changes.iter().copied();
    for (name, value) in base
        .into_iter()
        .chain(vector.more.iter().copied())
        .chain(changes)
    {
        match name {
            "target" => target = value,
            "body" => body = value,
            "method" => method = value,
            _ if value.is_empty() => _ = headers.remove(name),
            _ => {
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
    let (path, query) = target
        .split_once('?')
        .map_or((target, None), |(p, q)| (p, Some(q)));
    let body = body.as_bytes();
    let request = SignedRequest {
        method,
        path,
        query,
        headers: &headers,
        body,
    };
    keys().verify(&request, now)
}

#[test]
fn requests_that_the_vendors_sdk_signed_are_whose_they_are() {
    for vector in [PLAIN, QUERY, BODY] {
        let verified = verdict(&vector, &[], SIGNED_AT).unwrap();
        assert_eq!(verified.principal.actor(), "viewer:sdk");
        assert!(verified.ids.is_empty());
    }
    // The same query in another order and with what needs no encoding encoded is the same request.
    let other = QUERY
        .target
        .replace("a-b=~", "a%2Db=%7e")
        .replace("b=2&", "")
        + "&b=2";
    assert!(verdict(&QUERY, &[("target", &other)], SIGNED_AT).is_ok());
}

#[test]
fn case_15_whatever_of_a_signed_request_is_changed_its_signature_does_not_count() {
    let bare = |names: &str, signature: &str| {
        format!(
            "SDK-HMAC-SHA256 Access=AKEXAMPLE0001, SignedHeaders={names}, Signature={signature}"
        )
    };
    let good = bare(PLAIN.names, PLAIN.signature);
    let flipped = good.replace("9572", "9573");
    let stranger = good.replace("0001", "0002");
    let doubled = format!("{good}, Access=AKEXAMPLE0001");
    let without_host = bare("content-type;x-project-id;x-sdk-date", PLAIN.signature);
    let without_date = bare("content-type;host;x-project-id", PLAIN.signature);
    let unsorted = bare("host;content-type;x-project-id;x-sdk-date", PLAIN.signature);
    let repeated = bare(
        "content-type;host;host;x-project-id;x-sdk-date",
        PLAIN.signature,
    );
    for change in [
        ("method", "DELETE"),
        ("target", "/v2/45df5566cb3443ab910cf0daebcapoi9/quotas"),
        ("target", "/v2/45df5566cb3443ab910cf0daebcapoi8/quotas?a=1"),
        ("target", "/v2/%ff/quotas"),
        ("host", "other.example:8080"),
        ("content-type", "text/plain"),
        ("content-type", ""),
        ("body", "x"),
        ("authorization", flipped.as_str()),
        ("authorization", &stranger),
        ("authorization", &doubled),
        ("authorization", &without_host),
        ("authorization", &without_date),
        ("authorization", &unsorted),
        ("authorization", &repeated),
        ("authorization", "SDK-HMAC-SHA256"),
        ("authorization", "SDK-HMAC-SHA256 Access=AKEXAMPLE0001"),
        ("authorization", "Bearer x"),
    ] {
        let verdict = verdict(&PLAIN, &[change], SIGNED_AT);
        assert_eq!(verdict, Err(TokenError::Signature), "{change:?}");
    }
    for date in [
        "",
        "20261122T083001Z",
        "2026-11-22T08:15:00Z",
        "20261322T081500Z",
        "+0261122T081500Z",
    ] {
        let verdict = verdict(&PLAIN, &[("x-sdk-date", date)], SIGNED_AT);
        assert_eq!(verdict, Err(TokenError::Skew), "{date}");
    }
    // An id that nobody has is answered like one that somebody has.
    let nobodys = [
        ("authorization", stranger.as_str()),
        ("x-sdk-date", "20261122T083001Z"),
    ];
    let verdict_of_nobody = verdict(&PLAIN, &nobodys, SIGNED_AT);
    assert_eq!(verdict_of_nobody, Err(TokenError::Skew));
    // Another valid date is not the one that was signed; a body that is named but not sent is no body.
    let changed = verdict(&PLAIN, &[("x-sdk-date", "20261122T081501Z")], SIGNED_AT);
    assert_eq!(changed, Err(TokenError::Signature));
    let digest = "x".repeat(64);
    let named = verdict(
        &BODY,
        &[("body", ""), ("x-sdk-content-sha256", &digest)],
        SIGNED_AT,
    );
    assert_eq!(named, Err(TokenError::Signature));
}

#[test]
fn a_signature_counts_for_fifteen_minutes_either_way() {
    let after = |ms: i64| verdict(&PLAIN, &[], Timestamp(SIGNED_AT.0 + ms)).map(|_| ());
    assert_eq!((after(SKEW_MS), after(-SKEW_MS)), (Ok(()), Ok(())));
    for ms in [SKEW_MS + 1, -SKEW_MS - 1] {
        assert_eq!(after(ms), Err(TokenError::Skew));
    }
}

#[test]
fn a_signature_must_cover_host_and_date_and_name_its_headers_in_order() {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("gpuquota.example"));
    headers.insert("x-sdk-date", HeaderValue::from_static("20261122T081500Z"));
    headers.append("twice", HeaderValue::from_static("a"));
    headers.append("twice", HeaderValue::from_static("b"));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    // Signed as the names say, so that nothing but the names can be wrong.
    let verdict = |names: &str| {
        let bare = SignedRequest {
            method: "GET",
            path: "/v2/p/quotas",
            query: None,
            headers: &headers,
            body: b"",
        };
        let list: Vec<&str> = names.split(';').collect();
        let digest = bare.digest(&list).unwrap_or_default();
        let text = format!("SDK-HMAC-SHA256\n20261122T081500Z\n{digest}");
        let signature: String = hmac::sign(&key, text.as_bytes())
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let header = format!(
            "SDK-HMAC-SHA256 Access=AKEXAMPLE0001, SignedHeaders={names}, Signature={signature}"
        );
        let mut headers = headers.clone();
        headers.insert("authorization", header.parse().unwrap());
        let request = SignedRequest {
            headers: &headers,
            ..bare
        };
        keys().verify(&request, SIGNED_AT).map(|_| ())
    };
    assert_eq!(verdict("host;x-sdk-date"), Ok(()));
    for names in [
        "host",
        "x-sdk-date",
        "x-sdk-date;host",
        "host;host;x-sdk-date",
        "Host;host;x-sdk-date",
        "host;twice;x-sdk-date",
        "absent;host;x-sdk-date",
    ] {
        assert_eq!(verdict(names), Err(TokenError::Signature), "{names}");
    }
}
