//! Certificates, good and bad, and connections to the agents' listener with them.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gpuquota_proto::agent_v1::agent_client::AgentClient;
use gpuquota_proto::pinned::JOIN_ALPN;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ALL_VERSIONS, ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

const DEADLINE: Duration = Duration::from_secs(10);

/// Certificate and key as PEM.
#[derive(Clone, Debug)]
pub struct Papers {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Papers {
    /// Into files such as `agent.crt` and `agent.key`, each in place at once.
    pub fn write(&self, dir: &Path, name: &str) {
        for (end, text) in [("key", &self.key), ("crt", &self.certificate)] {
            let (fresh, path) = (dir.join("fresh"), dir.join(format!("{name}.{end}")));
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options
                .open(&fresh)
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
            std::fs::rename(&fresh, &path).unwrap();
        }
    }

    /// From files such as `agent.crt` and `agent.key`.
    #[must_use]
    pub fn read(dir: &Path, name: &str) -> Self {
        let read = |end: &str| std::fs::read_to_string(dir.join(format!("{name}.{end}"))).unwrap();
        Self {
            certificate: read("crt"),
            key: read("key"),
        }
    }
}

/// An authority: the server's own, or a stranger.
#[derive(Debug)]
pub struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// The one in a server directory.
    #[must_use]
    pub fn of_server(dir: &Path) -> Self {
        let papers = Papers::read(dir, "ca");
        let key = KeyPair::from_pem(&papers.key).unwrap();
        Self(Issuer::from_ca_cert_pem(&papers.certificate, key).unwrap())
    }

    /// One with the same subject that nobody trusts.
    #[must_use]
    pub fn stranger() -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "gpuquota CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Self(Issuer::new(params, KeyPair::generate().unwrap()))
    }

    /// Another operator's, and its certificate for those who trust it.
    #[must_use]
    pub fn foreign() -> (Self, String) {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "Example CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        (Self(Issuer::new(params, key)), certificate)
    }

    /// A certificate for a server at localhost with this id beside the name.
    #[must_use]
    pub fn server(&self, uri: &str) -> Papers {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let id = SanType::URI(uri.try_into().unwrap());
        params.subject_alt_names.push(id);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2090, 1, 1);
        self.sign(params)
    }

    /// A certificate for clients with these names, valid from and to these years.
    #[must_use]
    pub fn issue(&self, uris: &[&str], common_name: &str, years: (i32, i32)) -> Papers {
        self.issue_for(
            uris,
            common_name,
            years,
            ExtendedKeyUsagePurpose::ClientAuth,
        )
    }

    /// The same for another use.
    #[must_use]
    pub fn issue_for(
        &self,
        uris: &[&str],
        common_name: &str,
        (from, to): (i32, i32),
        usage: ExtendedKeyUsagePurpose,
    ) -> Papers {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, common_name);
        params.extended_key_usages = vec![usage];
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        let san = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
        params.subject_alt_names = uris.iter().map(san).collect();
        self.sign(params)
    }

    /// A certificate for a server at localhost, valid until this year.
    #[must_use]
    pub fn localhost(&self, until: i32) -> Papers {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Papers {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Papers {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// TLS to the agents' listener, trusting its authority, with or without papers.
///
/// # Errors
/// With what TLS says.
pub async fn tls(
    address: SocketAddr,
    server_dir: &Path,
    papers: Option<&Papers>,
) -> Result<TlsStream<TcpStream>, String> {
    tls_as(address, server_dir, papers, b"h2", ALL_VERSIONS).await
}

/// TLS to any listener, trusting the server's authority, as a client of these protocols.
///
/// # Errors
/// With what TLS says.
pub async fn tls_as(
    address: SocketAddr,
    server_dir: &Path,
    papers: Option<&Papers>,
    alpn: &[u8],
    versions: &[&'static SupportedProtocolVersion],
) -> Result<TlsStream<TcpStream>, String> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(server_dir.join("ca.crt")).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match papers {
        None => config.with_no_client_auth(),
        Some(papers) => {
            let chain = CertificateDer::from_pem_slice(papers.certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(papers.key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![chain], key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let tcp = TcpStream::connect(address)
        .await
        .map_err(|e| e.to_string())?;
    let name = ServerName::try_from("localhost").unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    let connected = tokio::time::timeout(DEADLINE, connecting).await;
    connected
        .map_err(|_| "TLS did not end in time")?
        .map_err(|e| e.to_string())
}

/// HTTP/2 over such a connection.
///
/// # Errors
/// With what TLS or HTTP/2 says.
pub async fn channel(
    address: SocketAddr,
    server_dir: &Path,
    papers: Option<&Papers>,
) -> Result<Channel, String> {
    over(tls(address, server_dir, papers).await?).await
}

/// The same as an agent that joins, and shows no certificate.
///
/// # Errors
/// With what TLS or HTTP/2 says.
pub async fn joiner(address: SocketAddr, server_dir: &Path) -> Result<Channel, String> {
    over(tls_as(address, server_dir, None, JOIN_ALPN, ALL_VERSIONS).await?).await
}

async fn over(stream: TlsStream<TcpStream>) -> Result<Channel, String> {
    let stream = Arc::new(Mutex::new(Some(stream)));
    let connector = service_fn(move |_| {
        let stream = stream.lock().unwrap().take().map(TokioIo::new);
        std::future::ready(stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    let endpoint = Endpoint::from_static("http://localhost");
    let connected = tokio::time::timeout(DEADLINE, endpoint.connect_with_connector(connector));
    connected
        .await
        .map_err(|_| "HTTP/2 did not begin in time")?
        .map_err(|e| e.to_string())
}

/// The generated client over such a connection.
///
/// # Errors
/// With what TLS or HTTP/2 says.
pub async fn client(
    address: SocketAddr,
    server_dir: &Path,
    papers: Option<&Papers>,
) -> Result<AgentClient<Channel>, String> {
    channel(address, server_dir, papers)
        .await
        .map(AgentClient::new)
}
