//! Access keys: requests signed by SDK-HMAC-SHA256, as the vendor's SDKs do for documents 001 and 004.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER_PERMISSIVE;
use gpuquota_core::id::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::Principal;
use super::canonical::SignedRequest;
use super::token::{TokenError, Verified};
use crate::config::AccessKey;

/// The scheme word of the Authorization header.
pub const SIGNATURE_SCHEME: &str = "SDK-HMAC-SHA256";
const DATE: &str = "x-sdk-date";
const SKEW_MS: i64 = 15 * 60 * 1000;
const SHORTEST_SECRET: usize = 16;
const MOST_HEADERS: usize = 64;

/// The pairs that the configuration holds.
#[derive(Default)]
pub(super) struct AccessKeys(BTreeMap<String, Pair>);

struct Pair {
    key: hmac::Key,
    principal: Principal,
}

// The parameters of the Authorization header.
#[derive(Debug)]
struct Signature<'a> {
    access: &'a str,
    signed: Vec<&'a str>,
    signature: Vec<u8>,
}

impl AccessKeys {
    /// Reads the secrets.
    pub(super) fn open(settings: &[AccessKey]) -> Result<Self, String> {
        let mut keys = Self::default();
        for settings in settings {
            let path = &settings.secret_file;
            let secret = std::fs::read(path)
                .map_err(|e| format!("cannot read the secret {}: {e}", path.display()))?;
            let secret = secret.trim_ascii();
            if secret.len() < SHORTEST_SECRET {
                return Err(format!(
                    "the secret {} must hold at least {SHORTEST_SECRET} bytes",
                    path.display()
                ));
            }
            keys.insert(settings, secret);
        }
        Ok(keys)
    }

    fn insert(&mut self, settings: &AccessKey, secret: &[u8]) {
        let pair = Pair {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            principal: Principal {
                subject: settings.subject.clone(),
                role: settings.role,
                tenants: settings.tenants.clone(),
                projects: settings.projects.clone(),
                user: None,
                container: None,
            },
        };
        self.0.insert(settings.id.clone(), pair);
    }

    /// Whose request this is.
    pub(super) fn verify(
        &self,
        request: &SignedRequest<'_>,
        now: Timestamp,
    ) -> Result<Verified, TokenError> {
        let header = only(request, "authorization").ok_or(TokenError::Signature)?;
        let given = Signature::parse(header).ok_or(TokenError::Signature)?;
        // Before the key is looked for: the answer must not tell which ids there are.
        let date = only(request, DATE).ok_or(TokenError::Skew)?;
        let at = instant(date).ok_or(TokenError::Skew)?;
        if now.0.abs_diff(at.0) > SKEW_MS.unsigned_abs() {
            return Err(TokenError::Skew);
        }
        let pair = self.0.get(given.access).ok_or(TokenError::Signature)?;
        let digest = request.digest(&given.signed).ok_or(TokenError::Signature)?;
        let text = format!("{SIGNATURE_SCHEME}\n{date}\n{digest}");
        // In constant time.
        hmac::verify(&pair.key, text.as_bytes(), &given.signature)
            .map_err(|_| TokenError::Signature)?;
        Ok(Verified {
            principal: pair.principal.clone(),
            ids: Vec::new(),
            until: Timestamp(at.0.saturating_add(SKEW_MS)),
        })
    }
}

impl<'a> Signature<'a> {
    // `SDK-HMAC-SHA256 Access=ID, SignedHeaders=a;b, Signature=HEX`, each once.
    fn parse(header: &'a str) -> Option<Self> {
        let (scheme, rest) = header.split_once(' ')?;
        if scheme != SIGNATURE_SCHEME {
            return None;
        }
        let (mut access, mut signed, mut signature) = (None, None, None);
        for parameter in rest.split(',') {
            let (name, value) = parameter.trim().split_once('=')?;
            let place = match name {
                "Access" => &mut access,
                "SignedHeaders" => &mut signed,
                "Signature" => &mut signature,
                _ => return None,
            };
            if place.replace(value).is_some() {
                return None;
            }
        }
        let signed: Vec<&str> = signed?.split(';').collect();
        let lower = |name: &&str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|b| !b.is_ascii_uppercase() && b.is_ascii_graphic())
        };
        let sorted = signed.windows(2).all(|pair| pair[0] < pair[1]);
        let bound = signed.contains(&"host") && signed.contains(&DATE);
        if signed.len() > MOST_HEADERS || !signed.iter().all(lower) || !sorted || !bound {
            return None;
        }
        Some(Self {
            access: access?,
            signed,
            signature: unhex(signature?)?,
        })
    }
}

fn only<'a>(request: &SignedRequest<'a>, name: &str) -> Option<&'a str> {
    let mut values = request.headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

// `20260102T030405Z`, and nothing else.
fn instant(text: &str) -> Option<Timestamp> {
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    if date.len() != 8 || time.len() != 6 || !digits(date) || !digits(time) {
        return None;
    }
    let moment = DateTime::strptime("%Y%m%dT%H%M%S", format!("{date}T{time}")).ok()?;
    let moment = moment.to_zoned(TimeZone::UTC).ok()?;
    Some(Timestamp(moment.timestamp().as_millisecond()))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
    (bytes.len() == 32).then_some(bytes)
}

#[cfg(test)]
mod tests;
