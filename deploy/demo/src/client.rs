//! The demo as a client: REST with a token, and scrapes.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

use crate::exposition::Scrape;

const PATIENCE: Duration = Duration::from_secs(2);

/// Calls without a proxy, whatever the environment says: everything is on this machine.
pub(crate) fn http() -> Result<Client> {
    let client = Client::builder().no_proxy().timeout(PATIENCE);
    client.build().context("cannot make an HTTP client")
}

/// The server's REST listener.
#[derive(Clone, Debug)]
pub(crate) struct Rest {
    /// Makes the calls.
    pub(crate) http: Client,
    /// `http://host:port`.
    pub(crate) url: String,
    /// An administrator's token.
    pub(crate) token: String,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// JSON body.
    pub(crate) body: Value,
}

impl Rest {
    /// All quotas as the GPU quota dialect lists them.
    pub(crate) async fn quotas(&self) -> Result<Value> {
        self.get("/api/v1/quota/user-quotas?page_size=100").await
    }

    /// All nodes with their devices.
    pub(crate) async fn nodes(&self) -> Result<Value> {
        self.get("/api/v1/nodes").await
    }

    /// Sets a tenant's quota.
    pub(crate) async fn put_quota(&self, tenant: &str, body: &Value) -> Result<Answer> {
        let path = format!("/api/v1/quotas/{tenant}");
        self.call(Method::PUT, &path, Some(body)).await
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.call(Method::GET, path, None).await?;
        if answer.status != StatusCode::OK.as_u16() {
            bail!("GET {path}: {} {}", answer.status, answer.body);
        }
        Ok(answer.body)
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let url = format!("{}{path}", self.url);
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let body = response.json().await?;
        Ok(Answer { status, body })
    }
}

/// One scrape of a metrics listener.
pub(crate) async fn scrape(http: &Client, url: &str) -> Result<Scrape> {
    let response = http.get(url).send().await?.error_for_status()?;
    Ok(Scrape::parse(&response.text().await?))
}
