//! How certificates name nodes and servers: in our own form, or in that of another authority, such as SPIFFE ids.

use std::sync::Arc;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::identity::{IdentityError, NODE_PREFIX, alternative_names};
use crate::verifier::Judge;

const SCHEME: &str = "spiffe://";
const PLACE: &str = "{node}";
/// Longest id, in bytes: what the SPIFFE standard demands that every side takes.
const LONGEST: usize = 2048;

/// How a URI names a node: a fixed text before its name, and one behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeForm {
    before: String,
    behind: String,
}

/// What a server's certificate must say, besides that its chain ends in an authority that is trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ServerForm {
    /// The host that was dialled.
    #[default]
    Dialled,
    /// This name, whatever was dialled.
    Name(ServerName<'static>),
    /// This SPIFFE id, as its only URI.
    Uri(String),
}

/// A text is no form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// Of nodes.
    #[error(
        "it must look like spiffe://TRUST-DOMAIN/PATH/{{node}}: a trust domain of a-z, 0-9, '.', '-' and '_', segments of A-Z, a-z, 0-9, '.', '-' and '_', and {{node}} as one whole segment"
    )]
    Node,
    /// Of servers.
    #[error("it must be a SPIFFE id such as spiffe://TRUST-DOMAIN/PATH, or a host name or address")]
    Server,
}

impl Default for NodeForm {
    fn default() -> Self {
        Self {
            before: NODE_PREFIX.to_owned(),
            behind: String::new(),
        }
    }
}

impl std::fmt::Display for NodeForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}NAME{}", self.before, self.behind)
    }
}

impl std::str::FromStr for NodeForm {
    type Err = FormError;
    fn from_str(text: &str) -> Result<Self, FormError> {
        let (before, behind) = text.split_once(PLACE).ok_or(FormError::Node)?;
        let whole = before.len() > SCHEME.len()
            && before.ends_with('/')
            && (behind.is_empty() || behind.starts_with('/'));
        // With any name in its place it is an id.
        if !whole || !is_id(&text.replacen(PLACE, "n", 1)) {
            return Err(FormError::Node);
        }
        Ok(Self {
            before: before.to_owned(),
            behind: behind.to_owned(),
        })
    }
}

impl NodeForm {
    /// The node that a URI names, byte for byte: nothing is decoded, and nothing is taken for equal that is written otherwise.
    ///
    /// # Errors
    /// When it is not of this form, or the name is none.
    pub fn node<'a>(&self, uri: &'a str) -> Result<&'a str, IdentityError> {
        let node = uri.strip_prefix(&self.before);
        let node = node.and_then(|rest| rest.strip_suffix(&self.behind));
        let node = node.ok_or_else(|| IdentityError::NoNode(self.clone()))?;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = node.as_bytes();
        let good = bytes.len() <= 63
            && bytes.iter().all(|b| plain(*b))
            && edge(bytes.first())
            && edge(bytes.last())
            && !node.contains("..");
        if good {
            Ok(node)
        } else {
            Err(IdentityError::BadName)
        }
    }

    /// Whether it is ours, so that our own authority's certificates are of it.
    #[must_use]
    pub fn is_own(&self) -> bool {
        *self == Self::default()
    }
}

impl std::str::FromStr for ServerForm {
    type Err = FormError;
    fn from_str(text: &str) -> Result<Self, FormError> {
        if text.contains("://") {
            return match is_id(text) {
                true => Ok(Self::Uri(text.to_owned())),
                false => Err(FormError::Server),
            };
        }
        ServerName::try_from(text.to_owned())
            .map(Self::Name)
            .map_err(|_| FormError::Server)
    }
}

// As the SPIFFE standard has it: no port, no query, no percent-encoding, no empty or relative segment.
fn is_id(text: &str) -> bool {
    let Some((domain, path)) = text
        .strip_prefix(SCHEME)
        .and_then(|rest| rest.split_once('/'))
    else {
        return false;
    };
    let name = |b: u8| b.is_ascii_digit() || b"._-".contains(&b);
    let segment = |part: &str| {
        let relative = matches!(part, "" | "." | "..");
        !relative && part.bytes().all(|b| b.is_ascii_alphabetic() || name(b))
    };
    text.len() <= LONGEST
        && (1..=255).contains(&domain.len())
        && domain.bytes().all(|b| b.is_ascii_lowercase() || name(b))
        && path.split('/').all(segment)
}

/// Takes a server whose chain ends in one of these authorities and whose only URI is this one; its host names do not count.
#[derive(Debug)]
pub(crate) struct ByUri {
    pub(crate) uri: String,
    pub(crate) roots: RootCertStore,
}

impl ByUri {
    fn named(&self, certificate: &[u8]) -> bool {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            return false;
        };
        let names = alternative_names(&parsed);
        let mut uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        uris.next() == Some(self.uri.as_str()) && uris.next().is_none()
    }
}

impl Judge for ByUri {
    fn judge(
        &self,
        provider: &Arc<CryptoProvider>,
        (end_entity, intermediates): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        _server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let known = provider.signature_verification_algorithms;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            known.all,
        )?;
        match self.named(end_entity) {
            true => Ok(()),
            false => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn case_7_a_form_is_one_whole_segment_of_a_plain_id() {
        let good = [
            "spiffe://example.org/gpu/{node}",
            "spiffe://example.org/ns/gpu/{node}/agent",
            "spiffe://gpuquota/node/{node}",
        ];
        for text in good {
            assert!(text.parse::<NodeForm>().is_ok(), "{text}");
        }
        assert!(good[2].parse::<NodeForm>().is_ok_and(|form| form.is_own()));
        for text in [
            "",
            "{node}",
            "spiffe://{node}",
            "spiffe://{node}/a",
            "spiffe://example.org/gpu",
            "spiffe://example.org/gpu-{node}",
            "spiffe://example.org/{node}-gpu",
            "spiffe://example.org/{node}/{node}",
            "spiffe://Example.org/{node}",
            "spiffe://example.org:8443/{node}",
            "spiffe://me@example.org/{node}",
            "spiffe://example.org/a//{node}",
            "spiffe://example.org/../{node}",
            "spiffe://example.org/a%2fb/{node}",
            "spiffe://example.org/{node}/",
            "spiffe://example.org/{node}?a=b",
            "https://example.org/{node}",
        ] {
            assert_eq!(text.parse::<NodeForm>(), Err(FormError::Node), "{text}");
        }
        let uri = "spiffe://example.org/gpuquota/server";
        assert_eq!(uri.parse(), Ok(ServerForm::Uri(uri.to_owned())));
        assert!(matches!(
            "gpuquota.example".parse(),
            Ok(ServerForm::Name(_))
        ));
        for text in [
            "",
            "spiffe://example.org",
            "spiffe://a/%2e",
            "https://a/b",
            "a b",
        ] {
            assert_eq!(text.parse::<ServerForm>(), Err(FormError::Server), "{text}");
        }
    }

    proptest! {
        // What passes is exactly the text that the form makes of a plain name.
        #[test]
        fn case_7_only_well_formed_ids_name_a_node(
            uri in "(spiffe|SPIFFE|https)://(example\\.org|Example\\.org|other)/(gpu|GPU|%67pu|\\.\\.|)/[a-zA-Z0-9._/%\u{e4}-]{0,70}(/agent|/|)",
        ) {
            let form: NodeForm = "spiffe://example.org/gpu/{node}/agent".parse().unwrap();
            if let Ok(node) = form.node(&uri) {
                prop_assert_eq!(&uri, &format!("spiffe://example.org/gpu/{node}/agent"));
                prop_assert!((1..=63).contains(&node.len()));
                prop_assert!(node.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')));
                prop_assert!(!node.contains("..") && !node.starts_with('.') && !node.ends_with('.'));
            }
        }

        #[test]
        fn a_plain_name_is_read_back(node in "[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?") {
            let form: NodeForm = "spiffe://example.org/gpu/{node}/agent".parse().unwrap();
            let uri = format!("spiffe://example.org/gpu/{node}/agent");
            prop_assert_eq!(form.node(&uri), Ok(node.as_str()));
        }
    }
}
