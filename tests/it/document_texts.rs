//! Examples of the five quota documents, verbatim.

/// A request of document 000.
pub(crate) const QUOTA_PUT: &str = r#"{
    "region": "TW",
    "quota_source": "purchase",
    "gpu_model": "nvidia.com/gpu",
    "num": 1,
    "expired_at": "2025-12-03",
    "id": 212
}"#;
/// A request of document 000.
pub(crate) const QUOTA_DELETE: &str = r#"{
    "region": "TW",
    "quota_source": "purchase",
    "gpu_model": "nvidia.com/gpu",
    "id": 212
}"#;
/// An answer of document 000.
pub(crate) const QUOTA_LIST: &str = r#"{
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
            "quota_details": [
              {
                "region": "US",
                "gpu_model": "nvidia.com/gpu",
                "count": 1
              }
            ],
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
            "quota_details": [
              {
                "region": "US",
                "gpu_model": "nvidia.com/mig-1c10g",
                "count": 1
              }
            ],
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
                "expire_time": "2026-01-02T15:04:05Z07:00"
              }
            ],
            "used_count": 1,
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
                "node_name": [
                  "gpu02"
                ],
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
/// The request of document 001.
pub(crate) const WORKSPACE_REQUEST: &str = "/v2/29dfe82ada564ac2b927e1ff036d9a9b/quotas";
/// The answer of document 001.
pub(crate) const WORKSPACE: &str = r#"{
  "quotas" : {
    "resources" : [ {
      "type" : "general_instances",
      "quota" : 10,
      "used" : 3
    }, {
      "type" : "volumes",
      "quota" : 500,
      "used" : 33
    }, {
      "type" : "volume_gigabytes",
      "quota" : 21500,
      "unit" : "GB",
      "used" : 2090
    }, {
      "type" : "cores",
      "quota" : 80,
      "used" : 10
    }, {
      "type" : "Memory",
      "quota" : 100,
      "unit" : "GB",
      "used" : 19
    }, {
      "type" : "gpu_instances",
      "quota" : 10,
      "used" : 0
    }, {
      "type" : "users",
      "quota" : 3000,
      "used" : 29
    }, {
      "type" : "policy_groups",
      "quota" : 10,
      "used" : 0
    }, {
      "type" : "Cores",
      "quota" : 80,
      "used" : 0
    } ]
  },
  "site_quotas" : [ {
    "site_id" : 147258369,
    "resources" : [ {
      "type" : "gpu_instances",
      "quota" : 50,
      "used" : 0
    }, {
      "type" : "ies_instances",
      "quota" : 500,
      "used" : 0
    } ]
  } ]
}"#;
/// The request of document 002.
pub(crate) const INSTANCE_REQUEST: &str =
    "/ai/openapi/v2/instance-service/resources?resourceGroup=TeslaM40&acceleratorType=gpu";
/// The answer of document 002.
pub(crate) const INSTANCE: &str = r#"{"code":"0",
 "msg":"success",
 "data":
     {"id":null,
     "cpuNumber":40,
     "mluLimits":0,
     "dcuLimits":0,
     "nvLimits":0,
     "gpuNumber":2,
     "memorySize":31888,
     "resourceGroup":"TeslaM40",
     "userName":null,
     "nodeNumber":1,
     "maxTime":"unlimited"}
}"#;
/// An answer of document 003.
pub(crate) const LICENCE_LIST: &str = r#"{
    "success": true,
    "data": {
        "count": 25,
        "next": null,
        "previous": null,
        "results": [
            {
                "id": 1,
                "tenant": {
                    "id": 2,
                    "name": "示例公司",
                    "code": "DEMO_COMPANY"
                },
                "software_product": {
                    "id": 1,
                    "name": "MyApplication Pro",
                    "code": "MYAPP_PRO"
                },
                "max_licenses": 100,
                "used_licenses": 75,
                "usage_rate": 75.0,
                "remaining_licenses": 25,
                "expires_at": "2024-12-31T23:59:59Z",
                "is_active": true,
                "created_at": "2024-01-15T10:30:00Z",
                "updated_at": "2024-01-20T14:25:00Z"
            }
        ]
    }
}"#;
/// A request of document 003.
pub(crate) const LICENCE_POST: &str = r#"{
    "tenant": 2,
    "software_product": 1,
    "max_licenses": 200,
    "expires_at": "2024-12-31T23:59:59Z"
}"#;
/// An answer of document 003.
pub(crate) const LICENCE_CREATED: &str = r#"{
    "success": true,
    "data": {
        "id": 15,
        "tenant": {
            "id": 2,
            "name": "示例公司"
        },
        "software_product": {
            "id": 1,
            "name": "MyApplication Pro"
        },
        "max_licenses": 200,
        "used_licenses": 0,
        "usage_rate": 0.0,
        "remaining_licenses": 200,
        "expires_at": "2024-12-31T23:59:59Z",
        "is_active": true
    },
    "message": "租户配额创建成功"
}"#;
/// A request of document 003.
pub(crate) const LICENCE_PATCH: &str = r#"{
    "max_licenses": 300,
    "expires_at": "2025-12-31T23:59:59Z"
}"#;
/// An answer of document 003.
pub(crate) const LICENCE_STATISTICS: &str = r#"{
    "success": true,
    "data": {
        "total_quotas": 25,
        "active_quotas": 23,
        "expired_quotas": 2,
        "usage_overview": {
            "total_allocated": 2500,
            "total_used": 1875,
            "overall_usage_rate": 75.0
        },
        "by_tenant": [
            {
                "tenant_id": 2,
                "tenant_name": "示例公司",
                "total_quota": 300,
                "total_used": 225,
                "usage_rate": 75.0,
                "products_count": 3
            }
        ],
        "high_usage_quotas": [
            {
                "id": 1,
                "tenant_name": "示例公司",
                "product_name": "MyApplication Pro",
                "usage_rate": 95.0,
                "remaining_licenses": 5
            }
        ]
    }
}"#;
/// The request of document 004.
pub(crate) const DEH_REQUEST: &str =
    "/v1.0/9c53a566cb3443ab910cf0daebca90c4/quota-sets/45df5566cb3443ab910cf0daebcapoi8";
/// The answer of document 004.
pub(crate) const DEH: &str = r#"{


"quota_set": [


{


"used": 0,


"resource": "c4",


"hard_limit": 5


},


{


"used": 0,


"resource": "m4",


"hard_limit": 5


}


]


}"#;
/// Tokens of document 002, of 2023 and of another issuer.
pub(crate) const INSTANCE_TOKENS: &[&str] = &[
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJjb21wdXRlVXNlciI6InNsdXJtdGVzdCIsImFjY291bnRTdGF0dXMiOiJUcmlhbCIsImNyZWF0b3IiOiJhYyIsInJvbGUiOiIxIiwiZXhwaXJlVGltZSI6IjE2ODYxMjMzNDY1NjgiLCJjbHVzdGVySWQiOiIxMTExMiIsImludm9rZXIiOiI2MDQ4Y2U3YmExNWMyYWYyZThjZWMxMjk5MWVjMTNjZiIsInVzZXIiOiJzbHVybXRlc3QiLCJ1c2VySWQiOiIxMTY1NTA0ODU0MSJ9.iQUBzN32jiCeeFuJ9lFS_XjBpxenEEupQRiyA3Ef334",
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJjb21wdXRlVXNlciI6InNsdXJtdGVzdCIsImFjY291bnRTdGF0dXMiOiJUcmlhbCIsImNyZWF0b3IiOiJhYyIsInJvbGUiOiIxIiwiZXhwaXJlVGltZSI6IjE2ODY5MDg1MDkyMzEiLCJjbHVzdGVySWQiOiIxMTExMiIsImludm9rZXIiOiI2MDQ4Y2U3YmExNWMyYWYyZThjZWMxMjk5MWVjMTNjZiIsInVzZXIiOiJzbHVybXRlc3QiLCJ1c2VySWQiOiIxMTY1NTA0ODU0MSJ9.U7pZKgO_K6NuRwOWPxblDfgRpGeVxS-BYieOdLhGDK4",
];
