//! Several authorities side by side: which of them is behind a certificate, and what stands in one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::identity::alternative_names;
use crate::pinned::Pin;

/// Which authority is behind a client's chain (leaf first), of these; `None` when it is none of them. Dates count as of the leaf's
/// first second, so one that has ended has an authority, too.
#[must_use]
pub fn behind_client(
    chain: &[CertificateDer<'_>],
    authorities: &[CertificateDer<'static>],
) -> Option<Pin> {
    behind(chain, authorities, |leaf, intermediates, roots, at| {
        let provider = crate::tls::provider();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().ok()?;
        let verified = verifier.verify_client_cert(leaf, intermediates, at);
        verified.ok().map(drop)
    })
}

/// The same of a server's chain.
#[must_use]
pub fn behind_server(
    chain: &[CertificateDer<'_>],
    authorities: &[CertificateDer<'static>],
) -> Option<Pin> {
    behind(chain, authorities, |leaf, intermediates, roots, at| {
        let leaf = ParsedCertificate::try_from(leaf).ok()?;
        let known = crate::tls::provider().signature_verification_algorithms;
        verify_server_cert_signed_by_trust_anchor(&leaf, &roots, intermediates, at, known.all).ok()
    })
}

fn behind(
    chain: &[CertificateDer<'_>],
    authorities: &[CertificateDer<'static>],
    verify: impl Fn(&CertificateDer<'_>, &[CertificateDer<'_>], RootCertStore, UnixTime) -> Option<()>,
) -> Option<Pin> {
    let (leaf, intermediates) = chain.split_first()?;
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let begin = u64::try_from(parsed.validity().not_before.timestamp()).ok()?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(begin));
    authorities.iter().find_map(|authority| {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).ok()?;
        verify(leaf, intermediates, roots, at)?;
        Pin::of(authority).ok()
    })
}

/// Host names and addresses in a server's certificate.
#[must_use]
pub fn hosts(certificate: &[u8]) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let names = alternative_names(&parsed);
    let host = |name: &&GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(IpAddr::from([*a, *b, *c, *d]).to_string()),
            bytes => {
                let bytes: [u8; 16] = bytes.try_into().ok()?;
                Some(IpAddr::from(bytes).to_string())
            }
        },
        _ => None,
    };
    names.iter().filter_map(host).collect()
}

/// End of a certificate, seconds since 1970 (UTC); `None` when it does not parse.
#[must_use]
pub fn not_after_unix_s(certificate: &[u8]) -> Option<i64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}
