//! Tokens of an issuer that is not this server.

use gpuquota_core::id::Timestamp;
use jsonwebtoken::{Header, Validation};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::claims::{ClaimMap, Claims};
use super::jwks::Keys;
use super::lifetime::Lifetime;
use super::revocation::ids;
use super::token::{TokenError, Verified, plain};
use crate::config::Issuer;

/// One foreign issuer.
pub(super) struct ForeignIssuer {
    issuer: Option<String>,
    audience: Option<String>,
    validation: Validation,
    keys: Keys,
    claims: ClaimMap,
}

impl ForeignIssuer {
    pub(super) fn new(settings: &Issuer, keys: Keys) -> Self {
        let mut validation = Validation::new(settings.algorithm.jwt());
        // The library checks the algorithm and the signature; the rest is checked below, the same for all issuers.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        Self {
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            validation,
            keys,
            claims: ClaimMap::new(settings),
        }
    }

    /// Its `iss`; `None` for the one whose tokens carry none.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Checks a token that claims to be of this issuer.
    pub(super) async fn verify(
        &self,
        token: &str,
        header: &Header,
        now: Timestamp,
    ) -> Result<Verified, TokenError> {
        // Before the key is looked for: what can never count asks nobody for keys.
        if !self.validation.algorithms.contains(&header.alg) {
            return Err(TokenError::Invalid);
        }
        let key = self.keys.find(header.kid.as_deref()).await;
        let key = key.ok_or(TokenError::Invalid)?;
        let data = jsonwebtoken::decode::<Claims>(token, &key, &self.validation)
            .map_err(|_| TokenError::Invalid)?;
        let claims = data.claims;
        let named = match (&self.issuer, claims.get("iss")) {
            (Some(issuer), Some(Value::String(named))) => issuer == named,
            (None, None) => true,
            _ => false,
        };
        if !named || !self.meant_for_us(claims.get("aud")) {
            return Err(TokenError::Invalid);
        }
        let present = |name: &str| claims.get(name).filter(|value| !value.is_null());
        let lifetime = Lifetime {
            exp: present("exp"),
            expire_time: present("expireTime"),
            nbf: present("nbf"),
        };
        let until = lifetime.until(now)?;
        let own = match present("jti") {
            None => None,
            Some(Value::String(id)) if plain(id) => {
                Some(format!("{}|{id}", self.issuer().unwrap_or_default()))
            }
            Some(_) => return Err(TokenError::Invalid),
        };
        Ok(Verified {
            principal: self.claims.principal(&claims)?,
            ids: ids(own, token),
            until,
        })
    }

    /// Keeps its keys fresh until `stop`.
    pub(super) async fn refresh(&self, stop: CancellationToken) {
        self.keys.refresh(stop).await;
    }

    fn meant_for_us(&self, audience: Option<&Value>) -> bool {
        let Some(wanted) = &self.audience else {
            return true;
        };
        match audience {
            Some(Value::String(named)) => named == wanted,
            Some(Value::Array(named)) => named.iter().any(|name| name == wanted.as_str()),
            _ => false,
        }
    }
}
