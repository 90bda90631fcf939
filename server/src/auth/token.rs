//! Tokens: JWTs of this server's own issuer, HS256 with the key that `init` made.
//!
//! The algorithm is the configured one whatever the token's header says, and a token without an end is refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use gpuquota_core::id::{ProjectId, TenantName, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Principal, Role};

/// `iss` and `aud` of our own tokens.
const ISSUER: &str = "gpuquota";
const LONGEST: usize = 8 * 1024;

/// Why a token does not count. Callers are told no more than the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no JWT of ours.
    #[error("the token is not valid")]
    Invalid,
    /// It has ended, has not begun, or has no end.
    #[error("the token has expired or has no valid expiry")]
    Expired,
    /// It was taken back.
    #[error("the token was revoked")]
    Revoked,
}

/// An accepted token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whose it is.
    pub principal: Principal,
    /// Its own id, by which it can be revoked.
    pub id: Option<String>,
    /// Its end.
    pub until: Timestamp,
}

/// What to put into a new token.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Who, for the journal.
    pub subject: String,
    /// What it may do.
    pub role: Role,
    /// For whom.
    pub tenants: BTreeSet<TenantName>,
    /// In which projects.
    pub projects: BTreeSet<ProjectId>,
}

#[derive(Debug, Serialize)]
struct Issued<'a> {
    iss: &'static str,
    aud: &'static str,
    sub: &'a str,
    role: Role,
    tenants: &'a BTreeSet<TenantName>,
    projects: &'a BTreeSet<ProjectId>,
    jti: &'a str,
    iat: i64,
    exp: i64,
}

#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    role: Role,
    #[serde(default)]
    tenants: BTreeSet<TenantName>,
    #[serde(default)]
    projects: BTreeSet<ProjectId>,
    #[serde(default)]
    jti: Option<String>,
    #[serde(default)]
    exp: Option<Value>,
    #[serde(default)]
    nbf: Option<Value>,
    #[serde(default, rename = "expireTime")]
    expire_time: Option<Value>,
}

/// The key that signs and verifies. Never shown.
pub struct TokenKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

/// The key file is missing or too weak.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read the token key {0}: {1}")]
    Unreadable(String, #[source] std::io::Error),
    /// Too short to be a key.
    #[error("the token key {0} must hold at least 32 bytes; make one with `gpuquota-server init`")]
    TooShort(String),
}

impl TokenKey {
    /// Reads the key file: its bytes without surrounding white space are the key.
    ///
    /// # Errors
    /// When it cannot be read or is too short.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let name = path.display().to_string();
        let bytes = fs::read(path).map_err(|e| KeyError::Unreadable(name.clone(), e))?;
        Self::new(bytes.trim_ascii()).ok_or(KeyError::TooShort(name))
    }

    /// A key of at least 32 bytes.
    #[must_use]
    pub fn new(secret: &[u8]) -> Option<Self> {
        if secret.len() < 32 {
            return None;
        }
        let mut validation = Validation::new(Algorithm::HS256);
        // Time is checked below against the server's clock; the library would read its own.
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[ISSUER]);
        validation.set_required_spec_claims(&["iss", "aud"]);
        Some(Self {
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
            validation,
        })
    }

    /// A new token that ends `ttl_s` seconds after `now`.
    ///
    /// # Errors
    /// When the library cannot sign.
    pub fn issue(
        &self,
        grant: &Grant,
        id: &str,
        now: Timestamp,
        ttl_s: i64,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let iat = now.0.div_euclid(1000);
        let claims = Issued {
            iss: ISSUER,
            aud: ISSUER,
            sub: &grant.subject,
            role: grant.role,
            tenants: &grant.tenants,
            projects: &grant.projects,
            jti: id,
            iat,
            exp: iat.saturating_add(ttl_s),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
    }

    /// Checks a token at `now`. Whether it was revoked is the ledger's to say.
    ///
    /// # Errors
    /// When it does not count.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Verified, TokenError> {
        if token.len() > LONGEST {
            return Err(TokenError::Invalid);
        }
        let data = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|_| TokenError::Invalid)?;
        // Our tokens name no key: whoever names one wants another.
        if data.header.kid.is_some() {
            return Err(TokenError::Invalid);
        }
        let claims = data.claims;
        let until = end_of(&claims)?;
        if until <= now {
            return Err(TokenError::Expired);
        }
        if let Some(begin) = &claims.nbf {
            let begin = begin.as_i64().ok_or(TokenError::Invalid)?;
            if begin.saturating_mul(1000) > now.0 {
                return Err(TokenError::Expired);
            }
        }
        if claims.sub.is_empty() || claims.sub.len() > 255 || claims.sub.contains(char::is_control)
        {
            return Err(TokenError::Invalid);
        }
        Ok(Verified {
            principal: Principal {
                subject: claims.sub,
                role: claims.role,
                tenants: claims.tenants,
                projects: claims.projects,
            },
            id: claims.jti,
            until,
        })
    }
}

// The earlier of `exp` (seconds) and `expireTime` (milliseconds as text, dialects D3.1); at least one must be there.
fn end_of(claims: &Claims) -> Result<Timestamp, TokenError> {
    let exp = match &claims.exp {
        None => None,
        Some(value) => {
            let seconds = value
                .as_i64()
                .filter(|s| *s >= 0)
                .ok_or(TokenError::Expired)?;
            Some(seconds.checked_mul(1000).ok_or(TokenError::Expired)?)
        }
    };
    let expire_time = match &claims.expire_time {
        None => None,
        Some(Value::String(text)) if text.bytes().all(|b| b.is_ascii_digit()) => {
            Some(text.parse::<i64>().map_err(|_| TokenError::Expired)?)
        }
        Some(_) => return Err(TokenError::Expired),
    };
    let end = [exp, expire_time].into_iter().flatten().min();
    end.map(Timestamp).ok_or(TokenError::Expired)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn key() -> TokenKey {
        TokenKey::new(&[7; 32]).unwrap()
    }

    fn signed(header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &key().encoding).unwrap()
    }

    fn claims(extra: Value) -> Value {
        let mut claims = json!({"iss": ISSUER, "aud": ISSUER, "sub": "s", "role": "viewer"});
        let object = claims.as_object_mut().unwrap();
        object.extend(extra.as_object().unwrap().clone());
        claims
    }

    fn verdict(extra: Value) -> Result<Verified, TokenError> {
        key().verify(&signed(&Header::new(Algorithm::HS256), &claims(extra)), NOW)
    }

    #[test]
    fn an_issued_token_says_who_and_for_whom() {
        let grant = Grant {
            subject: "billing".into(),
            role: Role::TenantAdmin,
            tenants: [TenantName::new("a").unwrap()].into(),
            projects: BTreeSet::new(),
        };
        let token = key().issue(&grant, "id-1", NOW, 60).unwrap();
        let verified = key().verify(&token, NOW).unwrap();
        assert_eq!(verified.id.as_deref(), Some("id-1"));
        assert_eq!(verified.principal.actor(), "tenant-admin:billing");
        assert_eq!(verified.principal.tenants, grant.tenants);
        assert_eq!(
            key().verify(&token, Timestamp(NOW.0 + 60_000)),
            Err(TokenError::Expired)
        );
        assert_eq!(
            TokenKey::new(&[8; 32]).unwrap().verify(&token, NOW),
            Err(TokenError::Invalid)
        );
        assert!(TokenKey::new(&[7; 31]).is_none());
    }

    #[test]
    fn case_15_foreign_algorithms_keys_and_forms_are_refused() {
        let good = claims(json!({"exp": 1_800_000_100}));
        for algorithm in [Algorithm::HS384, Algorithm::HS512] {
            let token = signed(&Header::new(algorithm), &good);
            assert_eq!(key().verify(&token, NOW), Err(TokenError::Invalid));
        }
        for kid in ["other", "../../dev/null", ""] {
            let mut header = Header::new(Algorithm::HS256);
            header.kid = Some(kid.into());
            assert_eq!(
                key().verify(&signed(&header, &good), NOW),
                Err(TokenError::Invalid),
                "{kid}"
            );
        }
        let token = signed(&Header::new(Algorithm::HS256), &good);
        assert!(key().verify(&token, NOW).is_ok());
        let (_, rest) = token.split_once('.').unwrap();
        let (body, _) = rest.split_once('.').unwrap();
        // {"alg":"none"}
        for bad in [
            format!("eyJhbGciOiJub25lIn0.{body}."),
            format!("{token}.{body}"),
            "x".repeat(9000),
        ] {
            assert_eq!(key().verify(&bad, NOW), Err(TokenError::Invalid));
        }
        for other in [
            json!({"iss": "x", "exp": 1_800_000_100}),
            json!({"aud": "x", "exp": 1_800_000_100}),
        ] {
            assert_eq!(verdict(other), Err(TokenError::Invalid));
        }
    }

    #[test]
    fn case_16_every_way_to_have_no_valid_end_is_refused() {
        let (past, future) = (1_700_000_000_i64, 1_900_000_000_i64);
        let ms = |seconds: i64| (seconds * 1000).to_string();
        for bad in [
            json!({}),
            json!({"exp": past}),
            json!({"exp": future, "expireTime": ms(past)}),
            json!({"exp": past, "expireTime": ms(future)}),
            json!({"expireTime": future.to_string()}),
            json!({"expireTime": "-1"}),
            json!({"expireTime": "9".repeat(30)}),
            json!({"expireTime": future * 1000}),
            json!({"expireTime": ""}),
            json!({"exp": -1}),
            json!({"exp": "tomorrow"}),
            json!({"exp": i64::MAX}),
            json!({"exp": future, "nbf": future}),
        ] {
            assert_eq!(verdict(bad.clone()), Err(TokenError::Expired), "{bad}");
        }
        let until = |extra| verdict(extra).unwrap().until;
        assert_eq!(
            until(json!({"expireTime": ms(future)})),
            Timestamp(future * 1000)
        );
        assert_eq!(
            until(json!({"exp": future, "expireTime": ms(future - 5)})),
            Timestamp((future - 5) * 1000)
        );
    }
}
