//! What the walk goes over: the real router and a real ledger with things of two tenants, `own` and `other`.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use gpuquota_core::Command;
use gpuquota_core::command::NodeReport;
use gpuquota_core::id::{NodeName, Region, SessionId, TenantName, Timestamp};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

use crate::auth::token::{Grant, TokenKey};
use crate::auth::{Authenticator, Limiter, Role};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::open::Opened;
use crate::rest::credential::Carrier;
use crate::rest::routes::{Dialect, Route};
use crate::rest::{Api, Endpoint, Kept, router};
use crate::service::Origin;
use crate::service::liveness::Liveness;

const TTL_S: i64 = 600;
const LISTENER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080));

/// Whose thing a path or body names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Of the tenant that tokens with a small role are for.
    Own,
    /// Of another tenant.
    Other,
    /// Not there at all.
    Nobodys,
}

/// One answer.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

/// Router and ledger.
pub(super) struct Ground {
    pub(super) router: Router,
    opened: Opened,
    key: TokenKey,
    clock: Arc<dyn Clock>,
    callers: AtomicU32,
    _dir: TempDir,
}

impl Ground {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("s");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        crate::init::init(&home, &["localhost".to_owned()], clock.wall())
            .await
            .unwrap();
        let config = Config::read(&home).unwrap();
        let opened = Opened::open(&home, &config, clock.clone()).await.unwrap();
        let key = || TokenKey::read(&config.tokens.key, config.tokens.algorithm).unwrap();
        let api = Api {
            ledger: opened.ledger.clone(),
            clock: clock.clone(),
            liveness: Arc::new(Liveness::new(0)),
            tokens: Arc::new(Authenticator::own(key())),
            dialects: config.dialects.clone(),
            limiter: Arc::new(Limiter::default()),
            kept: Kept::default(),
        };
        let ground = Self {
            router: router(Arc::new(api)),
            opened,
            key: key(),
            clock,
            callers: AtomicU32::new(1),
            _dir: dir,
        };
        ground.stock().await;
        ground
    }

    async fn stock(&self) {
        self.report_gpu().await;
        let admin = self.token(Role::Admin, "stock");
        let quota =
            |number: u32| json!({"tenant": number, "software_product": 1, "max_licenses": 9});
        let seat = |tenant: &str| json!({"tenant": tenant, "software_product": 1, "owner": "u", "ttl_seconds": 600});
        for (method, path, body) in [
            (
                "PUT",
                "/tenants/own",
                json!({"id": 2, "projects": ["own-project"]}),
            ),
            (
                "PUT",
                "/tenants/other",
                json!({"id": 3, "projects": ["other-project"]}),
            ),
            ("PUT", "/regions/own-region", json!({"site_id": "1"})),
            (
                "PUT",
                "/nodes/own-node",
                json!({"region": "own-region", "resource_groups": ["own-group"]}),
            ),
            ("PUT", "/resource-groups/own-group", json!({})),
            (
                "PUT",
                "/host-resources/own-host",
                json!({"resource_groups": ["own-group"]}),
            ),
            (
                "PUT",
                "/software-products/1",
                json!({"name": "p", "code": "P"}),
            ),
            (
                "PUT",
                "/software-products/5",
                json!({"name": "q", "code": "Q"}),
            ),
            ("PUT", "/quotas/own", quota_of("own-region")),
            ("PUT", "/quotas/other", quota_of("own-region")),
            (
                "PUT",
                "/projects/own-project/resources/users",
                json!({"quota": 3, "used": 1}),
            ),
            (
                "PUT",
                "/projects/other-project/resources/users",
                json!({"quota": 3, "used": 1}),
            ),
            ("POST", "/licenses/admin/quotas/", quota(2)),
            ("POST", "/licenses/admin/quotas/", quota(3)),
            ("POST", "/seats", seat("own")),
            ("POST", "/seats", seat("other")),
            ("POST", "/leases", lease_of("own")),
            ("POST", "/leases", lease_of("other")),
        ] {
            let headers = [("authorization", format!("Bearer {admin}"))];
            let path = format!("/api/v1{path}");
            let seen = self.send(method, &path, &headers, &body.to_string()).await;
            assert!(
                [200, 201].contains(&seen.status),
                "{method} {path}: {seen:?}"
            );
        }
    }

    // What only an agent can say.
    async fn report_gpu(&self) {
        let node = NodeName::new("heard-node").unwrap();
        let open = Command::OpenSession {
            node: node.clone(),
            default_region: Region::new("own-region").unwrap(),
            boot_id: "b".into(),
            agent_version: "1".into(),
        };
        let device = json!({"key": "GPU-own", "health": "ok", "model": "m", "gpu_model": "m"});
        let report = Command::Report(NodeReport {
            node,
            session: SessionId(1),
            spool: "s".into(),
            number: 1,
            age_ms: None,
            heard_at: None,
            read_after: None,
            full: true,
            facts: None,
            devices: vec![serde_json::from_value(device).unwrap()],
            gone: Vec::new(),
        });
        for command in [open, report] {
            let ledger = &self.opened.ledger;
            ledger.submit(command, Origin::server()).await.unwrap();
        }
    }

    /// A token of this role; those that are not admin's are for tenant `own`.
    pub(super) fn token(&self, role: Role, id: &str) -> String {
        self.issue(role, id, self.clock.wall())
    }

    /// An admin's token that ended an hour ago.
    pub(super) fn ended(&self) -> String {
        let then = Timestamp(self.clock.wall().0 - 1000 * (3600 + TTL_S));
        self.issue(Role::Admin, "ended", then)
    }

    fn issue(&self, role: Role, id: &str, now: Timestamp) -> String {
        let tenants = match role {
            Role::Admin => vec![],
            Role::TenantAdmin | Role::Viewer => vec![TenantName::new("own").unwrap()],
        };
        let grant = Grant {
            subject: id.into(),
            role,
            tenants: tenants.into_iter().collect(),
            projects: [].into(),
            user: None,
            container: None,
        };
        self.key.issue(&grant, id, now, TTL_S).unwrap()
    }

    /// The journal's last row.
    pub(super) fn seq(&self) -> u64 {
        self.opened.ledger.read().state.seq().0
    }

    /// Sends it from an address of its own, so that wrong tokens stay within their budget.
    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: &str,
    ) -> Seen {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(HOST, LISTENER.to_string());
        request = request.header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let mut request = request.body(Body::from(body.to_owned())).unwrap();
        let from = self.callers.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let address = SocketAddr::from((from, 1));
        request.extensions_mut().insert(ConnectInfo(address));
        request.extensions_mut().insert(Endpoint {
            bound: LISTENER,
            local: LISTENER,
        });
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        Seen {
            status,
            headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    /// Calls a route about somebody's thing with a token in its own header.
    pub(super) async fn call(&self, route: &Route, whose: Whose, token: &str) -> Seen {
        let headers = [carried(route.dialect.carrier(), token)];
        self.about(route, whose, &headers).await
    }

    /// Calls a route about somebody's thing with these headers.
    pub(super) async fn about(
        &self,
        route: &Route,
        whose: Whose,
        headers: &[(&str, String)],
    ) -> Seen {
        let path = path_of(route, whose);
        let body = body_of(route, whose);
        self.send(route.method.as_str(), &path, headers, &body)
            .await
    }

    pub(super) async fn close(self) {
        self.opened.close().await;
    }
}

/// A token in a header.
pub(super) fn carried(carrier: Carrier, token: &str) -> (&'static str, String) {
    match carrier {
        Carrier::Bearer => ("authorization", format!("Bearer {token}")),
        Carrier::XAuthToken => ("x-auth-token", token.to_owned()),
        Carrier::Token => ("token", token.to_owned()),
    }
}

fn quota_of(region: &str) -> Value {
    json!({"region": region, "quota_source": "purchase", "gpu_model": "nvidia.com/gpu", "num": 4})
}

fn lease_of(tenant: &str) -> Value {
    json!({"tenant": tenant, "region": "own-region", "gpu_model": "nvidia.com/gpu", "count": 1, "placement": "count_only"})
}

/// The route's path about somebody's thing, with the query that it needs.
pub(super) fn path_of(route: &Route, whose: Whose) -> String {
    let word = match whose {
        Whose::Own => "own",
        Whose::Other => "other",
        Whose::Nobodys => "nobodys",
    };
    // Pools have no owner: an admin's route, or one that is there or not.
    let pool = if whose == Whose::Nobodys {
        "nobodys"
    } else {
        "own"
    };
    // Quotas are numbered from 0.
    let number = match (whose, route.path) {
        (Whose::Nobodys, _) => "999",
        (_, path) if path.contains("products") => "5",
        (Whose::Own, path) if path.contains("entitlements") => "0",
        (Whose::Other, path) if path.contains("entitlements") => "1",
        (Whose::Own, _) => "1",
        (Whose::Other, _) => "2",
    };
    let mut path = route.path.to_owned();
    for (name, value) in [
        ("{tenant}", word.to_owned()),
        ("{project_id}", format!("{word}-project")),
        ("{tenant_id}", format!("{word}-project")),
        ("{project}", format!("{word}-project")),
        ("{id}", number.to_owned()),
        ("{name}", format!("{pool}-node")),
        ("{region}", format!("{pool}-region")),
        ("{group}", format!("{pool}-group")),
        ("{resource}", format!("{pool}-host")),
        ("{accelerator}", "gpu".to_owned()),
        ("{type}", "users".to_owned()),
        ("{uuid}", format!("GPU-{pool}")),
        ("{file}", "start.js".to_owned()),
    ] {
        path = path.replace(name, &value);
    }
    assert!(!path.contains('{'), "the walk knows no value for {path}");
    if route.dialect == Dialect::Instance {
        path += "?resourceGroup=own-group&acceleratorType=gpu";
    } else if route.path == "/api/v1/models" && route.method == Method::DELETE {
        path += "?gpu_model=m";
    } else if route.path == "/api/v1/bans" && route.method == Method::DELETE {
        path += "?node=own-node";
    } else if route.path.contains("{uuid}") {
        path += "?force=true";
    }
    path
}

/// A body that the route takes.
fn body_of(route: &Route, whose: Whose) -> String {
    let (tenant, number) = match whose {
        Whose::Own => ("own", 2),
        Whose::Other => ("other", 3),
        Whose::Nobodys => ("nobodys", 999),
    };
    let body = match (route.method.as_str(), route.path) {
        ("GET", _) => return String::new(),
        (_, "/api/v1/quotas/{tenant}") => quota_of("own-region"),
        ("POST", "/api/v1/licenses/admin/quotas/") => {
            json!({"tenant": number, "software_product": 1, "max_licenses": 9})
        }
        (_, "/api/v1/entitlements/{id}/enforcement") => json!({"enforcement": {"mode": "warn"}}),
        ("PATCH", "/api/v1/entitlements/{id}") => json!({"is_active": true}),
        ("PATCH", _) => json!({"max_licenses": 8}),
        (_, "/api/v1/nodes/{name}") => json!({"region": "own-region"}),
        (_, "/api/v1/tenants/{tenant}/host-limits/{resource}") => json!({"hard_limit": 5}),
        (_, "/api/v1/resource-groups/{group}/card-limits/{accelerator}") => json!({"cards": 1}),
        (_, "/api/v1/host-resources/{resource}") => json!({"resource_groups": ["own-group"]}),
        (_, "/api/v1/models") => json!({"gpu_model": "m"}),
        (_, "/api/v1/software-products/{id}") => json!({"name": "q", "code": "Q"}),
        (_, "/api/v1/projects/{project}/resources/{type}") => json!({"quota": 4}),
        (_, "/api/v1/seats") => {
            json!({"tenant": tenant, "software_product": 1, "owner": "u", "ttl_seconds": 600})
        }
        (_, "/api/v1/leases") => lease_of(tenant),
        (_, "/api/v1/seats/{id}/renew" | "/api/v1/leases/{id}/renew") => {
            json!({"ttl_seconds": 700})
        }
        (_, "/api/v1/tenants/{tenant}/enforcement/confirmation")
        | (_, "/api/v1/unattributed/enforcement/confirmation") => json!({"for_seconds": 1}),
        (_, "/api/v1/nodes/{name}/join-tokens") => json!({"sha256": "0".repeat(64)}),
        (_, "/api/v1/bans") => json!({"node": "own-node"}),
        (_, "/api/v1/tokens/revoke") => json!({"token": "x"}),
        _ => json!({}),
    };
    body.to_string()
}
