//! What other systems count for a project: users, volumes and the like, which workspace quotas show.

use gpuquota_core::command::{Command, SetCounter};
use gpuquota_core::id::{DisplayName, ProjectId, ResourceKind, SiteId};
use gpuquota_core::pool::Counter;
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::LimitField;
use crate::rest::call::{Api, Call};
use crate::rest::json::misnamed;
use crate::rest::names;
use crate::rest::reply::Reply;
use crate::rest::status::{Kind, Problem};

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Counter)]
pub(in crate::rest) struct CounterBody<'a> {
    #[serde(rename = "type")]
    #[schema(value_type = names::ResourceKind)]
    kind: &'a ResourceKind,
    /// Null at the central site.
    #[schema(value_type = Option<names::SiteId>, required)]
    site_id: Option<&'a SiteId>,
    /// Null where none was said.
    #[schema(value_type = Option<names::Limit>, required)]
    quota: LimitField,
    /// Null where none was said.
    #[schema(value_type = Option<names::Count>, required)]
    used: Option<u32>,
    #[schema(value_type = Option<names::DisplayName>, required)]
    unit: Option<&'a DisplayName>,
}

impl<'a> CounterBody<'a> {
    fn of(site: Option<&'a SiteId>, kind: &'a ResourceKind, counter: &'a Counter) -> Self {
        Self {
            kind,
            site_id: site,
            quota: LimitField(counter.quota),
            used: counter.used,
            unit: counter.unit.as_ref(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectResources)]
pub(in crate::rest) struct Resources<'a> {
    #[schema(value_type = names::ProjectId)]
    project: &'a ProjectId,
    resources: Vec<CounterBody<'a>>,
}

/// `GET /api/v1/projects/{project}/resources`: what was reported, as it was reported.
pub(in crate::rest) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let project = call.named("project", ProjectId::new)?;
    let committed = call.read(api).await?;
    let state = &committed.state;
    if !call.principal.sees_project(state, &project) || state.tenant_of_project(&project).is_none()
    {
        return Err(Problem::new(Kind::NoSuchObject, "there is no such project"));
    }
    let counters = state.counters_of(&project);
    Reply::ok(Resources {
        project: &project,
        resources: counters
            .map(|(site, kind, counter)| CounterBody::of(site, kind, counter))
            .collect(),
    })
}

/// `PUT /api/v1/projects/{project}/resources/{type}`: replaces what was reported of this type, at this site.
pub(in crate::rest) async fn put(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let fields = call.fields()?;
    let counter = Counter {
        quota: LimitField::optional(&fields, "quota")?.0,
        used: fields.count("used")?,
        unit: fields.name("unit", DisplayName::new)?,
    };
    let set = SetCounter {
        project: call.named("project", ProjectId::new)?,
        kind: call.named("type", ResourceKind::new)?,
        site: fields.name("site_id", SiteId::new)?,
        counter: Some(counter.clone()),
    };
    call.submit(api, Command::SetCounter(set.clone())).await?;
    Reply::ok(CounterBody::of(set.site.as_ref(), &set.kind, &counter))
}

/// `DELETE /api/v1/projects/{project}/resources/{type}?site_id=…`: forgets what was reported.
pub(in crate::rest) async fn delete(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let site = match call.query.single("site_id")? {
        None => None,
        Some(text) => Some(SiteId::new(text).map_err(|e| misnamed("site_id", &e))?),
    };
    let set = SetCounter {
        project: call.named("project", ProjectId::new)?,
        kind: call.named("type", ResourceKind::new)?,
        site,
        counter: None,
    };
    call.submit(api, Command::SetCounter(set)).await?;
    Reply::done()
}
