//! A foreign issuer: keys, the tokens they sign, and the address that publishes them, which may also fail.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A key pair of the issuer, for ES256.
#[derive(Debug)]
pub struct IssuerKey {
    kid: String,
    pair: KeyPair,
}

impl IssuerKey {
    /// A new pair with this name.
    #[must_use]
    pub fn new(kid: &str) -> Self {
        Self {
            kid: kid.to_owned(),
            pair: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
        }
    }

    /// The public half as it stands in a key set.
    #[must_use]
    pub fn jwk(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let (x, y) = self.pair.public_key_raw()[1..].split_at(32);
        let [x, y] = [x, y].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.kid, "x": x, "y": y})
    }

    /// The public half as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.pair.public_key_pem()
    }

    /// A token of these claims.
    #[must_use]
    pub fn token(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.kid.clone());
        let key = EncodingKey::from_ec_der(&self.pair.serialize_der());
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }
}

/// The text of a key set.
#[must_use]
pub fn key_set(keys: &[&IssuerKey]) -> String {
    let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

#[derive(Debug)]
struct Answer {
    head: String,
    body: String,
    delay: Duration,
    fetches: usize,
    connections: BTreeSet<u16>,
}

/// The address.
#[derive(Debug)]
pub struct Jwks {
    address: SocketAddr,
    scheme: &'static str,
    answer: Arc<Mutex<Answer>>,
    task: JoinHandle<()>,
}

impl Jwks {
    /// Publishes these keys by plain HTTP.
    pub async fn start(keys: &[&IssuerKey]) -> Self {
        Self::listen(keys, None).await
    }

    /// Publishes them by HTTPS; the authority of its certificate as PEM.
    pub async fn start_tls(keys: &[&IssuerKey]) -> (Self, String) {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&pair).unwrap();
        let key = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        (Self::listen(keys, Some(acceptor)).await, certificate.pem())
    }

    async fn listen(keys: &[&IssuerKey], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(Answer {
            head: "200 OK".into(),
            body: key_set(keys),
            delay: Duration::ZERO,
            fetches: 0,
            connections: BTreeSet::new(),
        }));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = answer.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, from) = listener.accept().await.unwrap();
                shared.lock().unwrap().connections.insert(from.port());
                let (shared, tls) = (shared.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &shared).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, &shared).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            scheme,
            answer,
            task,
        }
    }

    /// The address for `jwks_url`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://localhost:{}/keys", self.scheme, self.address.port())
    }

    /// From now on these keys.
    pub fn publish(&self, keys: &[&IssuerKey]) {
        self.say("200 OK", &key_set(keys));
    }

    /// From now on this status line (further headers may follow it) and body.
    pub fn say(&self, head: &str, body: &str) {
        let mut answer = self.answer.lock().unwrap();
        (answer.head, answer.body) = (head.to_owned(), body.to_owned());
    }

    /// From now on every answer takes so long.
    pub fn slow(&self, delay: Duration) {
        self.answer.lock().unwrap().delay = delay;
    }

    /// How many requests came.
    #[must_use]
    pub fn fetches(&self) -> usize {
        self.answer.lock().unwrap().fetches
    }

    /// How many connections came, also those that sent no request.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.answer.lock().unwrap().connections.len()
    }
}

impl Drop for Jwks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &Mutex<Answer>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let (text, delay) = {
        let mut answer = answer.lock().unwrap();
        answer.fetches += 1;
        let length = answer.body.len();
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Length: {length}\r\n\r\n",
            answer.head
        );
        (head + &answer.body, answer.delay)
    };
    tokio::time::sleep(delay).await;
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}
