//! GET of the GPU quota dialect: filters, pages, order, and what is shown (D1.10 to D1.14).

use gpuquota_tests::quota::{GPU, purchase, quota, with};
use gpuquota_tests::server::Server;
use serde_json::{Value, json};

fn tenants(answer: &Value) -> Vec<&str> {
    let items = answer["data"]["items"].as_array().unwrap();
    let mut names: Vec<&str> = items
        .iter()
        .map(|item| item["tenant_name"].as_str().unwrap())
        .collect();
    names.dedup();
    names
}

#[tokio::test]
async fn a_page_is_cut_between_tenants_in_the_order_of_creation() {
    let server = Server::start().await;
    let admin = server.admin();
    // Not in alphabetical order, and each with more than one item.
    for tenant in ["m", "z", "a", "k", "b"] {
        for model in [GPU, "tyui-3", "nvidia.com/mig-1g.10gb"] {
            admin
                .put(tenant, quota("TW", "assign", model, 1))
                .await
                .expect_done();
        }
    }
    let page = async |query: &str| admin.list(query).await.json();
    for (number, expected) in [(1, vec!["m", "z"]), (2, vec!["a", "k"]), (3, vec!["b"])] {
        let answer = page(&format!("?page={number}&page_size=2")).await;
        let data = &answer["data"];
        assert_eq!(tenants(&answer), expected);
        assert_eq!(data["items"].as_array().unwrap().len(), expected.len() * 3);
        assert_eq!(
            (&data["total"], &data["page"], &data["page_size"]),
            (&json!(5), &json!(number), &json!(2))
        );
    }
    let beyond = page("?page=4&page_size=2").await;
    assert_eq!(
        (&beyond["data"]["total"], &beyond["data"]["items"]),
        (&json!(5), &json!([]))
    );
    let far = page("?page=2147483647&page_size=100").await;
    assert_eq!(far["data"]["items"], json!([]));
    // A change keeps a tenant's place.
    admin
        .put("m", quota("TW", "assign", GPU, 7))
        .await
        .expect_done();
    assert_eq!(tenants(&page("").await), ["m", "z", "a", "k", "b"]);
    let default = page("").await;
    assert_eq!(
        (&default["data"]["page"], &default["data"]["page_size"]),
        (&json!(1), &json!(10))
    );
}

#[tokio::test]
async fn case_27_filters_and_pages_that_are_none_are_refused() {
    let server = Server::start().await;
    let admin = server.admin();
    let bad = [
        "page=0",
        "page=-1",
        "page=1000000000000000000",
        "page=+1",
        "page=1.0",
        "page=",
        "page=x",
        "page_size=0",
        "page_size=101",
        "page_size=1000000000",
        "page=1&page=1",
        "page=1&page=2",
        "quota_source=gift",
        "quota_source=",
        "quota_source=purchase&quota_source=purchase",
        "quota_type=Flexible",
        "quota_type=%27%20OR%201%3D1",
        "quota_type=.*",
    ];
    for query in bad {
        admin.list(&format!("?{query}")).await.expect_code(400, 3);
    }
    for body in [
        json!({"page": 0}),
        json!({"page": "1"}),
        json!({"page_size": 101}),
        json!({"page": 1.5}),
        json!({"quota_source": "gift"}),
        json!({"quota_type": 3}),
        json!({"quota_type": ["mig"]}),
    ] {
        let answer = admin
            .send("GET", "/api/v1/quota/user-quotas", &[], body.to_string())
            .await;
        answer.expect_code(400, 3);
    }
}

#[tokio::test]
async fn filters_count_in_query_and_body_and_prune_what_is_empty() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.put("a", purchase("TW", 1)).await.expect_done();
    admin
        .put("a", quota("TW", "assign", GPU, 2))
        .await
        .expect_done();
    let dedicated = with(quota("TW", "assign", GPU, 4), "node_name", json!(["n1"]));
    admin.put("a", dedicated).await.expect_done();
    admin
        .put("b", quota("TW", "assign", "nvidia.com/mig-1g.10gb", 8))
        .await
        .expect_done();
    let ask = async |query: &str, body: Value| {
        let path = format!("/api/v1/quota/user-quotas?{query}");
        admin
            .send(
                "GET",
                &path,
                &[],
                if body.is_null() {
                    String::new()
                } else {
                    body.to_string()
                },
            )
            .await
    };
    for (filter, value, tenants_left, total) in [
        ("quota_source", "purchase", vec!["a"], 1),
        ("quota_source", "assign", vec!["a", "b"], 2 + 4 + 8),
        ("quota_type", "dedicated", vec!["a"], 4),
        ("quota_type", "flexible", vec!["a"], 3),
        ("quota_type", "mig", vec!["b"], 8),
        ("quota_type", "vgpu", vec![], 0),
    ] {
        let by_query = ask(&format!("{filter}={value}"), Value::Null).await;
        let by_body = ask("", json!({filter: value})).await;
        let by_both = ask(&format!("{filter}={value}"), json!({filter: value})).await;
        assert_eq!(by_query.text, by_body.text);
        assert_eq!(by_query.text, by_both.text);
        let answer = by_query.json();
        assert_eq!(tenants(&answer), tenants_left, "{filter}={value}");
        assert_eq!(answer["data"]["total"], tenants_left.len());
        let rows = gpuquota_tests::quota::Quotas::read(&answer).0;
        assert_eq!(
            rows.iter().map(|row| row.total).sum::<u64>(),
            total,
            "{filter}={value}"
        );
    }
    ask("quota_source=assign", json!({"quota_source": "purchase"}))
        .await
        .expect_code(400, 4);
    ask("page=1", json!({"page": 2})).await.expect_code(400, 4);
}

#[tokio::test]
async fn a_purchase_spans_regions_and_an_assignment_does_not() {
    let server = Server::start().await;
    let admin = server.admin();
    for source in ["purchase", "assign"] {
        for (region, num) in [("US", 1), ("TW", 2)] {
            admin
                .put("a", quota(region, source, GPU, num))
                .await
                .expect_done();
        }
    }
    let answer = admin.list("").await;
    let items = answer.json()["data"]["items"].as_array().unwrap().clone();
    let seen: Vec<(Value, usize, Value)> = items
        .iter()
        .map(|item| {
            let of_type = &item["quota_types"][0];
            let details = of_type["quota_details"].as_array().unwrap().len();
            (
                item["region"].clone(),
                details,
                of_type["total_count"].clone(),
            )
        })
        .collect();
    let expected = [
        (Value::Null, 2, json!(3)),
        (json!("US"), 1, json!(1)),
        (json!("TW"), 1, json!(2)),
    ];
    assert_eq!(seen, expected, "{items:?}");
    assert!(!answer.text.contains("null") && !answer.text.contains("Z07:00"));
}
