//! The model catalogue: which hardware or vGPU type is which `gpu_model`, and which names mean the same.

use std::collections::BTreeSet;

use gpuquota_core::catalogue::{MOST_NAMES, ModelEntry};
use gpuquota_core::command::Command;
use gpuquota_core::id::{GpuModel, HardwareName};
use gpuquota_core::object::Object;
use gpuquota_core::quota::QuotaType;
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::call::{Api, Call};
use crate::rest::json::{invalid, misnamed, missing};
use crate::rest::names;
use crate::rest::reply::Reply;
use crate::rest::status::Problem;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Model)]
pub(in crate::rest) struct ModelBody<'a> {
    #[schema(value_type = names::GpuModel)]
    gpu_model: &'a GpuModel,
    #[schema(value_type = names::ModelType)]
    quota_type: QuotaType,
    /// Names that mean the same.
    #[schema(value_type = Vec<names::GpuModel>)]
    aliases: &'a BTreeSet<GpuModel>,
    /// Products and vGPU types that it is.
    #[schema(value_type = Vec<names::HardwareName>)]
    hardware: &'a BTreeSet<HardwareName>,
    /// The MIG profile that it is.
    #[schema(value_type = Option<names::GpuModel>, required)]
    profile: Option<&'a GpuModel>,
}

impl<'a> ModelBody<'a> {
    fn of(entry: &'a ModelEntry) -> Self {
        let implied = || gpuquota_core::profile::implied_type(&entry.gpu_model);
        Self {
            gpu_model: &entry.gpu_model,
            quota_type: entry.quota_type.unwrap_or_else(implied),
            aliases: &entry.aliases,
            hardware: &entry.hardware,
            profile: entry.profile.as_ref(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct Models<'a> {
    models: Vec<ModelBody<'a>>,
}

/// `GET /api/v1/models`, or the one that `gpu_model` names.
pub(in crate::rest) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let one = call.query.single("gpu_model")?.map(GpuModel::new);
    let one = one.transpose().map_err(|e| misnamed("gpu_model", &e))?;
    let committed = call.read(api).await?;
    let state = &committed.state;
    let models = state.models();
    let models: Vec<&ModelEntry> = models
        .filter(|entry| one.as_ref().is_none_or(|one| entry.gpu_model == *one))
        .collect();
    let generation = match models.as_slice() {
        [entry] if one.is_some() => state.generation(&Object::Model(entry.gpu_model.clone())),
        _ => None,
    };
    let models = models.into_iter().map(ModelBody::of).collect();
    Ok(Reply::ok(Models { models })?.tagged(generation))
}

/// `PUT /api/v1/models`: the whole entry of `gpu_model`, which stands in the body because it may hold slashes.
pub(in crate::rest) async fn put(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let fields = call.fields()?;
    let quota_type = match fields.text("quota_type")? {
        None => None,
        Some(text) => match text.parse() {
            // Nodes make a quota dedicated, not a model.
            Ok(QuotaType::Dedicated) | Err(()) => {
                return Err(invalid("quota_type", "must be flexible, mig or vgpu"));
            }
            Ok(quota_type) => Some(quota_type),
        },
    };
    let model = fields.name("gpu_model", GpuModel::new)?;
    let entry = ModelEntry {
        gpu_model: model.ok_or_else(|| missing("gpu_model"))?,
        quota_type,
        aliases: fields
            .names("aliases", MOST_NAMES, GpuModel::new)?
            .unwrap_or_default(),
        hardware: fields
            .names("hardware", MOST_NAMES, HardwareName::new)?
            .unwrap_or_default(),
        profile: fields.name("profile", GpuModel::new)?,
    };
    let object = Object::Model(entry.gpu_model.clone());
    let command = Command::SetModel(entry.clone());
    let written = call.write(api, object, command).await?;
    Ok(Reply::ok(ModelBody::of(&entry))?.tagged(written.generation))
}

/// `DELETE /api/v1/models?gpu_model=…`.
pub(in crate::rest) async fn delete(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let text = call.query.single("gpu_model")?;
    let text = text.ok_or_else(|| missing("gpu_model"))?;
    let model = GpuModel::new(text).map_err(|e| misnamed("gpu_model", &e))?;
    let object = Object::Model(model.clone());
    call.write(api, object, Command::RemoveModel(model)).await?;
    Reply::done()
}
