//! The five dialects and the native API as a caller sees them: header, path, and the shape of a refusal.

use serde_json::{Value, json};

use crate::rest::{Answer, Carrier, Rest};
use crate::server::Server;

/// Whose words a path speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Document 000.
    GpuQuota,
    /// Document 001.
    Workspace,
    /// Document 002.
    Instance,
    /// Document 003.
    Licence,
    /// Document 004.
    QuotaSet,
    /// Our own.
    Native,
}

/// All of them.
pub const DIALECTS: [Dialect; 6] = [
    Dialect::GpuQuota,
    Dialect::Workspace,
    Dialect::Instance,
    Dialect::Licence,
    Dialect::QuotaSet,
    Dialect::Native,
];

/// The path of licence quotas.
pub const LICENCES: &str = "/api/v1/licenses/admin/quotas/";

impl Dialect {
    /// Where its callers put their token.
    #[must_use]
    pub fn carrier(self) -> Carrier {
        match self {
            Self::GpuQuota | Self::Licence | Self::Native => Carrier::Bearer,
            Self::Workspace | Self::QuotaSet => Carrier::XAuthToken,
            Self::Instance => Carrier::Token,
        }
    }

    /// What may be read of a server that [`stock`] filled.
    #[must_use]
    pub fn reads(self) -> &'static str {
        match self {
            Self::GpuQuota => "/api/v1/quota/user-quotas",
            Self::Workspace => "/v2/pa/quotas",
            Self::Instance => {
                "/ai/openapi/v2/instance-service/resources?resourceGroup=G&acceleratorType=gpu"
            }
            Self::Licence => LICENCES,
            Self::QuotaSet => "/v1.0/pa/quota-sets/pa",
            Self::Native => "/api/v1/tenants",
        }
    }

    /// Calls that write on a server that [`stock`] filled, each with a body that is taken.
    #[must_use]
    pub fn writes(self) -> Vec<(&'static str, &'static str, Value)> {
        let gpu = |num: u64| {
            let mut body = json!({"region": "default", "quota_source": "purchase", "gpu_model": "nvidia.com/gpu"});
            body["num"] = num.into();
            body
        };
        match self {
            Self::GpuQuota => vec![
                ("PUT", "/api/v1/quotas/a", gpu(4)),
                ("DELETE", "/api/v1/quotas/a", gpu(4)),
            ],
            Self::Licence => {
                let quota = json!({"tenant": 2, "software_product": 1, "max_licenses": 5});
                let patch = json!({"max_licenses": 9});
                vec![
                    ("POST", LICENCES, quota),
                    ("PATCH", "/api/v1/licenses/admin/quotas/1/", patch),
                ]
            }
            Self::Native => {
                let seat =
                    json!({"tenant": "a", "software_product": 1, "owner": "u", "ttl_seconds": 600});
                let product = json!({"name": "p", "code": "P"});
                let groups = json!({"resource_groups": ["G"]});
                vec![
                    ("PUT", "/api/v1/tenants/a", json!({"name": "A"})),
                    ("PUT", "/api/v1/nodes/n1", json!({"region": "default"})),
                    ("PUT", "/api/v1/regions/edge", json!({"site_id": "s1"})),
                    ("PUT", "/api/v1/resource-groups/G", json!({})),
                    ("PUT", "/api/v1/host-resources/c4", groups),
                    ("PUT", "/api/v1/models", json!({"gpu_model": "m"})),
                    ("PUT", "/api/v1/software-products/1", product),
                    (
                        "PUT",
                        "/api/v1/projects/pa/resources/users",
                        json!({"quota": 3}),
                    ),
                    ("POST", "/api/v1/seats", seat),
                ]
            }
            Self::Workspace | Self::Instance | Self::QuotaSet => Vec::new(),
        }
    }

    /// A caller of this dialect.
    #[must_use]
    pub fn caller(self, server: &Server, token: &str) -> Rest {
        Rest::new(server.rest, Some(token)).by(self.carrier())
    }

    /// Whether a body is this dialect's refusal with this meaning, whole and of no other shape.
    #[must_use]
    pub fn is_refusal(self, status: u16, body: &Value) -> bool {
        let Some(object) = body.as_object() else {
            return false;
        };
        let keys: Vec<&str> = object.keys().map(String::as_str).collect();
        let text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
        match self {
            Self::GpuQuota => {
                let code = body["code"].as_u64().map(|code| code / 100);
                keys == ["code", "message"] && code == Some(status.into()) && text(&body["message"])
            }
            Self::Workspace => {
                let code = body["error_code"].as_str().unwrap_or_default();
                let known = code.starts_with("WKS.") && code.len() == 12;
                keys == ["error_code", "error_msg"]
                    && known
                    && code.ends_with(&format!("{status:03}"))
                    && text(&body["error_msg"])
            }
            Self::Instance => {
                let codes: &[&str] = match status {
                    401 => &["10008"],
                    403 => &["10009"],
                    429 | 500.. => &["10001"],
                    _ => &["10003", "10004"],
                };
                let code = body["code"].as_str().unwrap_or_default();
                keys == ["code", "msg", "data"]
                    && codes.contains(&code)
                    && text(&body["msg"])
                    && body["data"].is_null()
            }
            Self::Licence => {
                keys == ["success", "code", "message", "errors"]
                    && body["success"] == false
                    && body["code"] == status
                    && text(&body["message"])
                    && body["errors"].is_object()
            }
            Self::QuotaSet => {
                keys == ["error_code", "error_msg", "message"]
                    && body["error_code"] == format!("DEH.{status:04}")
                    && text(&body["message"])
                    && body["error_msg"] == body["message"]
            }
            Self::Native => {
                let of_error = |key| text(&body["error"][key]);
                keys == ["error"] && of_error("kind") && of_error("message")
            }
        }
    }

    /// The HTTP status with which it says this.
    #[must_use]
    pub fn http(self, status: u16) -> u16 {
        match (self, status) {
            (Self::Instance, 400 | 401 | 403) => 200,
            _ => status,
        }
    }

    /// Fails unless this is the dialect's refusal with this meaning.
    #[track_caller]
    pub fn expect(self, status: u16, answer: &Answer) {
        assert_eq!(answer.status, self.http(status), "{self:?} {answer:?}");
        assert!(
            self.is_refusal(status, &answer.json()),
            "{self:?} {answer:?}"
        );
        let content_type = answer.header("content-type");
        assert!(
            content_type.starts_with("application/json"),
            "{self:?} {answer:?}"
        );
        assert!(
            !answer.header("x-request-id").is_empty(),
            "{self:?} {answer:?}"
        );
    }
}

/// Fills a server so that every dialect has something of tenants `a` (project `pa`) and `b` (`pb`) to show.
pub async fn stock(server: &Server) {
    let admin = server.admin();
    let quota = |tenant: u32| json!({"tenant": tenant, "software_product": 1, "max_licenses": 9});
    let node = json!({"region": "default", "resource_groups": ["G"], "inventory": {"cpu_cores": 4, "gpus": 2}});
    for (method, path, body) in [
        (
            "PUT",
            "/tenants/a",
            json!({"id": 2, "code": "A", "projects": ["pa"]}),
        ),
        (
            "PUT",
            "/tenants/b",
            json!({"id": 3, "code": "B", "projects": ["pb"]}),
        ),
        ("PUT", "/regions/edge", json!({"site_id": "s1"})),
        ("PUT", "/nodes/n1", node),
        ("PUT", "/resource-groups/G", json!({})),
        (
            "PUT",
            "/host-resources/c4",
            json!({"resource_groups": ["G"]}),
        ),
        (
            "PUT",
            "/software-products/1",
            json!({"name": "p", "code": "P"}),
        ),
        ("POST", "/licenses/admin/quotas/", quota(2)),
        ("POST", "/licenses/admin/quotas/", quota(3)),
    ] {
        let answer = admin.json(method, &format!("/api/v1{path}"), &body).await;
        assert!([200, 201].contains(&answer.status), "{path}: {answer:?}");
    }
    for tenant in ["a", "b"] {
        let body = crate::quota::purchase("default", 4);
        admin.put(tenant, body).await.expect_done();
    }
}
