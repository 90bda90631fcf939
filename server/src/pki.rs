//! The operator's own certificate authority: made by `init`, used for the server's and the agents' certificates.
//!
//! A server's certificate is for servers and an agent's for clients only, so neither passes for the other.

mod request;

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use gpuquota_core::id::{NodeName, Timestamp};
use gpuquota_proto::identity::node_uri;
use gpuquota_proto::pinned::Pin;
use gpuquota_proto::tls::{TlsError, chain};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType, SerialNumber,
};

pub use request::Signed;

const DAY_S: i64 = 24 * 60 * 60;
const CA_DAYS: i64 = 3650;
const SERVER_DAYS: i64 = 397;
/// Peers' clocks may be behind by so much, or by a tenth of a life that is short: half a life must not be over when it begins.
const SKEW_S: i64 = 300;

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// A certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file of the authority cannot be read.
    #[error("cannot read {0}: {1}")]
    Unreadable(String, #[source] std::io::Error),
    /// The authorities' certificates cannot be read.
    #[error(transparent)]
    Certificates(#[from] TlsError),
    /// The key is of none of them.
    #[error("{key} is the key of no certificate in {certificates}")]
    Key {
        /// Where they are.
        certificates: String,
        /// Where it is.
        key: String,
    },
    /// The library refuses.
    #[error("cannot make the certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A date is out of range.
    #[error("the end of the certificate is out of range")]
    Dates,
    /// A signing request is none, or not of a key that is signed.
    #[error("this is no signing request of a P-256 key, signed by that key")]
    Request,
    /// A signing request wants more than its sender may have.
    #[error("the signing request asks for more than a certificate of this node")]
    Asked,
    /// A name cannot stand in a certificate.
    #[error("{0} cannot stand in a certificate")]
    Name(String),
}

/// Makes the authority.
///
/// # Errors
/// When the library refuses.
pub fn authority(now: Timestamp) -> Result<Pair, PkiError> {
    let mut params = params("gpuquota CA", now, CA_DAYS * DAY_S)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Pair {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// Of the key in a file; `None` where there is none that can be read.
#[must_use]
pub fn key_pin(path: &Path) -> Option<Pin> {
    let key = KeyPair::from_pem(&fs::read_to_string(path).ok()?).ok()?;
    Some(Pin::of_key(&key.subject_public_key_info()))
}

/// An authority that can sign.
pub struct Authority(pub(self) Issuer<'static, KeyPair>);

impl Authority {
    /// Takes the authority from its two PEM texts.
    ///
    /// # Errors
    /// When they do not parse.
    pub fn new(pair: &Pair) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(&pair.key)?;
        Ok(Self(Issuer::from_ca_cert_pem(&pair.certificate, key)?))
    }

    /// Reads `ca.crt` and `ca.key` in `dir`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read(dir: &Path) -> Result<Self, PkiError> {
        Self::of_files(&dir.join("ca.crt"), &dir.join("ca.key"))
    }

    /// Reads the authority's key, and its certificate: the one in its file that is for this key.
    ///
    /// # Errors
    /// When they cannot be read, or none is for this key.
    pub fn of_files(certificate: &Path, key: &Path) -> Result<Self, PkiError> {
        let unreadable = |error| PkiError::Unreadable(key.display().to_string(), error);
        let text = fs::read_to_string(key).map_err(unreadable)?;
        let key_pair = KeyPair::from_pem(&text)?;
        let own = Pin::of_key(&key_pair.subject_public_key_info());
        let all = chain(certificate)?;
        let own = all.iter().find(|der| Pin::of(der) == Ok(own));
        let own = own.ok_or_else(|| PkiError::Key {
            certificates: certificate.display().to_string(),
            key: key.display().to_string(),
        })?;
        Ok(Self(Issuer::from_ca_cert_der(own, key_pair)?))
    }

    /// A server's certificate for these host names and addresses.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn server(&self, hosts: &[String], now: Timestamp) -> Result<Pair, PkiError> {
        let mut params = params("gpuquota server", now, SERVER_DAYS * DAY_S)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for host in hosts {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(
                    host.as_str()
                        .try_into()
                        .map_err(|_| PkiError::Name(host.clone()))?,
                ),
            });
        }
        self.sign(params)
    }

    /// An agent's certificate, which names its node and nothing else.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn agent(&self, node: &NodeName, now: Timestamp, days: u32) -> Result<Pair, PkiError> {
        self.sign(agent_params(node, now, i64::from(days) * DAY_S)?)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Pair, PkiError> {
        as_leaf(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok(Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn as_leaf(params: &mut CertificateParams) {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
}

// Of a node: named by one URI, for clients only.
fn agent_params(
    node: &NodeName,
    now: Timestamp,
    life_s: i64,
) -> Result<CertificateParams, PkiError> {
    let mut params = params(node.as_str(), now, life_s)?;
    as_leaf(&mut params);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let uri = node_uri(node.as_str());
    let uri = uri
        .as_str()
        .try_into()
        .map_err(|_| PkiError::Name(uri.clone()))?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    Ok(params)
}

fn params(name: &str, now: Timestamp, life_s: i64) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    // 16 random bytes; the first bit clear, as a serial number is positive, and the next one set, as DER drops bytes of zeros in front.
    let mut serial = uuid::Uuid::new_v4().into_bytes();
    serial[0] = (serial[0] & 0x7f) | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let now_s = now.0.div_euclid(1000);
    let date = |seconds: i64| {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let days = u64::try_from(seconds).map_err(|_| PkiError::Dates)?;
        epoch
            .checked_add(
                std::time::Duration::from_secs(days)
                    .try_into()
                    .map_err(|_| PkiError::Dates)?,
            )
            .ok_or(PkiError::Dates)
    };
    params.not_before = date(now_s - SKEW_S.min(life_s / 10))?;
    params.not_after = date(now_s + life_s)?;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpuquota_proto::identity::peer_identity;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    #[test]
    fn an_agents_certificate_names_its_node() {
        let now = Timestamp(1_800_000_000_000);
        let authority = Authority::new(&authority(now).unwrap()).unwrap();
        let pair = authority
            .agent(&NodeName::new("gpu02").unwrap(), now, 90)
            .unwrap();
        let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
        let identity = peer_identity(&der).unwrap();
        assert_eq!(identity.node, "gpu02");
        assert_eq!(identity.not_after_unix_s, 1_800_000_000 + 90 * DAY_S);
    }
}
