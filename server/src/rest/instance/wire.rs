//! Parameters and body of the instance service.

use gpuquota_core::id::GroupName;
use gpuquota_core::pool::Accelerator;
use serde::Serialize;

use crate::rest::json::{invalid, missing};
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
#[derive(Debug, Serialize)]
pub(super) struct Answer<'a> {
    code: &'static str,
    msg: &'static str,
    data: Resources<'a>,
}

/// Everything that is shown of a group.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Resources<'a> {
    pub(super) id: Option<&'a str>,
    pub(super) cpu_number: u32,
    pub(super) mlu_limits: u32,
    pub(super) dcu_limits: u32,
    pub(super) nv_limits: u32,
    pub(super) gpu_number: u32,
    /// MiB.
    pub(super) memory_size: u64,
    pub(super) resource_group: &'a str,
    pub(super) user_name: Option<&'a str>,
    pub(super) node_number: usize,
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
