//! Paths, hosts and line breaks that no honest client sends.

use gpuquota_tests::dialect::{DIALECTS, Dialect, LICENCES};
use gpuquota_tests::raw::{body, exchange, status};
use gpuquota_tests::server::Server;
use serde_json::{Value, json};

// One raw request with the admin's token where the dialect reads it.
pub(super) async fn raw(server: &Server, dialect: Dialect, line: &str, extra: &str) -> String {
    let (name, value) = dialect.carrier().header(server.admin_token());
    let request = format!(
        "{line} HTTP/1.1\r\nHost: {}\r\n{name}: {value}\r\n{extra}Connection: close\r\n\r\n",
        server.rest
    );
    exchange(server.rest, request.as_bytes()).await
}

pub(super) async fn case_28_paths(server: &Server) {
    let long = "a".repeat(8 * 1024);
    let name = "a".repeat(256);
    let segments = [
        "%2e%2e",
        "%2e",
        "..",
        ".",
        "pa%2F..",
        "%2e%2e%2fpa",
        "%2570a",
        "%252e%252e",
        "pa%00",
        "pa%0d%0aX-Evil:%201",
        "%ff",
        "%c0%ae",
        "%",
        "pa%2",
        "pa%zz",
        "pa;x=1",
        "pa%20",
        "%E4%BA%91",
        "",
        "/pa",
        "//pa",
        "pa\\..\\pb",
        "x/../pa",
        &long,
        &name,
    ];
    let patterns = [
        (Dialect::Workspace, "/v2/#/quotas"),
        (Dialect::Workspace, "/v2/pa/#/quotas"),
        (Dialect::QuotaSet, "/v1.0/#/quota-sets/pa"),
        (Dialect::QuotaSet, "/v1.0/pa/quota-sets/#"),
        (Dialect::Licence, "/api/v1/licenses/admin/quotas/x#/"),
        (Dialect::Native, "/api/v1/tenants/#"),
        (Dialect::Native, "/api/v1/projects/#/resources"),
    ];
    for (dialect, pattern) in patterns {
        for segment in segments {
            let path = pattern.replace('#', segment);
            let list = ["/api/v1/tenants/", "/v1.0/pa/quota-sets/"];
            let answer = raw(server, dialect, &format!("GET {path}"), "").await;
            let known = [400, 404].contains(&status(&answer));
            assert!(known, "{path}: {answer}");
            assert!(!answer.contains("\r\nX-Evil"), "{answer}");
            let seen: Value = serde_json::from_str(body(&answer)).unwrap_or(Value::Null);
            let shaped = dialect.is_refusal(status(&answer), &seen);
            // What leaves the family on its way is another's 404.
            assert!(
                shaped || list.contains(&&*path) || path.contains(".."),
                "{path}: {answer}"
            );
        }
    }
    for id in [
        "0",
        "01",
        "+1",
        "-1",
        "1.0",
        "1%00",
        "1%20",
        "99999999999999999999",
        "%EF%BC%91",
        "1,2",
        "1/1",
    ] {
        let answer = raw(
            server,
            Dialect::Licence,
            &format!("GET {LICENCES}{id}/"),
            "",
        )
        .await;
        let seen: Value = serde_json::from_str(body(&answer)).unwrap();
        assert_eq!(status(&answer), 404, "{id} {answer}");
        assert!(Dialect::Licence.is_refusal(404, &seen), "{id} {answer}");
    }
    // Decoded once it is the thing's own name.
    for (dialect, path) in [
        (Dialect::Workspace, "/v2/%70a/quotas"),
        (Dialect::QuotaSet, "/v1.0/p%61/quota-sets/%70a"),
        (Dialect::Licence, "/api/v1/licenses/admin/quotas/%31/"),
    ] {
        let answer = raw(server, dialect, &format!("GET {path}"), "").await;
        assert_eq!(status(&answer), 200, "{path} {answer}");
    }
}

pub(super) async fn case_30_a_forged_host(server: &Server) {
    let path = format!("{LICENCES}?page_size=1");
    let forwarded = "X-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\n";
    let answer = raw(server, Dialect::Licence, &format!("GET {path}"), forwarded).await;
    let seen: Value = serde_json::from_str(body(&answer)).unwrap();
    let next = format!("http://{}{path}&page=2", server.rest);
    assert_eq!(seen["data"]["next"], json!(next), "{answer}");
    for host in [
        "evil.example",
        "evil.example:80",
        "localhost",
        "localhost:1",
        "",
    ] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            server.admin_token()
        );
        let answer = exchange(server.rest, request.as_bytes()).await;
        assert_eq!(status(&answer), 400, "{host} {answer}");
        assert!(!answer.contains("evil"), "{answer}");
        let seen: Value = serde_json::from_str(body(&answer)).unwrap();
        assert!(Dialect::Licence.is_refusal(400, &seen), "{answer}");
    }
    // Every other answer is the same whatever host was called.
    for dialect in DIALECTS {
        if dialect == Dialect::Licence {
            continue;
        }
        let headers = [
            ("Host", "evil.example"),
            ("X-Forwarded-Host", "evil.example"),
        ];
        let caller = dialect.caller(server, server.admin_token());
        let forged = caller.send("GET", dialect.reads(), &headers, "").await;
        assert_eq!(forged.text, caller.get(dialect.reads()).await.text);
    }
}

pub(super) async fn case_31_line_breaks(server: &Server) {
    let evil = "%0d%0aX-Evil:%201%0d%0a";
    for (dialect, path) in [
        (Dialect::Workspace, format!("/v2/pa{evil}/quotas")),
        (
            Dialect::QuotaSet,
            format!("/v1.0/pa/quota-sets/pa?resource=c4{evil}"),
        ),
        (
            Dialect::Instance,
            format!(
                "/ai/openapi/v2/instance-service/resources?resourceGroup=G{evil}&acceleratorType=gpu"
            ),
        ),
        (Dialect::Licence, format!("{LICENCES}?ordering=id{evil}")),
        (Dialect::Licence, format!("{LICENCES}?page_size=1&x={evil}")),
        (Dialect::Licence, format!("{LICENCES}{evil}/")),
        (Dialect::Native, format!("/api/v1/seats?tenant=a{evil}")),
        (
            Dialect::GpuQuota,
            format!("/api/v1/quota/user-quotas?quota_type=mig{evil}"),
        ),
    ] {
        let answer = raw(
            server,
            dialect,
            &format!("GET {path}"),
            &format!("X-Request-Id: a{evil}\r\n"),
        )
        .await;
        assert!(
            status(&answer) != 0 && !answer.to_ascii_lowercase().contains("\nx-evil"),
            "{answer}"
        );
        assert!(
            !answer.contains("\u{2028}") && !body(&answer).contains('\n'),
            "{answer}"
        );
    }
    let admin = server.admin();
    for (path, body) in [
        ("/api/v1/tenants/a", json!({"name": "A\r\nX-Evil: 1"})),
        ("/api/v1/tenants/a", json!({"code": "A\n"})),
        ("/api/v1/tenants/a", json!({"projects": ["pa\r\n"]})),
        ("/api/v1/regions/edge", json!({"site_id": "s1\n"})),
        ("/api/v1/regions/ed%0age", json!({})),
        ("/api/v1/nodes/n1", json!({"region": "de\r\nfault"})),
        ("/api/v1/models", json!({"gpu_model": "m\n"})),
        (
            "/api/v1/software-products/1",
            json!({"name": "p\u{0}", "code": "P"}),
        ),
        (
            "/api/v1/projects/pa/resources/users%0a",
            json!({"quota": 1}),
        ),
        (
            "/api/v1/projects/pa/resources/users",
            json!({"quota": 1, "unit": "G\r\nB"}),
        ),
    ] {
        let answer = admin.json("PUT", path, &body).await;
        assert_eq!(answer.status, 400, "{path} {body} {answer:?}");
        Dialect::Native.expect(400, &answer);
    }
    let log = server.process.as_ref().unwrap().log();
    assert!(
        !log.iter().any(|line| line.starts_with("X-Evil")),
        "{log:?}"
    );
}
