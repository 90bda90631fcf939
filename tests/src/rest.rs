//! A well-behaved REST caller.

use std::net::SocketAddr;

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::quota::Quotas;

/// One answer, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub text: String,
}

impl Answer {
    /// A header's text, empty when absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Fails unless this is the GPU quota dialect's error with this code, in its exact shape.
    #[track_caller]
    pub fn expect_code(&self, code: u16, detail: u16) -> &Self {
        let body = self.json();
        let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["code", "message"], "{self:?}");
        let expected = u64::from(code) * 100 + u64::from(detail);
        assert_eq!(
            (self.status, &body["code"]),
            (code, &json!(expected)),
            "{self:?}"
        );
        assert!(!body["message"].as_str().unwrap().is_empty(), "{self:?}");
        self.expect_common()
    }

    /// Fails unless this is the dialect's success to a PUT or DELETE, to the letter.
    #[track_caller]
    pub fn expect_done(&self) -> &Self {
        assert_eq!(
            (self.status, self.text.as_str()),
            (200, r#"{"code":0}"#),
            "{self:?}"
        );
        self.expect_common()
    }

    // What every answer has (D0.2, D0.10).
    #[track_caller]
    fn expect_common(&self) -> &Self {
        assert!(
            self.header("content-type").starts_with("application/json"),
            "{self:?}"
        );
        assert!(!self.header("x-request-id").is_empty(), "{self:?}");
        self
    }
}

/// Where a caller puts its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// `Authorization: Bearer TOKEN`.
    Bearer,
    /// `X-Auth-Token: TOKEN`.
    XAuthToken,
    /// `token: TOKEN`.
    Token,
}

impl Carrier {
    /// Name and value of the header.
    #[must_use]
    pub fn header(self, token: &str) -> (&'static str, String) {
        match self {
            Self::Bearer => ("Authorization", format!("Bearer {token}")),
            Self::XAuthToken => ("X-Auth-Token", token.to_owned()),
            Self::Token => ("token", token.to_owned()),
        }
    }
}

/// A caller with one token.
#[derive(Clone, Debug)]
pub struct Rest {
    carrier: Carrier,
    client: reqwest::Client,
    address: SocketAddr,
    token: Option<String>,
}

impl Rest {
    /// A caller of this listener.
    #[must_use]
    pub fn new(address: SocketAddr, token: Option<&str>) -> Self {
        Self {
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            address,
            token: token.map(ToOwned::to_owned),
            carrier: Carrier::Bearer,
        }
    }

    /// The same caller with its token elsewhere.
    #[must_use]
    pub fn by(self, carrier: Carrier) -> Self {
        Self { carrier, ..self }
    }

    /// The same caller from another address of the loopback network.
    #[must_use]
    pub fn from(self, address: [u8; 4]) -> Self {
        let client = reqwest::Client::builder().no_proxy();
        let client = client.local_address(std::net::IpAddr::from(address));
        Self {
            client: client.build().unwrap(),
            ..self
        }
    }

    /// A request with these headers besides the token; fails when there is no answer.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Result<Answer, String> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self
            .client
            .request(method, format!("http://{}{path}", self.address));
        if let Some(token) = &self.token {
            let (name, value) = self.carrier.header(token);
            request = request.header(name, value);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request
            .body(body)
            .send()
            .await
            .map_err(|e| format!("{e:?}"))?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await.map_err(|e| format!("{e:?}"))?;
        Ok(Answer {
            status,
            headers,
            text,
        })
    }

    /// A request with these headers besides the token.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let answer = self.try_send(method, path, headers, body).await;
        answer.unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// A request with a JSON body.
    pub async fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.send(method, path, &json, body.to_string()).await
    }

    /// PUT of a quota.
    pub async fn put(&self, tenant: &str, body: Value) -> Answer {
        let path = format!("/api/v1/quotas/{tenant}");
        self.json("PUT", &path, &body).await
    }

    /// DELETE of a quota.
    pub async fn delete(&self, tenant: &str, body: Value) -> Answer {
        let path = format!("/api/v1/quotas/{tenant}");
        self.json("DELETE", &path, &body).await
    }

    /// GET without a body.
    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    /// One page of quotas with this query string.
    pub async fn list(&self, query: &str) -> Answer {
        self.get(&format!("/api/v1/quota/user-quotas{query}")).await
    }

    /// All quotas of up to 100 tenants.
    pub async fn quotas(&self) -> Quotas {
        let answer = self.list("?page_size=100").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Quotas::read(&answer.json())
    }

    /// What the server knows of a node, or null.
    pub async fn node(&self, name: &str) -> Value {
        let answer = self.get("/api/v1/nodes").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let body = answer.json();
        let nodes = body["nodes"].as_array().unwrap();
        nodes
            .iter()
            .find(|node| node["name"] == name)
            .cloned()
            .unwrap_or(Value::Null)
    }
}
