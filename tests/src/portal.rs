//! What a provider's portals and their clients meet: a server over HTTPS with two tenants, nodes, hosts and licences.

use std::path::PathBuf;

use gpuquota_proto::agent_v1::{NodeFacts, Report};
use serde_json::{Value, json};

use crate::quota::{GPU, purchase, quota, with};
use crate::server::{Server, edit};
use crate::session::{Session, full, gpu};

const HTTPS: (&str, &str) = (
    "# certificate = \"server.crt\"\n# key = \"server.key\"\n# Off",
    "certificate = \"server.crt\"\nkey = \"server.key\"\n# Off",
);
/// 31888 MiB.
const MEMORY_BYTES: u64 = 31_888 * 1024 * 1024;

/// The project of tenant `demo`.
pub const PROJECT: &str = "06524f2bb980d2922fa1c00e4a8d3b2c";
/// The project of tenant `other`.
pub const FOREIGN_PROJECT: &str = "b197bc5f99d44391aee2f5ba45capoi8";
/// The key pair of tenant `demo`.
pub const ACCESS_KEY: (&str, &str) = (
    "DEMOACCESSKEY0000001",
    "a-secret-of-forty-characters-for-clients",
);

/// The server, its address, and the nodes that are connected to it.
#[derive(Debug)]
pub struct Portal {
    /// The server; its REST listener speaks HTTPS.
    pub server: Server,
    /// Scheme, host and port.
    pub url: String,
    /// What clients must trust.
    pub ca: PathBuf,
    _nodes: [Session; 2],
}

impl Portal {
    /// Loads it through the native API and the dialects that write, then goes over to HTTPS.
    pub async fn open() -> Self {
        let mut server = Server::start().await;
        load(&server).await;
        server.stop().await;
        let config = server.dir.join("server.toml");
        edit(&config, &[HTTPS]);
        let (id, secret) = ACCESS_KEY;
        std::fs::write(server.dir.join("demo.secret"), secret).unwrap();
        let key = format!(
            "\n[[tokens.access_key]]\nid = \"{id}\"\nsecret_file = \"demo.secret\"\nsubject = \"demo\"\n\
             role = \"viewer\"\ntenants = [\"demo\"]\nprojects = [\"{PROJECT}\"]\n"
        );
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text + &key).unwrap();
        server.serve().await;
        let mut shared = Session::of(&server, "n1").await;
        shared
            .acked(report(vec![gpu("GPU-1", &["demo"]), gpu("GPU-2", &[])]))
            .await;
        let mut bound = Session::of(&server, "n2").await;
        bound.acked(report(vec![gpu("GPU-3", &[])])).await;
        Self {
            url: format!("https://localhost:{}", server.rest.port()),
            ca: server.dir.join("ca.crt"),
            server,
            _nodes: [shared, bound],
        }
    }

    /// What every script of `tests/python` is asked, and `more`.
    #[must_use]
    pub fn asked(&self, more: Value) -> Value {
        let mut asked = json!({"url": self.url, "ca": self.ca});
        let more = more.as_object().unwrap().clone();
        asked.as_object_mut().unwrap().extend(more);
        asked
    }

    /// A token for tenant `demo` and its project.
    #[must_use]
    pub fn token(&self) -> String {
        let args = ["--role", "viewer", "--tenant", "demo", "--project", PROJECT];
        self.server.token(&args)
    }
}

fn report(devices: Vec<gpuquota_proto::agent_v1::DeviceState>) -> Report {
    Report {
        facts: Some(NodeFacts {
            cpu_cores: Some(40),
            memory_bytes: Some(MEMORY_BYTES),
            nvml: "ok".to_owned(),
            ..NodeFacts::default()
        }),
        ..full(1, devices)
    }
}

async fn load(server: &Server) {
    let admin = server.admin();
    let put = async |path: &str, body: Value| {
        let json = [("content-type", "application/json")];
        let answer = admin
            .send("PUT", &format!("/api/v1{path}"), &json, body.to_string())
            .await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    };
    let demo = json!({"id": 2, "name": "示例公司", "code": "DEMO_COMPANY", "projects": [PROJECT]});
    put("/tenants/demo", demo).await;
    let other = json!({"id": 3, "name": "Other", "code": "OTHER", "projects": [FOREIGN_PROJECT]});
    put("/tenants/other", other).await;
    put("/regions/edge", json!({"site_id": "147258369"})).await;
    for (node, group) in [("n1", "TeslaM40"), ("n2", "C4")] {
        let body = json!({"region": "default", "resource_groups": [group]});
        put(&format!("/nodes/{node}"), body).await;
    }
    put(
        "/resource-groups/TeslaM40",
        json!({"max_time": "1-02:03:04"}),
    )
    .await;
    let limit = json!({"tenant": "demo", "cards": 1});
    put("/resource-groups/TeslaM40/card-limits/gpu", limit).await;
    put("/host-resources/c4", json!({"resource_groups": ["C4"]})).await;
    put("/host-resources/m4", json!({"resource_groups": ["M4"]})).await;
    put("/tenants/demo/host-limits/c4", json!({"hard_limit": 5})).await;
    put("/tenants/demo/host-limits/m4", json!({"hard_limit": -1})).await;
    for (kind, body) in [
        ("general_instances", json!({"quota": 500, "used": 12})),
        (
            "volume_gigabytes",
            json!({"quota": 4096, "used": 100, "unit": "GB"}),
        ),
        (
            "users",
            json!({"quota": 7, "used": 3, "site_id": "147258369"}),
        ),
    ] {
        put(&format!("/projects/{PROJECT}/resources/{kind}"), body).await;
    }
    admin
        .put("demo", purchase("default", 8))
        .await
        .expect_done();
    let bound = with(
        quota("default", "assign", GPU, 2),
        "node_name",
        json!(["n2"]),
    );
    admin.put("demo", bound).await.expect_done();
    let product = json!({"name": "MyApplication Pro", "code": "MYAPP_PRO"});
    put("/software-products/1", product).await;
    let post = async |path: &str, body: Value| {
        let json = [("content-type", "application/json")];
        let answer = admin
            .send("POST", &format!("/api/v1{path}"), &json, body.to_string())
            .await;
        assert_eq!(answer.status, 201, "{path}: {answer:?}");
    };
    let quota = json!({"tenant": 2, "software_product": 1, "max_licenses": 10});
    post("/licenses/admin/quotas/", quota).await;
    for number in 0..9 {
        let seat = json!({"tenant": "demo", "software_product": 1, "owner": format!("u{number}"), "ttl_seconds": 3600});
        post("/seats", seat).await;
    }
}
