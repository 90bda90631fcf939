//! One GET of a key set: HTTPS with the system's authorities or a given one, no redirects, no proxy, all of it bounded.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::key_set::LARGEST;

/// For all of a fetch, from the name's address to the last byte.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
const LARGEST_HEAD: usize = 64 * 1024;

/// Where and how to fetch.
pub(super) struct Fetcher {
    host: String,
    port: u16,
    authority: String,
    target: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Fetcher {
    /// For an address that the configuration's check let through.
    pub(super) fn new(url: &str, ca: Option<&Path>) -> Result<Self, String> {
        let rule = || format!("jwks_url {url} is no address");
        let uri: Uri = url.parse().map_err(|_| rule())?;
        let authority = uri.authority().ok_or_else(rule)?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let https = uri.scheme_str() == Some("https");
        let tls = if https {
            let name = ServerName::try_from(host.clone()).map_err(|_| rule())?;
            Some((connector(ca)?, name))
        } else {
            None
        };
        Ok(Self {
            port: authority.port_u16().unwrap_or(if https { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            target: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
            host,
            tls,
        })
    }

    /// The set's text. The error says what happened, for the log.
    pub(super) async fn fetch(&self) -> Result<Bytes, String> {
        let answer = tokio::time::timeout(DEADLINE, self.exchange()).await;
        answer.unwrap_or_else(|_| Err("no whole answer within 5 seconds".into()))
    }

    async fn exchange(&self) -> Result<Bytes, String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|e| format!("cannot connect to {}: {e}", self.authority))?;
        match &self.tls {
            None => self.get(stream).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                self.get(stream.map_err(|e| format!("TLS with {}: {e}", self.authority))?)
                    .await
            }
        }
    }

    async fn get(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Bytes, String> {
        let text = |e: hyper::Error| format!("{}: {e}", self.authority);
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(LARGEST_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(text)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::get(&self.target)
            .header(HOST, &self.authority)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, "gpuquota-server")
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|e| e.to_string())?;
        let answer = sender.send_request(request).await.map_err(text)?;
        if answer.status() != StatusCode::OK {
            return Err(format!(
                "{} answers {}; it must be 200, redirects are not followed",
                self.authority,
                answer.status()
            ));
        }
        let body = Limited::new(answer.into_body(), LARGEST).collect().await;
        Ok(body.map_err(|e| e.to_string())?.to_bytes())
    }
}

fn connector(ca: Option<&Path>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        let unusable = |e: String| format!("jwks_ca_file {}: {e}", path.display());
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
            return Err(
                "this system has no certificate authorities; name one in jwks_ca_file".into(),
            );
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
