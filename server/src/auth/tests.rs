//! Every algorithm, as our own and as a foreign issuer's, against every other key and algorithm.

use std::path::Path;
use std::sync::Arc;

use gpuquota_core::id::Timestamp;
use jsonwebtoken::{EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use super::algorithm::Algorithm;
use super::authenticator::Authenticator;
use super::signing::SigningKey;
use super::token::{TokenError, Verified};
use crate::clock::{Clock, SystemClock};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const ALL: [Algorithm; 4] = [
    Algorithm::Hs256,
    Algorithm::Rs256,
    Algorithm::Es256,
    Algorithm::EdDsa,
];

// Both halves of a key as files: private as `token` takes it, public as an issuer's entry does.
struct Pair {
    private: String,
    public: String,
}

fn pair(algorithm: Algorithm) -> Pair {
    let pair = match algorithm {
        Algorithm::Hs256 => {
            let secret: [u8; 32] = rand::random();
            let text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
            return Pair {
                private: text.clone(),
                public: text,
            };
        }
        Algorithm::Rs256 => KeyPair::generate_for(&PKCS_RSA_SHA256),
        Algorithm::Es256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        Algorithm::EdDsa => KeyPair::generate_for(&PKCS_ED25519),
    };
    let pair = pair.unwrap();
    Pair {
        private: pair.serialize_pem(),
        public: pair.public_key_pem(),
    }
}

fn sign(algorithm: Algorithm, private: &str, claims: &Value) -> String {
    let (key, _) = SigningKey::read(algorithm, private.as_bytes()).unwrap();
    key.token(claims).unwrap()
}

fn claims(more: Value) -> Value {
    let mut claims = json!({
        "iss": "https://idp", "aud": ["gpu", "else"], "sub": "s", "role": "1", "exp": 1_800_000_100
    });
    let object = claims.as_object_mut().unwrap();
    for (name, value) in more.as_object().unwrap() {
        object.insert(name.clone(), value.clone());
    }
    claims
}

fn foreign(dir: &Path, algorithm: Algorithm, public: &str) -> Authenticator {
    let source = match algorithm {
        Algorithm::Hs256 => "secret_file",
        _ => "public_key_file",
    };
    let entry = format!(
        "issuer = \"https://idp\"\naudience = \"gpu\"\nroles = {{ \"1\" = \"admin\" }}\n{source} = \"key\""
    );
    std::fs::write(dir.join("key"), public).unwrap();
    open(
        dir,
        &format!(
            "[[issuer]]\nalgorithm = \"{}\"\n{entry}",
            algorithm.as_str()
        ),
    )
    .unwrap()
}

fn open(dir: &Path, entries: &str) -> Result<Authenticator, String> {
    std::fs::write(dir.join("token.key"), [b'k'; 32]).unwrap();
    let text = format!("key = \"token.key\"\n{entries}");
    let mut tokens: crate::config::Tokens = toml::from_str(&text).map_err(|e| e.to_string())?;
    tokens.prepare(dir)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    Authenticator::open(&tokens, &clock).map_err(|e| e.to_string())
}

fn verdict(authenticator: &Authenticator, token: &str) -> Result<Verified, TokenError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(authenticator.token(token, NOW))
}

#[test]
fn case_15_only_the_right_key_with_the_right_algorithm_ever_verifies() {
    let dir = tempfile::tempdir().unwrap();
    for right in ALL {
        let keys = pair(right);
        let authenticator = foreign(dir.path(), right, &keys.public);
        let good = sign(right, &keys.private, &claims(json!({})));
        let verified = verdict(&authenticator, &good).unwrap();
        assert_eq!(verified.principal.actor(), "admin:https://idp|s");
        for wrong in ALL {
            let token = sign(wrong, &pair(wrong).private, &claims(json!({})));
            let verdict = verdict(&authenticator, &token);
            assert_eq!(verdict, Err(TokenError::Invalid), "{wrong:?} for {right:?}");
        }
        // What everybody can read as a secret.
        for public in [keys.public.as_str(), keys.public.trim_end()] {
            let key = EncodingKey::from_secret(public.as_bytes());
            let header = Header::new(jsonwebtoken::Algorithm::HS256);
            let token = jsonwebtoken::encode(&header, &claims(json!({})), &key).unwrap();
            let expected = right == Algorithm::Hs256;
            assert_eq!(
                verdict(&authenticator, &token).is_ok(),
                expected,
                "{right:?}"
            );
        }
        let parts: Vec<&str> = good.split('.').collect();
        // {"alg":"none"}, {"alg":"RS256","crit":["x"],"x":1}
        for header in [
            "eyJhbGciOiJub25lIn0",
            "eyJhbGciOiJSUzI1NiIsImNyaXQiOlsieCJdLCJ4IjoxfQ",
        ] {
            for signature in ["", parts[2]] {
                let token = format!("{header}.{}.{signature}", parts[1]);
                assert_eq!(verdict(&authenticator, &token), Err(TokenError::Invalid));
            }
        }
        for token in [
            format!("{good}.{}", parts[2]),
            format!("{good}="),
            "x".repeat(9000),
        ] {
            assert_eq!(verdict(&authenticator, &token), Err(TokenError::Invalid));
        }
        for wrong in [
            json!({"iss": "https://idp/"}),
            json!({"iss": ["https://idp"]}),
            json!({"iss": null}),
            json!({"iss": "gpuquota"}),
            json!({"aud": "GPU"}),
            json!({"aud": null}),
            json!({"jti": 7}),
        ] {
            let token = sign(right, &keys.private, &claims(wrong.clone()));
            assert_eq!(
                verdict(&authenticator, &token),
                Err(TokenError::Invalid),
                "{wrong}"
            );
        }
    }
}

#[test]
fn case_15_no_token_with_one_character_changed_verifies() {
    let dir = tempfile::tempdir().unwrap();
    for algorithm in ALL {
        let keys = pair(algorithm);
        let authenticator = foreign(dir.path(), algorithm, &keys.public);
        let good = sign(algorithm, &keys.private, &claims(json!({})));
        assert!(verdict(&authenticator, &good).is_ok());
        for place in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            // The last bit of six: what ends a part with spare bits must be refused as well.
            bytes[place] = match bytes[place] {
                b'A' => b'B',
                b'z' => b'y',
                b'Z' | b'9' | b'-' | b'_' | b'.' => b'A',
                other => other + 1,
            };
            let changed = String::from_utf8(bytes).unwrap();
            let verdict = verdict(&authenticator, &changed);
            assert_eq!(verdict, Err(TokenError::Invalid), "{algorithm:?} {place}");
        }
    }
}

#[test]
fn case_16_a_foreign_token_too_needs_an_end_that_has_not_come() {
    let dir = tempfile::tempdir().unwrap();
    for algorithm in ALL {
        let keys = pair(algorithm);
        let authenticator = foreign(dir.path(), algorithm, &keys.public);
        let check = |more| {
            verdict(
                &authenticator,
                &sign(algorithm, &keys.private, &claims(more)),
            )
        };
        for bad in [
            json!({"exp": null}),
            json!({"exp": 1_800_000_000}),
            json!({"exp": 1_800_000_100, "expireTime": "1799999999999"}),
            json!({"exp": null, "expireTime": "1800000100"}),
            json!({"exp": null, "expireTime": 1_800_000_100_000_i64}),
            json!({"exp": "1800000100"}),
            json!({"nbf": 1_800_000_001}),
        ] {
            assert_eq!(
                check(bad.clone()),
                Err(TokenError::Expired),
                "{algorithm:?} {bad}"
            );
        }
        let end = json!({"exp": null, "expireTime": "1800000000001"});
        assert_eq!(check(end).unwrap().until, Timestamp(NOW.0 + 1));
    }
}

#[test]
fn our_own_tokens_verify_under_each_algorithm_and_a_key_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for algorithm in ALL {
        let keys = pair(algorithm);
        let path = dir.path().join("own");
        std::fs::write(&path, format!("\n{}\n", keys.private)).unwrap();
        let read = |algorithm| super::token::TokenKey::read(&path, algorithm);
        let grant = super::token::Grant {
            subject: "s".into(),
            role: super::Role::Viewer,
            tenants: [].into(),
            projects: [].into(),
            user: None,
            container: Some("c".into()),
        };
        let token = read(algorithm)
            .unwrap()
            .issue(&grant, "id", NOW, 60)
            .unwrap();
        let own = Authenticator::own(read(algorithm).unwrap());
        let verified = verdict(&own, &token).unwrap();
        assert_eq!(verified.principal.container.as_deref(), Some("c"));
        for other in ALL {
            // Any file of 32 bytes may be a secret.
            let fits = other == algorithm || other == Algorithm::Hs256;
            assert_eq!(read(other).is_ok(), fits, "{algorithm:?} as {other:?}");
            let token = sign(
                other,
                &pair(other).private,
                &json!({
                    "iss": "gpuquota", "aud": "gpuquota", "sub": "s", "role": "admin", "exp": 1_800_000_100
                }),
            );
            assert_eq!(verdict(&own, &token), Err(TokenError::Invalid));
        }
    }
}

#[test]
fn a_single_key_takes_no_kid_but_its_own_and_one_issuer_may_have_no_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("s"), "s".repeat(32)).unwrap();
    let entry = "[[issuer]]\nalgorithm = \"HS256\"\nsecret_file = \"s\"\nroles = { \"1\" = \"viewer\" }\nsubject_claim = \"userId\"\n";
    let named = open(dir.path(), &format!("{entry}kid = \"k\"\n")).unwrap();
    let unnamed = open(dir.path(), entry).unwrap();
    // As document 002's example: no iss, no aud, no exp, the role as text.
    let claims = json!({"userId": "11655048541", "role": "1", "expireTime": "1800000000001"});
    let with = |kid: Option<&str>| {
        let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
        header.kid = kid.map(ToOwned::to_owned);
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&[b's'; 32])).unwrap()
    };
    for (kid, in_named, in_unnamed) in [
        (None, true, true),
        (Some("k"), true, false),
        (Some("../../../dev/null"), false, false),
        (Some(""), false, false),
    ] {
        assert_eq!(verdict(&named, &with(kid)).is_ok(), in_named, "{kid:?}");
        assert_eq!(verdict(&unnamed, &with(kid)).is_ok(), in_unnamed, "{kid:?}");
    }
    // The example tokens of the document itself: foreign key, long over.
    let printed = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJjb21wdXRlVXNlciI6InNsdXJtdGVzdCIsImFjY291bnRTdGF0dXMiOiJUcmlhbCIsImNyZWF0b3IiOiJhYyIsInJvbGUiOiIxIiwiZXhwaXJlVGltZSI6IjE2ODYxMjMzNDY1NjgiLCJjbHVzdGVySWQiOiIxMTExMiIsImludm9rZXIiOiI2MDQ4Y2U3YmExNWMyYWYyZThjZWMxMjk5MWVjMTNjZiIsInVzZXIiOiJzbHVybXRlc3QiLCJ1c2VySWQiOiIxMTY1NTA0ODU0MSJ9.iQUBzN32jiCeeFuJ9lFS_XjBpxenEEupQRiyA3Ef334";
    assert_eq!(verdict(&unnamed, printed), Err(TokenError::Invalid));
}
