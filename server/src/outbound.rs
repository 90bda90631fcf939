//! Asking another HTTP server: one request a connection, over HTTPS with the system's authorities or a given one, or
//! plain; no redirects, no proxy, and all of it bounded.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

const LARGEST_HEAD: usize = 64 * 1024;

/// A server, and how its certificate is trusted.
pub(crate) struct Outbound {
    host: String,
    port: u16,
    authority: HeaderValue,
    target: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// What is waited for, and taken, at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// From the name's address to the last byte.
    pub(crate) deadline: Duration,
    /// Bytes of the answer's body.
    pub(crate) largest: usize,
}

impl Outbound {
    /// The server at this address. The error says what is wrong with the address or the authority's file.
    pub(crate) fn new(url: &str, ca: Option<&Path>) -> Result<Self, String> {
        let rule = || format!("{url} is no http or https address");
        let uri: Uri = url.parse().map_err(|_| rule())?;
        let authority = uri.authority().ok_or_else(rule)?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| rule())?;
                Some((connector(ca)?, name))
            }
            _ => return Err(rule()),
        };
        let usual = if tls.is_some() { 443 } else { 80 };
        Ok(Self {
            port: authority.port_u16().unwrap_or(usual),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| rule())?,
            target: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
            host,
            tls,
        })
    }

    /// Path and query of the address.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Sends one request, whose URI is a path and query; status and body of the answer. The error says what happened.
    pub(crate) async fn send(
        &self,
        request: Request<Bytes>,
        bounds: Bounds,
    ) -> Result<(StatusCode, Bytes), String> {
        let answer = tokio::time::timeout(bounds.deadline, self.exchange(request, bounds.largest));
        answer.await.unwrap_or_else(|_| {
            let seconds = bounds.deadline.as_secs();
            Err(format!("no whole answer within {seconds} seconds"))
        })
    }

    async fn exchange(
        &self,
        request: Request<Bytes>,
        largest: usize,
    ) -> Result<(StatusCode, Bytes), String> {
        let (host, port) = (self.host.as_str(), self.port);
        let stream = TcpStream::connect((host, port))
            .await
            .map_err(|e| format!("cannot connect to {host} port {port}: {e}"))?;
        match &self.tls {
            None => self.ask(stream, request, largest).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                let stream = stream.map_err(|e| format!("TLS with {host} port {port}: {e}"))?;
                self.ask(stream, request, largest).await
            }
        }
    }

    async fn ask(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Bytes>,
        largest: usize,
    ) -> Result<(StatusCode, Bytes), String> {
        let text = |e: hyper::Error| format!("{}: {e}", self.host);
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(LARGEST_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(text)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let mut request = request.map(Full::new);
        let headers = request.headers_mut();
        headers.insert(HOST, self.authority.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static("gpuquota-server"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let answer = sender.send_request(request).await.map_err(text)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), largest).collect().await;
        Ok((status, body.map_err(|e| e.to_string())?.to_bytes()))
    }
}

fn connector(ca: Option<&Path>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        let unusable = |e: String| format!("the authority {}: {e}", path.display());
        for certificate in
            CertificateDer::pem_file_iter(path).map_err(|e| unusable(e.to_string()))?
        {
            let certificate = certificate.map_err(|e| unusable(e.to_string()))?;
            roots
                .add(certificate)
                .map_err(|e| unusable(e.to_string()))?;
        }
        if roots.is_empty() {
            return Err(unusable("it holds no certificate".into()));
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err("this system has no certificate authorities; name a file with one".into());
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
