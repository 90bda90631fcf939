//! Parameters and methods that no honest client sends.

use gpuquota_tests::dialect::{DIALECTS, Dialect, LICENCES};
use gpuquota_tests::raw::{body, status};
use gpuquota_tests::server::Server;
use serde_json::Value;

use super::paths::raw;

pub(super) async fn case_27_pages_and_parameters(server: &Server) {
    let licences = |query: &str| format!("{LICENCES}?{query}");
    let resources = "/ai/openapi/v2/instance-service/resources";
    let mut asked = vec![
        (
            Dialect::Instance,
            400,
            format!("{resources}?resourceGroup=G&acceleratorType=gpu&resourceGroup=G"),
        ),
        (
            Dialect::Instance,
            400,
            format!("{resources}?resourceGroup=G&acceleratorType=gpu&acceleratorType=dcu"),
        ),
        (
            Dialect::Instance,
            400,
            format!("{resources}?resourceGroup=G&acceleratorType=tpu"),
        ),
        (
            Dialect::Instance,
            400,
            format!("{resources}?resourceGroup=g&acceleratorType=gpu"),
        ),
        (
            Dialect::Instance,
            400,
            format!("{resources}?resourceGroup=G"),
        ),
        (
            Dialect::Instance,
            400,
            format!("{resources}?resourceGroup=&acceleratorType=gpu"),
        ),
        (
            Dialect::QuotaSet,
            400,
            "/v1.0/pa/quota-sets/pa?resource=c4&resource=c4".to_owned(),
        ),
        (
            Dialect::Native,
            400,
            "/api/v1/seats?tenant=a&tenant=b".to_owned(),
        ),
        (
            Dialect::Native,
            400,
            "/api/v1/seats?software_product=-1".to_owned(),
        ),
    ];
    for page in ["0", "-1", "1000000000000000000", "2", "x", "1.0", ""] {
        asked.push((Dialect::Licence, 404, licences(&format!("page={page}"))));
    }
    for query in [
        "page=1&page=1",
        "page_size=0",
        "page_size=-1",
        "page_size=201",
        "page_size=1000000000",
        "tenant=2&tenant=3",
        "tenant=-1",
        "tenant=a",
        "software_product=1.0",
        "is_active=maybe",
        "expires_before=never",
        "expires_before=2026-13-01",
        "usage_rate_gte=-0.1",
        "usage_rate_gte=NaN",
        "usage_rate_gte=inf",
        "usage_rate_gte=1e400",
        "ordering=name",
        "ordering=--id",
        "ordering=id&ordering=id",
    ] {
        asked.push((Dialect::Licence, 400, licences(query)));
    }
    for query in [
        "page=0",
        "page=-1",
        "page=1000000000000000000",
        "page_size=1000000000",
        "quota_type=x&quota_type=x",
    ] {
        asked.push((
            Dialect::GpuQuota,
            400,
            format!("/api/v1/quota/user-quotas?{query}"),
        ));
    }
    for (dialect, wanted, path) in asked {
        let answer = dialect
            .caller(server, server.admin_token())
            .get(&path)
            .await;
        assert_eq!(answer.status, dialect.http(wanted), "{path} {answer:?}");
        dialect.expect(wanted, &answer);
    }
}

pub(super) async fn case_32_methods(server: &Server) {
    for dialect in DIALECTS {
        for method in ["TRACE", "CONNECT", "BREW", "OPTIONS"] {
            let answer = raw(
                server,
                dialect,
                &format!("{method} {}", dialect.reads()),
                "",
            )
            .await;
            assert!(!answer.contains(server.admin_token()), "{answer}");
            if method == "CONNECT" && status(&answer) == 400 {
                // HTTP's own: a target of CONNECT is a host.
                continue;
            }
            let seen: Value = serde_json::from_str(body(&answer)).unwrap();
            assert_eq!(status(&answer), 405, "{dialect:?} {method} {answer}");
            assert!(dialect.is_refusal(405, &seen), "{dialect:?} {answer}");
            assert!(
                answer.to_ascii_lowercase().contains("\r\nallow: get"),
                "{answer}"
            );
        }
        let caller = dialect.caller(server, server.admin_token());
        let get = caller.get(dialect.reads()).await;
        let head = caller.send("HEAD", dialect.reads(), &[], "").await;
        assert_eq!((head.status, head.text.as_str()), (200, ""));
        for name in ["content-type", "content-length"] {
            assert_eq!(head.header(name), get.header(name), "{dialect:?} {name}");
        }
    }
}

pub(super) async fn case_35_sql_and_regular_expressions(server: &Server) {
    let admin = |dialect: Dialect| dialect.caller(server, server.admin_token());
    for text in [
        "'%20OR%20'1'='1",
        "id;DROP%20TABLE%20journal;--",
        ".*",
        "%25",
        "id%20desc",
        "(id)",
        "*",
        "_",
    ] {
        for name in [
            "ordering",
            "tenant",
            "software_product",
            "is_active",
            "expires_before",
            "usage_rate_gte",
        ] {
            let path = format!("{LICENCES}?{name}={text}");
            Dialect::Licence.expect(400, &admin(Dialect::Licence).get(&path).await);
        }
        for name in ["quota_type", "quota_source"] {
            let path = format!("/api/v1/quota/user-quotas?{name}={text}");
            Dialect::GpuQuota.expect(400, &admin(Dialect::GpuQuota).get(&path).await);
        }
        let path = format!(
            "/ai/openapi/v2/instance-service/resources?resourceGroup=G{text}&acceleratorType=gpu"
        );
        Dialect::Instance.expect(400, &admin(Dialect::Instance).get(&path).await);
        // Filters that take any text take it as it is written.
        let path = format!("/v1.0/pa/quota-sets/pa?resource={text}");
        let answer = admin(Dialect::QuotaSet).get(&path).await;
        assert_eq!(
            (answer.status, &*answer.text),
            (200, r#"{"quota_set":[]}"#),
            "{text}"
        );
        let answer = admin(Dialect::Native)
            .get(&format!("/api/v1/seats?tenant={text}"))
            .await;
        assert_eq!(
            (answer.status, &*answer.text),
            (200, r#"{"seats":[]}"#),
            "{text}"
        );
    }
}
