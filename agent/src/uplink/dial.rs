//! One connection to the server: TCP, then TLS with the files as they are now, then HTTP/2 over it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gpuquota_proto::form::{NodeForm, ServerForm};
use gpuquota_proto::identity::{IdentityError, PeerIdentity, peer_identity_as};
use gpuquota_proto::tls::{TlsError, TlsFiles, client_config};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::witness::{Verdict, Witness, tls_cause};

/// Connecting takes at most this long, each for TCP, TLS and HTTP/2 together.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// A ping this often, and the connection is dead when no answer comes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name or address; the server's certificate must be for it.
    pub host: String,
    /// Port of the agents' listener.
    pub port: u16,
}

impl Server {
    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Own files are missing or do not fit.
    #[error(transparent)]
    Files(#[from] TlsError),
    /// Own certificate names no node.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Own certificate names another node than before or than configured.
    #[error("the certificate names node {found}, not {expected}")]
    OtherNode {
        /// Configured, or from the certificate at start.
        expected: String,
        /// In the file now.
        found: String,
    },
    /// The configured host is no name a certificate can have.
    #[error("{0} is not a host name or address")]
    Host(String),
    /// The other side is not our server, or it does not accept our certificate.
    #[error("TLS with the server failed: {0}{time}", time = about_time(.0))]
    Untrusted(rustls::Error),
    /// The server is not there.
    #[error("the server cannot be reached: {0}")]
    Unreachable(io::Error),
    /// It took too long.
    #[error("the server did not answer within {CONNECT_DEADLINE:?}")]
    Slow,
    /// HTTP/2 could not be spoken.
    #[error("the server cannot be talked to: {0}")]
    Transport(#[from] tonic::transport::Error),
}

impl DialError {
    // Whether trying again soon would end the same.
    pub(super) fn lasts(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Slow | Self::Transport(_) => false,
            Self::Files(_)
            | Self::Identity(_)
            | Self::OtherNode { .. }
            | Self::Host(_)
            | Self::Untrusted(_) => true,
        }
    }
}

// Of certificates that are valid by every other clock.
fn about_time(error: &rustls::Error) -> &'static str {
    use rustls::{AlertDescription, CertificateError, Error};
    match error {
        Error::InvalidCertificate(
            CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
            | CertificateError::Expired
            | CertificateError::ExpiredContext { .. },
        ) => "; compare the clock of this node with the server's",
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "; join again, or mend the clock of the server"
        }
        _ => "",
    }
}

/// The agent's own identity: three files and the node they must name.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// CA, certificate and key.
    pub files: TlsFiles,
    /// The node that the certificate must name.
    pub node: String,
    /// How certificates name both sides.
    pub forms: Forms,
}

/// How certificates name nodes and the server: in our own form, or in another authority's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forms {
    /// Nodes.
    pub node: NodeForm,
    /// The server.
    pub server: ServerForm,
}

/// When and how large each file was: tells that somebody renewed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp([Option<(u64, i64, i64, u64)>; 3]);

/// A verified TLS connection, with what it was made from.
#[derive(Debug)]
pub(super) struct Line {
    stream: Witness<TlsStream<TcpStream>>,
    /// The TLS error that ended it, once it has ended by one.
    pub(super) verdict: Verdict,
    /// The files it was made from.
    pub(super) stamp: Stamp,
    /// When the certificate it was made with ends, seconds since 1970.
    pub(super) not_after_unix_s: i64,
}

/// Who the certificate in this file names.
///
/// # Errors
/// When there is no certificate in it, or it names no node.
pub fn own_identity(files: &TlsFiles, form: &NodeForm) -> Result<PeerIdentity, DialError> {
    let leaf =
        CertificateDer::from_pem_file(&files.certificate).map_err(|source| TlsError::File {
            path: files.certificate.clone(),
            source,
        })?;
    Ok(peer_identity_as(&leaf, form)?)
}

/// What the files look like now, without reading them.
pub(super) fn stamp(files: &TlsFiles) -> Stamp {
    Stamp([&files.ca, &files.certificate, &files.key].map(|path| {
        fs::metadata(path)
            .ok()
            .map(|m| (m.ino(), m.mtime(), m.mtime_nsec(), m.size()))
    }))
}

/// Connects and shakes hands. The files are read anew each time.
pub(super) async fn dial(server: &Server, credentials: &Credentials) -> Result<Line, DialError> {
    // The stamp first: a change while the files are read is seen as one later.
    let stamp = stamp(&credentials.files);
    let identity = own_identity(&credentials.files, &credentials.forms.node)?;
    if identity.node != credentials.node {
        return Err(DialError::OtherNode {
            expected: credentials.node.clone(),
            found: identity.node,
        });
    }
    let form = &credentials.forms.server;
    let config = Arc::new(client_config(&credentials.files, form)?);
    let stream = match form {
        ServerForm::Name(name) => shake_as(server, name.clone(), config).await?,
        ServerForm::Dialled | ServerForm::Uri(_) => shake(server, config).await?,
    };
    let verdict = Verdict::default();
    Ok(Line {
        stream: Witness::new(stream, Arc::clone(&verdict)),
        verdict,
        stamp,
        not_after_unix_s: identity.not_after_unix_s,
    })
}

/// Connects and shakes hands with this configuration.
pub(crate) async fn shake(
    server: &Server,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, DialError> {
    let name = ServerName::try_from(server.host.clone())
        .map_err(|_| DialError::Host(server.host.clone()))?;
    shake_as(server, name, config).await
}

// The server's certificate must be for this name, whatever is dialled.
async fn shake_as(
    server: &Server,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, DialError> {
    tokio::time::timeout(CONNECT_DEADLINE, async {
        let tcp = TcpStream::connect((server.host.as_str(), server.port)).await?;
        tcp.set_nodelay(true)?;
        TlsConnector::from(config).connect(name, tcp).await
    })
    .await
    .map_err(|_| DialError::Slow)?
    .map_err(|error| match tls_cause(&error) {
        Some(cause) => DialError::Untrusted(cause),
        None => DialError::Unreachable(error),
    })
}

/// HTTP/2 over a line. The channel lives as long as the line: it never connects again by itself.
pub(super) async fn channel(server: &Server, line: Line) -> Result<Channel, DialError> {
    channel_of(server, line.stream).await
}

/// A connection beside the session's, as the same node.
pub(crate) async fn connect(
    server: &Server,
    credentials: &Credentials,
) -> Result<Channel, DialError> {
    channel(server, dial(server, credentials).await?).await
}

/// The same over any stream.
pub(crate) async fn channel_of<S>(server: &Server, stream: S) -> Result<Channel, DialError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let once = Arc::new(Mutex::new(Some(stream)));
    let connector = service_fn(move |_| {
        let stream = once
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .map(TokioIo::new)
            .ok_or(io::ErrorKind::NotConnected);
        std::future::ready(stream.map_err(io::Error::from))
    });
    // TLS is below; to HTTP/2 this is a plain connection.
    let endpoint = Endpoint::from_shared(format!("http://{}", server.authority()))?
        .user_agent(concat!("gpuquota-agent/", env!("CARGO_PKG_VERSION")))?
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    tokio::time::timeout(CONNECT_DEADLINE, endpoint.connect_with_connector(connector))
        .await
        .map_err(|_| DialError::Slow)?
        .map_err(DialError::from)
}
