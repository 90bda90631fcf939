//! A JSON Web Key Set (RFC 7517), of which only the keys count that fit one algorithm.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use serde_json::Value;

use crate::auth::Algorithm;
use crate::auth::algorithm::rsa_size;

/// Largest set, in bytes.
pub(super) const LARGEST: usize = 256 * 1024;
const MOST_KEYS: usize = 100;

/// The keys of a set that fit.
#[derive(Default)]
pub(super) struct KeySet(Vec<(Option<String>, Arc<DecodingKey>)>);

#[derive(Deserialize)]
struct Published {
    keys: Vec<Value>,
}

// The members that say what a key is for. Whatever else stands there (x5c, x5u) is not looked at.
#[derive(Deserialize)]
struct Member {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
    d: Option<Value>,
}

impl KeySet {
    /// Reads a set. Keys that do not fit are left out; a text that is no set, or too large a one, is refused whole.
    pub(super) fn parse(text: &[u8], algorithm: Algorithm) -> Result<Self, String> {
        if text.len() > LARGEST {
            return Err(format!("the key set is larger than {LARGEST} bytes"));
        }
        let published: Published =
            serde_json::from_slice(text).map_err(|_| "it is no JSON Web Key Set")?;
        if published.keys.len() > MOST_KEYS {
            return Err(format!("the key set has more than {MOST_KEYS} keys"));
        }
        let members = published.keys.into_iter().filter_map(|value| {
            let member: Member = serde_json::from_value(value).ok()?;
            let key = member.key(algorithm)?;
            Some((member.kid, Arc::new(key)))
        });
        Ok(Self(members.collect()))
    }

    /// The key of this name, or without a name the only one. Where two would do, none does.
    pub(super) fn find(&self, kid: Option<&str>) -> Option<Arc<DecodingKey>> {
        let mut fitting = self
            .0
            .iter()
            .filter(|(name, _)| kid.is_none() || name.as_deref() == kid);
        match (fitting.next(), fitting.next()) {
            (Some((_, key)), None) => Some(key.clone()),
            _ => None,
        }
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Member {
    fn key(&self, algorithm: Algorithm) -> Option<DecodingKey> {
        let alg = self.alg.as_deref();
        let named = alg.is_none_or(|alg| {
            alg == algorithm.as_str() || (alg == "Ed25519" && algorithm == Algorithm::EdDsa)
        });
        let verifies = self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self
                .key_ops
                .as_ref()
                .is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        // A private key that was published is everybody's.
        if !named || !verifies || self.d.is_some() {
            return None;
        }
        match algorithm {
            Algorithm::Hs256 => {
                let secret = BASE64_URL_SAFE_NO_PAD.decode(self.k.as_deref()?).ok()?;
                let key = algorithm.secret(&secret)?;
                (self.kty == "oct").then_some(key)
            }
            Algorithm::Rs256 => {
                if self.kty != "RSA" {
                    return None;
                }
                let key = DecodingKey::from_rsa_components(self.n.as_deref()?, self.e.as_deref()?)
                    .ok()?;
                match key.kind() {
                    DecodingKeyKind::RsaModulusExponent { n, e } => {
                        let zeros = n.iter().take_while(|byte| **byte == 0).count();
                        let first = n.get(zeros)?;
                        let bits =
                            (n.len() - zeros) * 8 - usize::try_from(first.leading_zeros()).ok()?;
                        // Exponent 1 signs nothing; an even one is none.
                        let exponent = e.len() <= 8 && e.last()? % 2 == 1 && e.as_slice() != [1];
                        (rsa_size(bits) && exponent).then_some(key.clone())
                    }
                    DecodingKeyKind::SecretOrDer(_) => None,
                }
            }
            Algorithm::Es256 => self.point("EC", "P-256", algorithm, || {
                DecodingKey::from_ec_components(self.x.as_deref()?, self.y.as_deref()?).ok()
            }),
            Algorithm::EdDsa => self.point("OKP", "Ed25519", algorithm, || {
                DecodingKey::from_ed_components(self.x.as_deref()?).ok()
            }),
        }
    }

    // A point that is on its curve.
    fn point(
        &self,
        kty: &str,
        curve: &str,
        algorithm: Algorithm,
        key: impl Fn() -> Option<DecodingKey>,
    ) -> Option<DecodingKey> {
        if self.kty != kty || self.crv.as_deref() != Some(curve) {
            return None;
        }
        match key()?.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => algorithm.raw(bytes),
            DecodingKeyKind::RsaModulusExponent { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::Jwk;
    use rcgen::{
        KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
    };
    use serde_json::json;

    use super::*;

    const PUBLIC: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

    fn jwk(algorithm: Algorithm) -> Value {
        let kind = match algorithm {
            Algorithm::Hs256 => {
                return json!({"kty": "oct", "k": BASE64_URL_SAFE_NO_PAD.encode([7; 32])});
            }
            Algorithm::Rs256 => &PKCS_RSA_SHA256,
            Algorithm::Es256 => &PKCS_ECDSA_P256_SHA256,
            Algorithm::EdDsa => &PKCS_ED25519,
        };
        let pair = KeyPair::generate_for(kind).unwrap();
        let key = algorithm.raw(pair.public_key_raw()).unwrap();
        let mut jwk = serde_json::to_value(Jwk::from_decoding_key(&key, None).unwrap()).unwrap();
        jwk.as_object_mut().unwrap().remove("alg");
        jwk
    }

    fn with(jwk: &Value, more: Value) -> Value {
        let mut jwk = jwk.clone();
        for (name, value) in more.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        jwk
    }

    fn set(algorithm: Algorithm, keys: &[Value]) -> KeySet {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), algorithm).unwrap()
    }

    #[test]
    fn case_15_only_keys_count_that_are_for_verifying_with_this_algorithm() {
        for algorithm in PUBLIC {
            let key = jwk(algorithm);
            for good in [
                json!({}),
                json!({"alg": algorithm.as_str(), "use": "sig", "key_ops": ["verify"]}),
                json!({"unknown": [1], "x5u": "https://x"}),
            ] {
                assert_eq!(set(algorithm, &[with(&key, good)]).len(), 1, "{key}");
            }
            for bad in [
                json!({"alg": "HS256"}),
                json!({"use": "enc"}),
                json!({"key_ops": ["encrypt"]}),
                json!({"key_ops": "verify"}),
                json!({"kty": "oct", "k": "AAAA"}),
                json!({"d": "AAAA"}),
                json!({"crv": "P-384", "n": "AQAB"}),
                json!({"x": "AAAA", "e": "Ag"}),
                json!({"kid": 1}),
            ] {
                assert_eq!(
                    set(algorithm, &[with(&key, bad.clone())]).len(),
                    0,
                    "{key} {bad}"
                );
            }
            for other in PUBLIC.into_iter().filter(|other| *other != algorithm) {
                assert_eq!(set(algorithm, &[jwk(other), json!(7)]).len(), 0);
            }
            assert_eq!(set(algorithm, &[jwk(Algorithm::Hs256)]).len(), 0);
        }
        assert_eq!(set(Algorithm::Hs256, &[jwk(Algorithm::Hs256)]).len(), 1);
        let short = json!({"kty": "oct", "k": "AAAA"});
        assert_eq!(set(Algorithm::Hs256, &[short]).len(), 0);
        let longer = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        assert!(Algorithm::Es256.raw(longer.public_key_raw()).is_none());
    }

    #[test]
    fn a_key_is_chosen_by_its_name_and_where_two_would_do_none_is() {
        let named = |name: &str| with(&jwk(Algorithm::EdDsa), json!({ "kid": name }));
        let one = set(Algorithm::EdDsa, &[named("a")]);
        assert!(one.find(Some("a")).is_some() && one.find(None).is_some());
        assert!(one.find(Some("b")).is_none());
        let two = set(Algorithm::EdDsa, &[named("a"), named("b")]);
        assert!(two.find(Some("b")).is_some() && two.find(None).is_none());
        let twins = set(Algorithm::EdDsa, &[named("a"), named("a")]);
        assert!(twins.find(Some("a")).is_none());
    }

    #[test]
    fn a_set_that_is_none_or_too_large_is_refused_whole() {
        let many = |count: usize| json!({ "keys": vec![json!({"kty": "EC"}); count] }).to_string();
        let parse =
            |text: &str| KeySet::parse(text.as_bytes(), Algorithm::Es256).map(|set| set.len());
        assert_eq!((parse(&many(100)), parse(&many(0))), (Ok(0), Ok(0)));
        for bad in [
            many(101),
            "{}".into(),
            "<html>".into(),
            " ".repeat(LARGEST) + &many(0),
        ] {
            assert!(parse(&bad).is_err());
        }
    }
}
