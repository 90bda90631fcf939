//! Parameters and body of the instance service.

use gpuquota_core::id::GroupName;
use gpuquota_core::pool::Accelerator;
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::json::{invalid, missing};
use crate::rest::names;
use crate::rest::query::Query;
use crate::rest::status::{Kind, Problem};

/// What is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) accelerator: Accelerator,
    pub(super) group: GroupName,
}

/// Reads both parameters; that one is missing is said before that the other is wrong.
pub(super) fn read(query: &Query) -> Result<Asked, Problem> {
    let (group, accelerator) = (group(query), accelerator(query));
    if let Err(problem) = &accelerator
        && problem.kind == Kind::MissingField
    {
        return Err(problem.clone());
    }
    Ok(Asked {
        group: group?,
        accelerator: accelerator?,
    })
}

fn group(query: &Query) -> Result<GroupName, Problem> {
    let text = required(query, "resourceGroup")?;
    GroupName::new(text).map_err(|_| no_group())
}

fn accelerator(query: &Query) -> Result<Accelerator, Problem> {
    let name = "acceleratorType";
    let text = required(query, name)?;
    text.parse()
        .map_err(|()| invalid(name, "must be gpu, dcu or mlu"))
}

fn required<'a>(query: &'a Query, name: &str) -> Result<&'a str, Problem> {
    let text = query.single(name)?.filter(|text| !text.is_empty());
    text.ok_or_else(|| missing(name))
}

/// The group that was asked for is not there.
pub(super) fn no_group() -> Problem {
    invalid("resourceGroup", "names no resource group")
}

/// A success.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Instance::Answer)]
pub(in crate::rest) struct Answer<'a> {
    /// "0".
    #[schema(pattern = "^0$")]
    code: &'static str,
    msg: &'static str,
    data: Resources<'a>,
}

/// Everything that is shown of a group.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Instance::Resources)]
#[serde(rename_all = "camelCase")]
pub(super) struct Resources<'a> {
    #[schema(required)]
    pub(super) id: Option<&'a str>,
    /// Logical CPUs of the group's largest node.
    pub(super) cpu_number: u32,
    /// Cards on one node; 0 is none set.
    pub(super) mlu_limits: u32,
    /// Cards on one node; 0 is none set.
    pub(super) dcu_limits: u32,
    /// Cards on one node; 0 is none set.
    pub(super) nv_limits: u32,
    /// Cards of the asked make in it.
    pub(super) gpu_number: u32,
    /// MiB.
    pub(super) memory_size: u64,
    #[schema(value_type = names::GroupName)]
    pub(super) resource_group: &'a str,
    #[schema(required)]
    pub(super) user_name: Option<&'a str>,
    /// Nodes of the group that are up.
    pub(super) node_number: usize,
    #[schema(value_type = names::RunTime)]
    pub(super) max_time: String,
}

impl<'a> From<Resources<'a>> for Answer<'a> {
    fn from(data: Resources<'a>) -> Self {
        Self {
            code: "0",
            msg: "success",
            data,
        }
    }
}
