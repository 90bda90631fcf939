//! Joining's TLS: the client has no certificate yet and trusts one public key, by its digest.

use std::sync::Arc;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::verifier::{Judge, Verifier};

/// What both sides of joining say by ALPN instead of `h2`; HTTP/2 is spoken nevertheless.
pub const JOIN_ALPN: &[u8] = b"gpuquota-join";

const PREFIX: &str = "sha256:";

/// SHA-256 of an authority's public key (its SubjectPublicKeyInfo, DER), written `sha256:HEX`. It stays when the
/// authority's certificate is made anew with the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin([u8; 32]);

/// A text is no pin, or a certificate has no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Not written as it must be.
    #[error("the hash of the authority is written sha256: and 64 hexadecimal digits")]
    Text,
    /// No certificate.
    #[error("the authority's certificate cannot be parsed")]
    Certificate,
}

impl Pin {
    /// Of the key in a certificate (DER).
    ///
    /// # Errors
    /// When it does not parse.
    pub fn of(certificate: &[u8]) -> Result<Self, PinError> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| PinError::Certificate)?;
        Ok(Self::of_key(parsed.public_key().raw))
    }

    /// Of a key (SubjectPublicKeyInfo, DER).
    #[must_use]
    pub fn of_key(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// From the digest itself; `None` when it is not of 32 bytes.
    #[must_use]
    pub fn from_bytes(digest: &[u8]) -> Option<Self> {
        digest.try_into().map(Self).ok()
    }

    /// The digest.
    #[must_use]
    pub fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// What a joiner says by ALPN beside [`JOIN_ALPN`]: the authority that the server's chain should end in, where it has chains of
    /// several.
    #[must_use]
    pub fn alpn(&self) -> Vec<u8> {
        [JOIN_ALPN, b"/", self.to_string().as_bytes()].concat()
    }
}

impl std::str::FromStr for Pin {
    type Err = PinError;
    fn from_str(text: &str) -> Result<Self, PinError> {
        let digits = text.strip_prefix(PREFIX).ok_or(PinError::Text)?;
        let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes());
        let bytes = bytes.map_err(|_| PinError::Text)?;
        bytes.try_into().map(Self).map_err(|_| PinError::Text)
    }
}

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}", HEXLOWER.encode(&self.0))
    }
}

/// For an agent that joins: the server's chain must end in the authority with this key, for the name that was dialled.
/// Anything else ends the handshake, before anything is said.
///
/// # Errors
/// When rustls refuses its own defaults.
pub fn join_config(pin: Pin) -> Result<ClientConfig, Error> {
    let verifier = Arc::new(Verifier::new(Pinned(pin)));
    let mut config = ClientConfig::builder_with_provider(super::tls::provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![JOIN_ALPN.to_vec(), pin.alpn()];
    Ok(config)
}

/// Takes a server whose chain ends in the authority with this key.
#[derive(Debug)]
struct Pinned(Pin);

impl Judge for Pinned {
    fn judge(
        &self,
        provider: &Arc<CryptoProvider>,
        (end_entity, intermediates): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let pinned = intermediates
            .iter()
            .find(|sent| Pin::of(sent) == Ok(self.0))
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|error| Error::General(error.to_string()))?;
        verifier
            .verify_server_cert(end_entity, intermediates, server_name, &[], now)
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_of_the_key_and_is_written_one_way() {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = |name: &str| {
            let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.self_signed(&key).unwrap()
        };
        let pin = Pin::of(made("a.example").der()).unwrap();
        assert_eq!(Pin::of(made("b.example").der()), Ok(pin));
        assert_eq!(pin.to_string().parse(), Ok(pin));
        for bad in ["", "sha256:", "sha256:00", &pin.to_string()[7..]] {
            assert_eq!(bad.parse::<Pin>(), Err(PinError::Text), "{bad}");
        }
    }
}
