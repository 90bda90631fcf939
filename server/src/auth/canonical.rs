//! The canonical form of a request that SDK-HMAC-SHA256 signs, as the vendor's SDKs build it.
//!
//! Method, path with a slash at the end, sorted query, signed headers, their names, digest of the body; one a line.

use data_encoding::HEXLOWER;
use http::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// A request whose signature is to be checked, as it came over the wire.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, still percent-encoded.
    pub path: &'a str,
    /// The query, still percent-encoded.
    pub query: Option<&'a str>,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The whole body.
    pub body: &'a [u8],
}

impl SignedRequest<'_> {
    /// SHA-256 of the canonical form as hexadecimal text; `None` when a signed header is not there exactly once, or the
    /// path or query is not UTF-8.
    pub(super) fn digest(&self, signed: &[&str]) -> Option<String> {
        let mut form = Vec::new();
        let line = |form: &mut Vec<u8>, text: &str| {
            form.extend_from_slice(text.as_bytes());
            form.push(b'\n');
        };
        line(&mut form, self.method);
        line(&mut form, &path(self.path)?);
        line(&mut form, &query(self.query.unwrap_or_default())?);
        for name in signed {
            let mut values = self.headers.get_all(*name).iter();
            let (Some(value), None) = (values.next(), values.next()) else {
                return None;
            };
            form.extend_from_slice(name.as_bytes());
            form.push(b':');
            form.extend_from_slice(value.as_bytes().trim_ascii());
            form.push(b'\n');
        }
        form.push(b'\n');
        line(&mut form, &signed.join(";"));
        form.extend_from_slice(HEXLOWER.encode(&Sha256::digest(self.body)).as_bytes());
        Some(HEXLOWER.encode(&Sha256::digest(&form)))
    }
}

fn path(raw: &str) -> Option<String> {
    let decoded = percent_decode_str(raw).decode_utf8().ok()?;
    let parts: Vec<String> = decoded.split('/').map(encoded).collect();
    let mut path = parts.join("/");
    if !path.ends_with('/') {
        path.push('/');
    }
    Some(path)
}

// Sorted before it is encoded; a plus is a plus.
fn query(raw: &str) -> Option<String> {
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8().ok()?;
        Some(text.into_owned())
    };
    let mut pairs = Vec::new();
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push((decoded(name)?, decoded(value)?));
    }
    pairs.sort();
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    Some(pairs.join("&"))
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}
