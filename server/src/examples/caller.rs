//! Who loads examples: a caller of a server that runs, or of one that is opened for it alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::body::{Body, Bytes};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::auth::token::{Grant, TokenKey};
use crate::auth::{Authenticator, Limiter, Role};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::open::{InUse, Opened};
use crate::outbound::{Bounds, Outbound};
use crate::rest::{self, Api, Endpoint, Kept};
use crate::run::REST_ADDRESS;
use crate::service::liveness::Liveness;

const DEADLINE: Duration = Duration::from_secs(30);
const TOKEN_TTL_S: i64 = 600;
/// `GET /api/v1/authority/nodes` has 268 bytes for each node; there are ten thousand, and room for twenty times as many.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;
/// Where the calls arrive that need no listener.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 80);

/// A caller with the role admin.
pub struct Caller {
    token: String,
    reason: Option<String>,
    target: Target,
}

enum Target {
    Running(Outbound),
    Opened { router: Router, opened: Opened },
}

impl Caller {
    /// Of the server at this address.
    ///
    /// # Errors
    /// When `ca`, the authority of its certificate, cannot be read.
    pub fn of_url(url: &str, token: String, ca: Option<&Path>) -> anyhow::Result<Self> {
        let server = Outbound::new(url, ca).map_err(anyhow::Error::msg)?;
        Ok(Self {
            token,
            reason: None,
            target: Target::Running(server),
        })
    }

    /// What it does it does for this reason, for the audit.
    #[must_use]
    pub fn because(self, reason: Option<String>) -> Self {
        Self { reason, ..self }
    }

    /// Of the server in this directory: the one that runs on it, or one that is opened until [`Self::close`].
    ///
    /// # Errors
    /// When the directory holds no usable server.
    pub async fn of_dir(dir: &Path) -> anyhow::Result<Self> {
        let config = Config::read(dir)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let token = admin_token(&config, &*clock)?;
        match Opened::open(dir, &config, clock.clone()).await {
            Ok(opened) => Ok(Self {
                token,
                reason: None,
                target: Target::Opened {
                    router: rest::router(Arc::new(Api {
                        ledger: opened.ledger.clone(),
                        clock: clock.clone(),
                        liveness: Arc::new(Liveness::new(clock.boot_ms())),
                        tokens: Arc::new(Authenticator::open(&config.tokens, &clock)?),
                        dialects: config.dialects.clone(),
                        limiter: Arc::new(Limiter::default()),
                        kept: Kept::default(),
                    })),
                    opened,
                },
            }),
            Err(error) if error.is::<InUse>() => {
                let https = config.rest.https().is_some();
                let scheme = if https { "https" } else { "http" };
                let told = std::fs::read_to_string(dir.join(REST_ADDRESS)).ok();
                let told = told.and_then(|text| text.trim().parse().ok());
                let listens = told.unwrap_or(config.rest.listen);
                let url = format!("{scheme}://{}", reachable(listens));
                let ca = dir.join("ca.crt");
                Self::of_url(&url, token, https.then_some(ca.as_path()))
            }
            Err(error) => Err(error),
        }
    }

    /// Sends one request; its JSON answer.
    ///
    /// # Errors
    /// When there is no answer, or it is no success.
    pub async fn call(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let mut request = Request::builder().method(method).uri(path);
        // Never shown, whoever prints the request.
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", self.token))
            .context("the token holds characters that no token has")?;
        authorization.set_sensitive(true);
        request = request.header(AUTHORIZATION, authorization);
        request = request.header(CONTENT_TYPE, "application/json");
        if let Some(reason) = &self.reason {
            request = request.header(rest::REASON, reason);
        }
        let request = request.body(body.map_or_else(Bytes::new, |body| body.to_string().into()))?;
        let (status, body) = match &self.target {
            Target::Running(server) => {
                let bounds = Bounds {
                    deadline: DEADLINE,
                    largest: LARGEST_ANSWER,
                };
                let answer = server
                    .send(request, bounds)
                    .await
                    .map_err(anyhow::Error::msg);
                answer.context("is the server's REST listener there? See --url")?
            }
            Target::Opened { router, .. } => {
                let mut request = request.map(Body::from);
                let host = HeaderValue::from_static("localhost");
                request.headers_mut().insert(HOST, host);
                request.extensions_mut().insert(Endpoint {
                    bound: NOWHERE,
                    local: NOWHERE,
                });
                let answer = router.clone().oneshot(request).await?;
                let status = answer.status();
                let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect();
                (
                    status,
                    body.await.map_err(|e| anyhow::anyhow!(e))?.to_bytes(),
                )
            }
        };
        let text = String::from_utf8_lossy(&body);
        if !matches!(status, StatusCode::OK | StatusCode::CREATED) {
            bail!("{method} {path}: {status}: {text}");
        }
        serde_json::from_str(&text).with_context(|| format!("{method} {path}: no JSON: {text}"))
    }

    /// Closes what was opened.
    pub async fn close(self) {
        if let Target::Opened { opened, .. } = self.target {
            opened.close().await;
        }
    }
}

fn admin_token(config: &Config, clock: &dyn Clock) -> anyhow::Result<String> {
    let key = TokenKey::read(&config.tokens.key, config.tokens.algorithm)?;
    let grant = Grant {
        subject: "cli".into(),
        role: Role::Admin,
        tenants: [].into(),
        projects: [].into(),
        user: None,
        container: None,
    };
    let id = uuid::Uuid::new_v4().to_string();
    Ok(key.issue(&grant, &id, clock.wall(), TOKEN_TTL_S)?)
}

// A listener on all addresses is reached by the loopback's.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let address = match listen.ip() {
        address if !address.is_unspecified() => address,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(address, listen.port())
}
