//! Operations of the native API on the model catalogue and on software products.

use gpuquota_core::catalogue::MOST_NAMES;
use gpuquota_core::licence::MOST_TYPES;
use serde_json::{Value, json};

use super::body::Body;
use super::operation::Operation;
use crate::rest::names;
use crate::rest::native::models::{ModelBody, Models};
use crate::rest::native::products::{ProductBody, Products};
use crate::rest::status::Kind;

/// `GET /api/v1/models`.
pub(in crate::rest) fn list_models() -> Operation {
    Operation::new(
        "listModels",
        "List the model catalogue",
        "Models that quotas name without an entry are not in it.",
    )
    .query::<names::GpuModel>(
        "gpu_model",
        "Only this one; the answer has its `ETag` then.",
    )
    .tagged()
    .past()
    .answers::<Models<'_>>(json!({ "models": [model()] }))
}

/// `PUT /api/v1/models`.
pub(in crate::rest) fn put_model() -> Operation {
    let body = Body::new()
        .required::<names::GpuModel>("gpu_model", "Whose entry it is.")
        .optional::<names::ModelType>(
            "quota_type",
            "What it is; left out, it follows from its name.",
        )
        .optional_list::<names::GpuModel>("aliases", 0..=MOST_NAMES, "Names that mean the same.")
        .optional_list::<names::HardwareName>(
            "hardware",
            0..=MOST_NAMES,
            "Products and vGPU types that it is, as NVML names them.",
        )
        .optional::<names::GpuModel>("profile", "The MIG profile that it is.");
    Operation::new(
        "putModel",
        "Describe a model",
        "The whole entry: what is left out is taken away. The model stands in the body because it may hold slashes.",
    )
    .body(body, model())
    .problem(Kind::IdTaken)
    .conditional()
    .tagged()
    .answers::<ModelBody<'_>>(model())
}

/// `DELETE /api/v1/models`.
pub(in crate::rest) fn delete_model() -> Operation {
    Operation::new("deleteModel", "Forget a model's entry", "")
        .required_query::<names::GpuModel>("gpu_model", "Whose entry it is.")
        .problem(Kind::NoSuchObject)
        .conditional()
        .answers::<names::Nothing>(json!({}))
}

/// `GET /api/v1/software-products`.
pub(in crate::rest) fn list() -> Operation {
    Operation::new("listSoftwareProducts", "List software products", "")
        .past()
        .answers::<Products<'_>>(json!({ "software_products": [product()] }))
}

/// `GET /api/v1/software-products/{id}`.
pub(in crate::rest) fn get() -> Operation {
    Operation::new("getSoftwareProduct", "Show a software product", "")
        .path::<names::Number>("id", "The product's number.")
        .problem(Kind::NoSuchObject)
        .past()
        .tagged()
        .answers::<ProductBody<'_>>(product())
}

/// `PUT /api/v1/software-products/{id}`.
pub(in crate::rest) fn put() -> Operation {
    let body = Body::new()
        .required::<names::DisplayName>("name", "For people.")
        .required::<names::Code>("code", "A short technical name, unique.")
        .optional_list::<names::VgpuTypes>(
            "vgpu_types",
            0..=MOST_TYPES,
            "vGPU types whose licence it is.",
        );
    let example = json!({ "name": "MyApplication Pro", "code": "MYAPP_PRO" });
    Operation::new(
        "putSoftwareProduct",
        "Describe a software product",
        "The whole description: what is left out is taken away.",
    )
    .path::<names::Number>("id", "The product's number.")
    .body(body, example)
    .problem(Kind::IdTaken)
    .conditional()
    .tagged()
    .answers::<ProductBody<'_>>(product())
}

/// `DELETE /api/v1/software-products/{id}`.
pub(in crate::rest) fn delete() -> Operation {
    Operation::new(
        "deleteSoftwareProduct",
        "Forget a software product",
        "Refused with 409 while a quota or a seat is about it.",
    )
    .path::<names::Number>("id", "The product's number.")
    .problem(Kind::NoSuchObject)
    .problem(Kind::InUse)
    .conditional()
    .answers::<names::Nothing>(json!({}))
}

fn model() -> Value {
    json!({
        "gpu_model": "nvidia.com/mig-1g.10gb", "quota_type": "mig", "aliases": ["nvidia.com/mig-1c10g"],
        "hardware": [], "profile": "1g.10gb"
    })
}

fn product() -> Value {
    json!({ "id": 1, "name": "MyApplication Pro", "code": "MYAPP_PRO", "vgpu_types": [] })
}
