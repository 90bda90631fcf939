//! The one place that says whose a token or a signed request is.

use std::sync::Arc;

use gpuquota_core::id::Timestamp;
use jsonwebtoken::Header;
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::access_key::AccessKeys;
use super::canonical::SignedRequest;
use super::foreign::ForeignIssuer;
use super::jwks::Keys;
use super::known::KnownTokens;
use super::token::{KeyError, OWN_ISSUER, TokenError, TokenKey, Verified};
use crate::clock::Clock;
use crate::config::Tokens;

/// Longest token that is looked at, in bytes.
const LONGEST: usize = 8 * 1024;

/// Our own issuer, foreign issuers and access keys. Never shown.
pub struct Authenticator {
    own: TokenKey,
    known: KnownTokens,
    foreign: Vec<Arc<ForeignIssuer>>,
    access_keys: AccessKeys,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticator")
    }
}

/// What the configuration names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Our own key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A foreign issuer.
    #[error("tokens.issuer {0}: {1}")]
    Issuer(String, String),
    /// An access key.
    #[error("tokens.access_key: {0}")]
    AccessKey(String),
}

// Who a token says it is from, before anything of it is believed.
#[derive(Deserialize)]
struct Sender {
    iss: Option<Value>,
}

impl Authenticator {
    /// Only our own tokens.
    #[must_use]
    pub fn own(key: TokenKey) -> Self {
        Self {
            own: key,
            known: KnownTokens::default(),
            foreign: Vec::new(),
            access_keys: AccessKeys::default(),
        }
    }

    /// Reads every file that the configuration names. Addresses are fetched by `refresh`; one that is down is no error.
    ///
    /// # Errors
    /// With what is wrong, for the operator.
    pub fn open(settings: &Tokens, clock: &Arc<dyn Clock>) -> Result<Self, SetupError> {
        let mut foreign = Vec::new();
        for issuer in &settings.issuer {
            let keys = Keys::open(issuer, clock.clone())
                .map_err(|reason| SetupError::Issuer(issuer.name().to_owned(), reason))?;
            foreign.push(Arc::new(ForeignIssuer::new(issuer, keys)));
        }
        Ok(Self {
            known: KnownTokens::default(),
            own: TokenKey::read(&settings.key, settings.algorithm)?,
            foreign,
            access_keys: AccessKeys::open(&settings.access_key).map_err(SetupError::AccessKey)?,
        })
    }

    /// Keeps the keys of foreign issuers fresh until `stop`.
    pub async fn refresh(self: Arc<Self>, stop: CancellationToken) {
        let mut issuers = JoinSet::new();
        for issuer in &self.foreign {
            let (issuer, stop) = (issuer.clone(), stop.clone());
            issuers.spawn(async move { issuer.refresh(stop).await });
        }
        stop.cancelled().await;
        while issuers.join_next().await.is_some() {}
    }

    /// Checks a token at `now`. Whether it was revoked is the ledger's to say. May wait for a foreign issuer's keys, some
    /// seconds at most.
    ///
    /// # Errors
    /// When it does not count.
    pub async fn token(&self, token: &str, now: Timestamp) -> Result<Verified, TokenError> {
        if token.len() > LONGEST {
            return Err(TokenError::Invalid);
        }
        if let Some(verified) = self.known.get(token, now) {
            return Ok(verified);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        // Whoever marks an extension as critical wants it understood (RFC 7515, 4.1.11); none is.
        if header.crit.is_some() {
            return Err(TokenError::Invalid);
        }
        if self.foreign.is_empty() {
            return self.of_own(token, &header, now);
        }
        let sender: Sender = jsonwebtoken::dangerous::insecure_decode_claims(token)
            .map_err(|_| TokenError::Invalid)?;
        let sender = match &sender.iss {
            None => None,
            Some(Value::String(name)) => Some(name.as_str()),
            Some(_) => return Err(TokenError::Invalid),
        };
        if sender == Some(OWN_ISSUER) {
            return self.of_own(token, &header, now);
        }
        let issuer = self.foreign.iter().find(|issuer| issuer.issuer() == sender);
        match issuer {
            Some(issuer) => issuer.verify(token, &header, now).await,
            None => Err(TokenError::Invalid),
        }
    }

    fn of_own(&self, token: &str, header: &Header, now: Timestamp) -> Result<Verified, TokenError> {
        let verified = self.own.verify(token, header, now)?;
        self.known.put(token, now, &verified);
        Ok(verified)
    }

    /// Checks a signed request at `now`.
    ///
    /// # Errors
    /// When the signature does not count.
    pub fn signature(
        &self,
        request: &SignedRequest<'_>,
        now: Timestamp,
    ) -> Result<Verified, TokenError> {
        self.access_keys.verify(request, now)
    }
}
