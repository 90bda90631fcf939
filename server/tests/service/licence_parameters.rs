//! Parameters of the list of licence quotas (document 003) that are taken, and those that are not.

use gpuquota_server::config::Dialects;
use serde_json::Value;

use crate::licence::{Portal, QUOTAS};

#[tokio::test]
async fn case_27_and_35_parameters_that_are_not_taken_are_refused() {
    let portal = Portal::open(Dialects::default()).await;
    assert_eq!(
        portal.get(QUOTAS).await.1,
        r#"{"success":true,"data":{"count":0,"next":null,"previous":null,"results":[]}}"#
    );
    for (status, query) in [
        (200, "page=1"),
        (200, "page_size=1"),
        (200, "page_size=200"),
        (200, "tenant=77&software_product=0&unknown=x&unknown=y"),
        (200, "expires_before=2024-12-31T00:00:00%2B08:00"),
        (200, "usage_rate_gte=0.8"),
        (200, "usage_rate_gte=1.20"),
        (404, "page=0"),
        (404, "page=2"),
        (404, "page=-1"),
        (404, "page=1.0"),
        (404, "page=x"),
        (404, "page="),
        (404, "page=last"),
        (404, "page=1000000000000000000"),
        (404, "page=99999999999999999999999"),
        (400, "page=1&page=1"),
        (400, "page=0&page_size=0"),
        (400, "page_size=0"),
        (400, "page_size=-1"),
        (400, "page_size=201"),
        (400, "page_size=1000000000"),
        (400, "page_size="),
        (400, "tenant=1&tenant=1"),
        (400, "tenant=-1"),
        (400, "tenant=2147483648"),
        (400, "tenant=demo"),
        (400, "tenant="),
        (400, "software_product=1.0"),
        (400, "software_product=1%20OR%201=1"),
        (400, "is_active=yes"),
        (400, "is_active="),
        (400, "is_active=%FF"),
        (400, "expires_before=yesterday"),
        (400, "expires_before=2024-02-30"),
        (400, "usage_rate_gte=-0.1"),
        (400, "usage_rate_gte=NaN"),
        (400, "usage_rate_gte=inf"),
        (400, "usage_rate_gte=1e-1"),
        (400, "usage_rate_gte="),
        (400, "usage_rate_gte=80%25"),
        (400, "ordering="),
        (400, "ordering=name"),
        (400, "ordering=--id"),
        (400, "ordering=ID"),
        (400, "ordering=id,max_licenses"),
        (400, "ordering=id;DROP%20TABLE%20journal"),
        (400, "ordering=tenant__name"),
    ] {
        let (given, text) = portal.get(&format!("{QUOTAS}?{query}")).await;
        assert_eq!(given, status, "{query} {text}");
        let parameter = query.split('=').next().unwrap();
        let body: Value = serde_json::from_str(&text).unwrap();
        if status == 400 && !query.starts_with("page=0") {
            assert!(body["errors"][parameter][0].is_string(), "{query} {text}");
        }
    }
    portal.running.end().await;
}
