//! Who a certificate names. A node is named by exactly one URI in the subject alternative name,
//! `spiffe://gpuquota/node/NAME` or one of the form that is configured; nothing else in the certificate, and nothing in a message, names it.

use data_encoding::HEXLOWER;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use crate::form::NodeForm;

pub(crate) const NODE_PREFIX: &str = "spiffe://gpuquota/node/";

/// What the server needs to know of the agent's certificate. Chain, dates and key usage were checked by the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The node's name, as written in the certificate; the ledger decides whether it is a valid name.
    pub node: String,
    /// Serial number in lower-case hexadecimal, without separators.
    pub serial: String,
    /// Begin of validity, seconds since 1970 (UTC).
    pub not_before_unix_s: i64,
    /// End of validity, seconds since 1970 (UTC).
    pub not_after_unix_s: i64,
}

/// Why a certificate names nobody.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdentityError {
    /// The DER does not parse.
    #[error("the client certificate cannot be parsed")]
    Unreadable,
    /// No subject alternative name, or none that is a node's URI.
    #[error("the client certificate has no subject alternative name {0}")]
    NoNode(NodeForm),
    /// More than one name: which one would count?
    #[error("the client certificate has more than one subject alternative name")]
    Ambiguous,
    /// The part after the prefix is empty, too long or not plain.
    #[error("the node name in the client certificate is not 1..63 of a-z, 0-9, '.', '-' and '_'")]
    BadName,
}

/// The URI that `issue-agent` writes into a node's certificate.
#[must_use]
pub fn node_uri(node: &str) -> String {
    format!("{NODE_PREFIX}{node}")
}

/// Reads the node's identity from its certificate (DER), written in our own form.
///
/// # Errors
/// Unless the certificate has exactly one subject alternative name and that is a node's URI.
pub fn peer_identity(certificate: &[u8]) -> Result<PeerIdentity, IdentityError> {
    peer_identity_as(certificate, &NodeForm::default())
}

/// The same in any form.
///
/// # Errors
/// Unless the certificate has exactly one subject alternative name and that is a node's URI of this form.
pub fn peer_identity_as(
    certificate: &[u8],
    form: &NodeForm,
) -> Result<PeerIdentity, IdentityError> {
    let (rest, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| IdentityError::Unreadable)?;
    if !rest.is_empty() {
        return Err(IdentityError::Unreadable);
    }
    let names = alternative_names(&parsed);
    let [name] = names.as_slice() else {
        return Err(if names.is_empty() {
            IdentityError::NoNode(form.clone())
        } else {
            IdentityError::Ambiguous
        });
    };
    let GeneralName::URI(uri) = name else {
        return Err(IdentityError::NoNode(form.clone()));
    };
    Ok(PeerIdentity {
        node: form.node(uri)?.to_owned(),
        serial: serial(parsed.raw_serial()),
        not_before_unix_s: parsed.validity().not_before.timestamp(),
        not_after_unix_s: parsed.validity().not_after.timestamp(),
    })
}

// The number, without the zero byte that DER puts before one whose first bit is set.
fn serial(raw: &[u8]) -> String {
    let zeros = raw.iter().take_while(|byte| **byte == 0).count();
    let kept = raw.get(zeros..).filter(|rest| !rest.is_empty());
    HEXLOWER.encode(kept.unwrap_or(&[0]))
}

/// Every subject alternative name, in the order of the certificate.
pub(crate) fn alternative_names<'a, 'b>(
    certificate: &'b X509Certificate<'a>,
) -> Vec<&'b GeneralName<'a>> {
    let mut names = Vec::new();
    for extension in certificate.extensions() {
        if let ParsedExtension::SubjectAlternativeName(san) = extension.parsed_extension() {
            names.extend(san.general_names.iter());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_5_a_serial_number_is_written_as_tools_print_it() {
        assert_eq!(serial(&[0, 0xab, 1]), "ab01");
        let longest = [&[0][..], &[0xff; 20]].concat();
        assert_eq!(serial(&longest), "ff".repeat(20));
        assert_eq!([serial(&[0]), serial(&[0, 0])], ["00", "00"]);
    }
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn certificate(sans: &[&str], common_name: &str) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.subject_alt_names = sans
            .iter()
            .map(|san| SanType::URI((*san).try_into().unwrap()))
            .collect();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn one_node_uri_is_the_identity() {
        let identity =
            peer_identity(&certificate(&["spiffe://gpuquota/node/gpu02"], "other")).unwrap();
        assert_eq!(identity.node, "gpu02");
        assert_eq!(node_uri("gpu02"), "spiffe://gpuquota/node/gpu02");
    }

    #[test]
    fn case_6_two_names_none_or_only_a_common_name_are_refused() {
        let two = ["spiffe://gpuquota/node/a", "spiffe://gpuquota/node/b"];
        assert_eq!(
            peer_identity(&certificate(&two, "a")),
            Err(IdentityError::Ambiguous)
        );
        assert_eq!(
            peer_identity(&certificate(&[], "gpu02")),
            Err(IdentityError::NoNode(NodeForm::default()))
        );
    }

    #[test]
    fn case_7_path_tricks_are_refused() {
        for name in [
            "a/../admin",
            "a%2fb",
            "a.",
            "A",
            "",
            "..",
            "a..b",
            "-a",
            "a b",
            &"a".repeat(300),
        ] {
            let uri = format!("spiffe://gpuquota/node/{name}");
            assert_eq!(
                peer_identity(&certificate(&[&uri], "x")),
                Err(IdentityError::BadName),
                "{name}"
            );
        }
        for uri in [
            "spiffe://other/node/a",
            "https://gpuquota/node/a",
            "spiffe://gpuquota/NODE/a",
        ] {
            assert_eq!(
                peer_identity(&certificate(&[uri], "x")),
                Err(IdentityError::NoNode(NodeForm::default())),
                "{uri}"
            );
        }
        assert_eq!(peer_identity(b"junk"), Err(IdentityError::Unreadable));
    }
}
