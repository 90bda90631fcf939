//! Tokens of this server's own issuer: JWTs signed with the key that `init` made, or with a private key of the operator.
//!
//! The algorithm is the configured one whatever the token's header says, and a token without an end is refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use gpuquota_core::id::{ProjectId, TenantName, Timestamp};
use jsonwebtoken::{DecodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::{Value, json};

use super::lifetime::Lifetime;
use super::revocation::ids;
use super::signing::{SigningError, SigningKey};
use super::{Algorithm, Principal, Role};

/// `iss` and `aud` of our own tokens.
pub const OWN_ISSUER: &str = "gpuquota";

/// Why a token does not count. Callers are told no more than the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no JWT that anybody we trust signed.
    #[error("the token is not valid")]
    Invalid,
    /// It has ended, has not begun, or has no end.
    #[error("the token has expired or has no valid expiry")]
    Expired,
    /// Its issuer is trusted, but what it says is nothing here.
    #[error("the token names no role, tenant or project that is valid here")]
    Unmapped,
    /// It was taken back.
    #[error("the token was revoked")]
    Revoked,
    /// A signed request that does not count.
    #[error("the signature is not valid")]
    Signature,
    /// A request that was signed too long ago, or in the future.
    #[error("X-Sdk-Date is missing or differs from the server's clock by more than 15 minutes")]
    Skew,
}

/// An accepted token or signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whose it is.
    pub principal: Principal,
    /// The ids under which it may be revoked, the strongest first; none for a signature.
    pub ids: Vec<String>,
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
    /// The user that the instance service shows.
    pub user: Option<String>,
    /// The container that the instance service shows.
    pub container: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claims {
    sub: String,
    role: Role,
    #[serde(default)]
    tenants: BTreeSet<TenantName>,
    #[serde(default)]
    projects: BTreeSet<ProjectId>,
    jti: Option<String>,
    user_name: Option<String>,
    container_id: Option<String>,
    exp: Option<Value>,
    nbf: Option<Value>,
    expire_time: Option<Value>,
}

/// The key that signs and verifies. Never shown.
pub struct TokenKey {
    signing: SigningKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

/// A key file is missing, weak, or of another kind.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read the token key {0}: {1}")]
    Unreadable(String, #[source] std::io::Error),
    /// Too short to be a key.
    #[error("the token key {0} must hold at least 32 bytes; make one with `gpuquota-server init`")]
    TooShort(String),
    /// No private key of this algorithm.
    #[error("{0} is no private key for {1}: PKCS#8 in PEM; RSA needs 2048 to 8192 bits")]
    Unfit(String, &'static str),
}

impl TokenKey {
    /// Reads the key file: for HS256 its bytes without surrounding white space are the key, else it is PKCS#8 in PEM.
    ///
    /// # Errors
    /// When it cannot be read, is too short or does not fit.
    pub fn read(path: &Path, algorithm: Algorithm) -> Result<Self, KeyError> {
        let name = path.display().to_string();
        let bytes = fs::read(path).map_err(|e| KeyError::Unreadable(name.clone(), e))?;
        Self::of(algorithm, bytes.trim_ascii()).ok_or(match algorithm {
            Algorithm::Hs256 => KeyError::TooShort(name),
            other => KeyError::Unfit(name, other.as_str()),
        })
    }

    /// A secret of at least 32 bytes for HS256.
    #[must_use]
    pub fn new(secret: &[u8]) -> Option<Self> {
        Self::of(Algorithm::Hs256, secret)
    }

    fn of(algorithm: Algorithm, file: &[u8]) -> Option<Self> {
        let (signing, decoding) = SigningKey::read(algorithm, file)?;
        let mut validation = Validation::new(algorithm.jwt());
        // Time is checked below against the server's clock; the library would read its own.
        validation.validate_exp = false;
        validation.set_issuer(&[OWN_ISSUER]);
        validation.set_audience(&[OWN_ISSUER]);
        validation.set_required_spec_claims(&["iss", "aud"]);
        Some(Self {
            signing,
            decoding,
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
    ) -> Result<String, SigningError> {
        let iat = now.0.div_euclid(1000);
        let mut claims = json!({
            "iss": OWN_ISSUER,
            "aud": OWN_ISSUER,
            "sub": grant.subject,
            "role": grant.role,
            "tenants": grant.tenants,
            "projects": grant.projects,
            "jti": id,
            "iat": iat,
            "exp": iat.saturating_add(ttl_s),
        });
        let named = [("userName", &grant.user), ("containerId", &grant.container)];
        for (name, value) in named {
            if let (Some(value), Some(claims)) = (value, claims.as_object_mut()) {
                claims.insert(name.to_owned(), value.as_str().into());
            }
        }
        self.signing.token(&claims)
    }

    /// Checks a token at `now`. Whether it was revoked is the ledger's to say.
    ///
    /// # Errors
    /// When it does not count.
    pub(super) fn verify(
        &self,
        token: &str,
        header: &Header,
        now: Timestamp,
    ) -> Result<Verified, TokenError> {
        // Our tokens name no key: whoever names one wants another.
        if header.kid.is_some() {
            return Err(TokenError::Invalid);
        }
        let data = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|_| TokenError::Invalid)?;
        let claims = data.claims;
        let lifetime = Lifetime {
            exp: claims.exp.as_ref(),
            expire_time: claims.expire_time.as_ref(),
            nbf: claims.nbf.as_ref(),
        };
        let until = lifetime.until(now)?;
        let names = [
            Some(&claims.sub),
            claims.user_name.as_ref(),
            claims.container_id.as_ref(),
        ];
        if names.into_iter().flatten().any(|name| !plain(name)) {
            return Err(TokenError::Invalid);
        }
        Ok(Verified {
            principal: Principal {
                subject: claims.sub,
                role: claims.role,
                tenants: claims.tenants,
                projects: claims.projects,
                user: claims.user_name,
                container: claims.container_id,
            },
            ids: ids(claims.jti, token),
            until,
        })
    }
}

/// Whether a text from a token may stand in the journal and in answers: 1 to 255 bytes without control characters.
pub(super) fn plain(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::EncodingKey;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn key() -> TokenKey {
        TokenKey::new(&[7; 32]).unwrap()
    }

    fn signed(header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(&[7; 32])).unwrap()
    }

    fn check(key: &TokenKey, token: &str, now: Timestamp) -> Result<Verified, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        key.verify(token, &header, now)
    }

    fn claims(extra: Value) -> Value {
        let mut claims =
            json!({"iss": OWN_ISSUER, "aud": OWN_ISSUER, "sub": "s", "role": "viewer"});
        let object = claims.as_object_mut().unwrap();
        object.extend(extra.as_object().unwrap().clone());
        claims
    }

    fn verdict(extra: Value) -> Result<Verified, TokenError> {
        check(
            &key(),
            &signed(&Header::new(jsonwebtoken::Algorithm::HS256), &claims(extra)),
            NOW,
        )
    }

    #[test]
    fn an_issued_token_says_who_and_for_whom() {
        let grant = Grant {
            subject: "billing".into(),
            role: Role::TenantAdmin,
            tenants: [TenantName::new("a").unwrap()].into(),
            projects: BTreeSet::new(),
            user: Some("u".into()),
            container: None,
        };
        let token = key().issue(&grant, "id-1", NOW, 60).unwrap();
        let verified = check(&key(), &token, NOW).unwrap();
        assert_eq!(verified.ids[0], "id-1");
        assert!(verified.ids[1].starts_with("sha256:"));
        assert_eq!(verified.principal.user.as_deref(), Some("u"));
        assert_eq!(verified.principal.actor(), "tenant-admin:billing");
        assert_eq!(verified.principal.tenants, grant.tenants);
        assert_eq!(
            check(&key(), &token, Timestamp(NOW.0 + 60_000)),
            Err(TokenError::Expired)
        );
        assert_eq!(
            check(&TokenKey::new(&[8; 32]).unwrap(), &token, NOW),
            Err(TokenError::Invalid)
        );
        assert!(TokenKey::new(&[7; 31]).is_none());
    }

    #[test]
    fn case_15_foreign_algorithms_keys_and_forms_are_refused() {
        let good = claims(json!({"exp": 1_800_000_100}));
        for algorithm in [
            jsonwebtoken::Algorithm::HS384,
            jsonwebtoken::Algorithm::HS512,
        ] {
            let token = signed(&Header::new(algorithm), &good);
            assert_eq!(check(&key(), &token, NOW), Err(TokenError::Invalid));
        }
        for kid in ["other", "../../dev/null", ""] {
            let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
            header.kid = Some(kid.into());
            assert_eq!(
                check(&key(), &signed(&header, &good), NOW),
                Err(TokenError::Invalid),
                "{kid}"
            );
        }
        let token = signed(&Header::new(jsonwebtoken::Algorithm::HS256), &good);
        assert!(check(&key(), &token, NOW).is_ok());
        let (_, rest) = token.split_once('.').unwrap();
        let (body, _) = rest.split_once('.').unwrap();
        // {"alg":"none"}
        for bad in [
            format!("eyJhbGciOiJub25lIn0.{body}."),
            format!("{token}.{body}"),
        ] {
            assert_eq!(check(&key(), &bad, NOW), Err(TokenError::Invalid));
        }
        for other in [
            json!({"iss": "x", "exp": 1_800_000_100}),
            json!({"aud": "x", "exp": 1_800_000_100}),
            json!({"exp": 1_800_000_100, "userName": "a\nb"}),
            json!({"exp": 1_800_000_100, "containerId": "x".repeat(256)}),
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
