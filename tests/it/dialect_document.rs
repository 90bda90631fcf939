//! The GPU quota dialect's own document: its examples, to the letter.

use gpuquota_tests::quota::{quota, with};
use gpuquota_tests::server::Server;
use serde_json::{Value, json};

// The document's answer, with a time that is one (D1.14) and without anybody's processes.
const EXAMPLE: &str = r#"{
  "code": 0,
  "data": {
    "total": 3,
    "page": 1,
    "page_size": 10,
    "items": [
      {
        "tenant_name": "platform-operator",
        "quota_source": "purchase",
        "gpu_model": "nvidia.com/gpu",
        "quota_types": [
          {
            "quota_type": "flexible",
            "quota_details": [{"region": "US", "gpu_model": "nvidia.com/gpu", "count": 1}],
            "used_count": 0,
            "total_count": 1
          }
        ]
      },
      {
        "tenant_name": "platform-operator",
        "quota_source": "purchase",
        "gpu_model": "nvidia.com/mig-1c10g",
        "quota_types": [
          {
            "quota_type": "mig",
            "quota_details": [{"region": "US", "gpu_model": "nvidia.com/mig-1c10g", "count": 1}],
            "used_count": 0,
            "total_count": 1
          }
        ]
      },
      {
        "tenant_name": "test1015",
        "quota_source": "assign",
        "gpu_model": "tyui-3",
        "region": "US",
        "quota_types": [
          {
            "quota_type": "vgpu",
            "quota_details": [
              {
                "region": "US",
                "id": 212,
                "gpu_model": "tyui-3",
                "count": 2,
                "expire_time": "2027-01-02T15:04:05Z"
              }
            ],
            "used_count": 0,
            "total_count": 2
          }
        ]
      },
      {
        "tenant_name": "zjw1029",
        "quota_source": "assign",
        "region": "US",
        "quota_types": [
          {
            "quota_type": "dedicated",
            "gpu_model": "nvidia.com/gpu",
            "quota_details": [
              {
                "region": "US",
                "id": 214,
                "gpu_model": "nvidia.com/gpu",
                "node_name": ["gpu02"],
                "count": 1
              }
            ],
            "used_count": 0,
            "total_count": 1
          }
        ]
      }
    ]
  }
}"#;

#[tokio::test]
async fn the_listing_of_the_document_comes_back_to_the_letter() {
    let server = Server::start().await;
    let admin = server.admin();
    let dedicated = with(quota("US", "assign", "nvidia.com/gpu", 1), "id", 214);
    let expiring = with(quota("US", "assign", "tyui-3", 2), "id", 212);
    let puts = [
        (
            "platform-operator",
            quota("US", "purchase", "nvidia.com/gpu", 1),
        ),
        (
            "platform-operator",
            quota("US", "purchase", "nvidia.com/mig-1c10g", 1),
        ),
        (
            "test1015",
            with(expiring, "expired_at", "2027-01-02T15:04:05Z"),
        ),
        ("zjw1029", with(dedicated, "node_name", json!(["gpu02"]))),
    ];
    for (tenant, body) in puts {
        admin.put(tenant, body).await.expect_done();
    }
    let answer = admin.list("").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    // The text, not the value: the order of the keys is the document's too.
    let expected: Value = serde_json::from_str(EXAMPLE).unwrap();
    assert_eq!(answer.text, expected.to_string());
}

#[tokio::test]
async fn put_and_delete_examples_of_the_document() {
    let server = Server::start().await;
    let admin = server.admin();
    let example = r#"{
    "region": "TW",
    "quota_source": "purchase",
    "gpu_model": "nvidia.com/gpu",
    "num": 1,
    "expired_at": "2025-12-03",
    "id": 212
}"#;
    let path = "/api/v1/quotas/gpu-operator";
    // As the document spells the header's name.
    let headers = [("Content-type", "application/json")];
    admin
        .send("PUT", path, &headers, example)
        .await
        .expect_done();
    let listed = admin.list("").await.json();
    assert_eq!(
        listed["data"]["items"][0].to_string(),
        concat!(
            r#"{"tenant_name":"gpu-operator","quota_source":"purchase","gpu_model":"nvidia.com/gpu","#,
            r#""quota_types":[{"quota_type":"flexible","quota_details":[{"region":"TW","id":212,"#,
            r#""gpu_model":"nvidia.com/gpu","count":1,"expire_time":"2025-12-03T00:00:00Z"}],"#,
            r#""used_count":0,"total_count":1}]}"#
        )
    );
    let example = r#"{
    "region": "TW",
    "quota_source": "purchase",
    "gpu_model": "nvidia.com/gpu",
    "id": 212
}"#;
    admin
        .send("DELETE", path, &headers, example)
        .await
        .expect_done();
    assert!(admin.quotas().await.0.is_empty());
    admin
        .send("DELETE", path, &headers, example)
        .await
        .expect_code(404, 2);
}
