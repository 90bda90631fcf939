//! TLS 1.2 or newer by aws-lc-rs: for the agents' stream both sides with a certificate of the operator's own CA, for HTTPS
//! the server alone.
//!
//! The files are read when a configuration is made, so whoever renews them makes a new configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::BASE64;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::form::{ByUri, ServerForm};
use crate::verifier::Verifier;

/// The three files of one side.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificates that the other side's chain may end in (PEM, one or more).
    pub ca: PathBuf,
    /// Own chain, leaf first (PEM).
    pub certificate: PathBuf,
    /// Own private key (PEM).
    pub key: PathBuf,
}

/// The two files of an HTTPS listener.
#[derive(Clone, Debug)]
pub struct HttpsFiles {
    /// Own chain, leaf first (PEM).
    pub certificate: PathBuf,
    /// Own private key (PEM).
    pub key: PathBuf,
}

/// Why a TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, unreadable or not PEM.
    #[error("cannot read {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: rustls::pki_types::pem::Error,
    },
    /// The file holds no certificate.
    #[error("{0} holds no certificate")]
    NoCertificate(PathBuf),
    /// Certificate and key do not fit together, or rustls refuses them.
    #[error("TLS set-up from {path} failed: {source}")]
    Rejected {
        /// The certificate or CA file.
        path: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// The CA file holds nothing that can verify clients.
    #[error("no client certificate can be verified with {path}: {source}")]
    Verifier {
        /// The CA file.
        path: PathBuf,
        /// What rustls says.
        source: rustls::server::VerifierBuilderError,
    },
}

/// For the server: only clients with a certificate of the CA get through the handshake. ALPN is `h2`.
///
/// # Errors
/// When a file cannot be read or used.
pub fn server_config(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let roots = Arc::new(roots(&files.ca)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|source| TlsError::Verifier {
            path: files.ca.clone(),
            source,
        })?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| rejected(&files.certificate, source))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(&files.certificate)?, key(&files.key)?)
        .map_err(|source| rejected(&files.certificate, source))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// For agents that join: they show no certificate, and are shown the authorities behind the server's. ALPN is
/// [`JOIN_ALPN`](crate::pinned::JOIN_ALPN).
///
/// # Errors
/// When a file cannot be read or used.
pub fn join_server_config(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let mut shown = chain(&files.certificate)?;
    shown.extend(chain(&files.ca)?);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| rejected(&files.certificate, source))?
        .with_no_client_auth()
        .with_single_cert(shown, key(&files.key)?)
        .map_err(|source| rejected(&files.certificate, source))?;
    config.alpn_protocols = vec![crate::pinned::JOIN_ALPN.to_vec()];
    Ok(config)
}

/// For an HTTPS listener: clients show no certificate. ALPN is `http/1.1`.
///
/// # Errors
/// When a file cannot be read or used.
pub fn https_config(files: &HttpsFiles) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| rejected(&files.certificate, source))?
        .with_no_client_auth()
        .with_single_cert(chain(&files.certificate)?, key(&files.key)?)
        .map_err(|source| rejected(&files.certificate, source))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// End of validity of the first certificate in a file, seconds since 1970 (UTC).
///
/// # Errors
/// When the file cannot be read or holds no certificate that parses.
pub fn not_after_unix_s(path: &Path) -> Result<i64, TlsError> {
    let chain = chain(path)?;
    let leaf = chain.first().map(|leaf| X509Certificate::from_der(leaf));
    match leaf {
        Some(Ok((_, leaf))) => Ok(leaf.validity().not_after.timestamp()),
        _ => Err(TlsError::NoCertificate(path.to_owned())),
    }
}

/// For the agent: the server must have a certificate of the CA, for the name that was dialled or with the id that `server` says.
/// ALPN is `h2`.
///
/// # Errors
/// When a file cannot be read or used.
pub fn client_config(files: &TlsFiles, server: &ServerForm) -> Result<ClientConfig, TlsError> {
    let roots = roots(&files.ca)?;
    let ServerForm::Uri(uri) = server else {
        return by_name(files, roots);
    };
    let by_uri = ByUri {
        uri: uri.clone(),
        roots,
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| rejected(&files.certificate, source))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(by_uri)))
        .with_client_auth_cert(chain(&files.certificate)?, key(&files.key)?)
        .map_err(|source| rejected(&files.certificate, source))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn by_name(files: &TlsFiles, roots: RootCertStore) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| rejected(&files.certificate, source))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain(&files.certificate)?, key(&files.key)?)
        .map_err(|source| rejected(&files.certificate, source))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn rejected(path: &Path, source: rustls::Error) -> TlsError {
    TlsError::Rejected {
        path: path.to_owned(),
        source,
    }
}

/// The certificates in a file.
///
/// # Errors
/// When it cannot be read or holds none.
pub fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = |source| TlsError::File {
        path: path.to_owned(),
        source,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(file)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(file)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    Ok(certificates)
}

/// A certificate as PEM text.
#[must_use]
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = BASE64.encode(certificate);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let lines: String = lines.map(|line| line.into_owned() + "\n").collect();
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::File {
        path: path.to_owned(),
        source,
    })
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in chain(path)? {
        store
            .add(certificate)
            .map_err(|source| rejected(path, source))?;
    }
    Ok(store)
}
