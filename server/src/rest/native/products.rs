//! Software products: what licence quotas are about.

use std::collections::BTreeSet;

use gpuquota_core::command::Command;
use gpuquota_core::id::{Code, DisplayName, HardwareName, ProductId};
use gpuquota_core::licence::{MOST_TYPES, Product};
use gpuquota_core::object::Object;
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::{none, number_in_path};
use crate::rest::call::{Api, Call};
use crate::rest::json::{invalid, missing};
use crate::rest::names;
use crate::rest::reply::Reply;
use crate::rest::status::Problem;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SoftwareProduct)]
pub(in crate::rest) struct ProductBody<'a> {
    #[schema(value_type = names::Number)]
    id: ProductId,
    #[schema(value_type = names::DisplayName)]
    name: &'a DisplayName,
    #[schema(value_type = names::Code)]
    code: &'a Code,
    /// vGPU types whose licence it is.
    #[schema(value_type = Vec<names::VgpuTypes>)]
    vgpu_types: &'a BTreeSet<HardwareName>,
}

impl<'a> ProductBody<'a> {
    fn of(product: &'a Product) -> Self {
        Self {
            id: product.id,
            name: &product.name,
            code: &product.code,
            vgpu_types: &product.vgpu_types,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SoftwareProducts)]
pub(in crate::rest) struct Products<'a> {
    software_products: Vec<ProductBody<'a>>,
}

/// `GET /api/v1/software-products`.
pub(in crate::rest) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let committed = call.read(api).await?;
    Reply::ok(Products {
        software_products: committed.state.products().map(ProductBody::of).collect(),
    })
}

/// `GET /api/v1/software-products/{id}`.
pub(in crate::rest) async fn get(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let id = ProductId(call.named("id", number_in_path)?);
    let committed = call.read(api).await?;
    let state = &committed.state;
    let product = state.products().find(|product| product.id == id);
    let product = product.ok_or_else(|| none("software product"))?;
    Ok(Reply::ok(ProductBody::of(product))?.tagged(state.generation(&Object::Product(id))))
}

/// `PUT /api/v1/software-products/{id}`: the whole description.
pub(in crate::rest) async fn put(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let fields = call.fields()?;
    let types = fields.names("vgpu_types", MOST_TYPES, HardwareName::new)?;
    let product = Product {
        id: ProductId(call.named("id", number_in_path)?),
        name: fields
            .name("name", DisplayName::new)?
            .ok_or_else(|| missing("name"))?,
        code: fields
            .name("code", Code::new)?
            .ok_or_else(|| missing("code"))?,
        vgpu_types: types.unwrap_or_default(),
    };
    if product
        .vgpu_types
        .iter()
        .any(|it| starred_inside(it.as_str()))
    {
        let rule = "may have one * at the beginning or the end of a name";
        return Err(invalid("vgpu_types", rule));
    }
    let command = Command::SetProduct(product.clone());
    let written = call
        .write(api, Object::Product(product.id), command)
        .await?;
    Ok(Reply::ok(ProductBody::of(&product))?.tagged(written.generation))
}

/// `DELETE /api/v1/software-products/{id}`: while no quota and no seat is about it.
pub(in crate::rest) async fn delete(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let product = ProductId(call.named("id", number_in_path)?);
    let command = Command::RemoveProduct(product);
    call.write(api, Object::Product(product), command).await?;
    Reply::done()
}

fn starred_inside(pattern: &str) -> bool {
    let rest = pattern.strip_prefix('*').or(pattern.strip_suffix('*'));
    rest.unwrap_or(pattern).contains('*')
}
