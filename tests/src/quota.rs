//! Quotas as the GPU quota dialect lists them, flattened for assertions.

use serde_json::{Value, json};

/// One type row of an item.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Whose.
    pub tenant: String,
    /// `purchase` or `assign`.
    pub source: String,
    /// `flexible`, `dedicated`, `mig` or `vgpu`.
    pub quota_type: String,
    /// As the caller wrote it.
    pub model: String,
    /// `used_count`.
    pub used: u64,
    /// `total_count`.
    pub total: u64,
    /// `quota_details`.
    pub details: Vec<Value>,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Quotas(pub Vec<Row>);

impl Quotas {
    /// Reads an answer to GET.
    #[must_use]
    pub fn read(answer: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut rows = Vec::new();
        for item in answer["data"]["items"].as_array().expect("items") {
            for of_type in item["quota_types"].as_array().expect("quota_types") {
                let details = of_type["quota_details"]
                    .as_array()
                    .expect("details")
                    .clone();
                rows.push(Row {
                    tenant: text(&item["tenant_name"]),
                    source: text(&item["quota_source"]),
                    quota_type: text(&of_type["quota_type"]),
                    model: text(&details[0]["gpu_model"]),
                    used: of_type["used_count"].as_u64().unwrap(),
                    total: of_type["total_count"].as_u64().unwrap(),
                    details,
                });
            }
        }
        Self(rows)
    }

    /// The only row of this tenant, type and model.
    #[must_use]
    pub fn row(&self, tenant: &str, quota_type: &str, model: &str) -> Option<&Row> {
        let mut rows = self.0.iter().filter(|row| {
            row.tenant == tenant && row.quota_type == quota_type && row.model == model
        });
        let row = rows.next();
        assert!(rows.next().is_none(), "more than one row: {self:?}");
        row
    }

    /// `used_count` of that row.
    #[must_use]
    pub fn used(&self, tenant: &str, quota_type: &str, model: &str) -> u64 {
        let row = self.row(tenant, quota_type, model);
        row.unwrap_or_else(|| panic!("no {quota_type} {model} of {tenant}: {self:?}"))
            .used
    }

    /// `total_count` over everything of a tenant.
    #[must_use]
    pub fn total(&self, tenant: &str) -> u64 {
        let rows = self.0.iter().filter(|row| row.tenant == tenant);
        rows.map(|row| row.total).sum()
    }
}

/// Full GPUs.
pub const GPU: &str = "nvidia.com/gpu";

/// Body of a PUT: a purchase of full GPUs.
#[must_use]
pub fn purchase(region: &str, num: u64) -> Value {
    quota(region, "purchase", GPU, num)
}

/// Body of a PUT.
#[must_use]
pub fn quota(region: &str, source: &str, model: &str, num: u64) -> Value {
    json!({"region": region, "quota_source": source, "gpu_model": model, "num": num})
}

/// A body with one field set to another value; `null` stays null, and `Value::Null` named `-` is not special.
#[must_use]
pub fn with(mut body: Value, field: &str, value: impl Into<Value>) -> Value {
    body[field] = value.into();
    body
}

/// A body without a field.
#[must_use]
pub fn without(mut body: Value, field: &str) -> Value {
    body.as_object_mut().unwrap().remove(field);
    body
}
