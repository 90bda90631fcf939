//! The operator's own certificate authority: made by `init`, used for the server's and the agents' certificates.
//!
//! A server's certificate is for servers and an agent's for clients only, so neither passes for the other.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use gpuquota_core::id::{NodeName, Timestamp};
use gpuquota_proto::identity::node_uri;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};

const DAY_S: i64 = 24 * 60 * 60;
const CA_DAYS: i64 = 3650;
const SERVER_DAYS: i64 = 397;
/// Peers' clocks may be behind by so much.
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
    /// The library refuses.
    #[error("cannot make the certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A date is out of range.
    #[error("the end of the certificate is out of range")]
    Dates,
    /// A name cannot stand in a certificate.
    #[error("{0} cannot stand in a certificate")]
    Name(String),
}

/// Makes the authority.
///
/// # Errors
/// When the library refuses.
pub fn authority(now: Timestamp) -> Result<Pair, PkiError> {
    let mut params = params("gpuquota CA", now, CA_DAYS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Pair {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// An authority that can sign.
pub struct Authority(Issuer<'static, KeyPair>);

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
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path)
                .map_err(|e| PkiError::Unreadable(path.display().to_string(), e))
        };
        Self::new(&Pair {
            certificate: read("ca.crt")?,
            key: read("ca.key")?,
        })
    }

    /// A server's certificate for these host names and addresses.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn server(&self, hosts: &[String], now: Timestamp) -> Result<Pair, PkiError> {
        let mut params = params("gpuquota server", now, SERVER_DAYS)?;
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
        let mut params = params(node.as_str(), now, days.into())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let uri = node_uri(node.as_str());
        let uri = uri
            .as_str()
            .try_into()
            .map_err(|_| PkiError::Name(uri.clone()))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Pair, PkiError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok(Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn params(name: &str, now: Timestamp, days: i64) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    // 16 random bytes; the first bit clear, as a serial number is positive.
    let mut serial = uuid::Uuid::new_v4().into_bytes();
    serial[0] &= 0x7f;
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
    params.not_before = date(now_s - SKEW_S)?;
    params.not_after = date(now_s + days * DAY_S)?;
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
