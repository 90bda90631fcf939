//! TLS 1.2 or newer by aws-lc-rs: for the agents' stream both sides with a certificate of the operator's own CA, for HTTPS
//! the server alone.
//!
//! The files are read when a configuration is made, so whoever renews them makes a new configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer as _, X509Certificate};

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

/// For the agent: the server must have a certificate of the CA for the name that was dialled. ALPN is `h2`.
///
/// # Errors
/// When a file cannot be read or used.
pub fn client_config(files: &TlsFiles) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| rejected(&files.certificate, source))?
        .with_root_certificates(roots(&files.ca)?)
        .with_client_auth_cert(chain(&files.certificate)?, key(&files.key)?)
        .map_err(|source| rejected(&files.certificate, source))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn rejected(path: &Path, source: rustls::Error) -> TlsError {
    TlsError::Rejected {
        path: path.to_owned(),
        source,
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
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
