//! Regions and sites, and kinds of dedicated hosts.

use std::collections::BTreeSet;

use gpuquota_core::State;
use gpuquota_core::catalogue::MOST_NAMES;
use gpuquota_core::command::Command;
use gpuquota_core::id::{DisplayName, GroupName, HostResourceName, Region, SiteId};
use gpuquota_core::object::Object;
use gpuquota_core::pool::{HostResource, RegionProfile};
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::{lease_mode, none, shaped};
use crate::chosen_enforcement::ChosenEnforcement;
use crate::chosen_mode::ChosenMode;
use crate::rest::call::{Api, Call};
use crate::rest::json::missing;
use crate::rest::names;
use crate::rest::reply::Reply;
use crate::rest::status::Problem;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RegionProfile)]
pub(in crate::rest) struct RegionBody<'a> {
    #[schema(value_type = names::Region)]
    region: &'a Region,
    #[schema(value_type = names::DisplayName)]
    name: &'a str,
    /// Null where it is part of the central site.
    #[schema(value_type = Option<names::SiteId>, required)]
    site_id: Option<&'a SiteId>,
    /// Whether what runs there needs a lease; `default` is as the settings say.
    #[schema(value_type = names::ChosenLeaseMode)]
    lease_mode: ChosenMode,
    /// How far agents go about what the ledger does not justify there; absent: the settings say.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<names::EnforcementFields>)]
    enforcement: Option<ChosenEnforcement>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct Regions<'a> {
    regions: Vec<RegionBody<'a>>,
}

/// `GET /api/v1/regions`: every region that is described, or that a quota or a node names.
pub(in crate::rest) async fn list_regions(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let committed = call.read(api).await?;
    let state = &committed.state;
    let described = state.regions().map(|profile| &profile.region);
    let of_quotas = state.quotas().map(|quota| &quota.key.region);
    let of_nodes = state.nodes().map(|(_, node)| &node.region);
    let names: BTreeSet<&Region> = described.chain(of_quotas).chain(of_nodes).collect();
    Reply::ok(Regions {
        regions: names
            .into_iter()
            .map(|name| region_body(state, name))
            .collect(),
    })
}

fn region_body<'a>(state: &'a State, region: &'a Region) -> RegionBody<'a> {
    let profile = state.region(region);
    let name = profile.and_then(|profile| profile.display_name.as_ref());
    RegionBody {
        region,
        name: name.map_or(region.as_str(), DisplayName::as_str),
        site_id: state.site_of(region),
        lease_mode: ChosenMode(profile.and_then(|profile| profile.lease_mode)),
        enforcement: profile
            .and_then(|profile| profile.enforcement.clone())
            .map(ChosenEnforcement),
    }
}

/// `GET /api/v1/regions/{region}`: one that is described.
pub(in crate::rest) async fn get_region(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let region = call.named("region", Region::new)?;
    let committed = call.read(api).await?;
    let state = &committed.state;
    state.region(&region).ok_or_else(|| none("region"))?;
    let generation = state.generation(&Object::Region(region.clone()));
    Ok(Reply::ok(region_body(state, &region))?.tagged(generation))
}

/// `PUT /api/v1/regions/{region}`: the whole description; without `site_id` it is part of the central site, without
/// `lease_mode` the settings say whether leases are needed.
pub(in crate::rest) async fn put_region(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let fields = call.fields()?;
    let profile = RegionProfile {
        region: call.named("region", Region::new)?,
        display_name: fields.name("name", DisplayName::new)?,
        site: fields.name("site_id", SiteId::new)?,
        lease_mode: lease_mode(&fields)?.and_then(|mode| mode.0),
        enforcement: shaped::<ChosenEnforcement>(&fields, "enforcement")?.map(|chosen| chosen.0),
    };
    let object = Object::Region(profile.region.clone());
    let command = Command::SetRegion(profile.clone());
    let written = call.write(api, object, command).await?;
    let name = profile.display_name.as_ref();
    let body = RegionBody {
        region: &profile.region,
        name: name.map_or(profile.region.as_str(), DisplayName::as_str),
        site_id: profile.site.as_ref(),
        lease_mode: ChosenMode(profile.lease_mode),
        enforcement: profile.enforcement.clone().map(ChosenEnforcement),
    };
    Ok(Reply::ok(body)?.tagged(written.generation))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HostResource)]
pub(in crate::rest) struct HostResourceBody<'a> {
    #[schema(value_type = names::HostResourceName)]
    resource: &'a HostResourceName,
    #[schema(value_type = Vec<names::GroupName>)]
    resource_groups: &'a BTreeSet<GroupName>,
}

impl<'a> HostResourceBody<'a> {
    fn of(resource: &'a HostResource) -> Self {
        Self {
            resource: &resource.resource,
            resource_groups: &resource.groups,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct HostResources<'a> {
    host_resources: Vec<HostResourceBody<'a>>,
}

/// `GET /api/v1/host-resources`: kinds of dedicated hosts.
pub(in crate::rest) async fn list_hosts(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let committed = call.read(api).await?;
    let resources = committed.state.host_resources();
    Reply::ok(HostResources {
        host_resources: resources.map(HostResourceBody::of).collect(),
    })
}

/// `GET /api/v1/host-resources/{resource}`.
pub(in crate::rest) async fn get_host(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let name = call.named("resource", HostResourceName::new)?;
    let committed = call.read(api).await?;
    let state = &committed.state;
    let resource = state.host_resources().find(|it| it.resource == name);
    let resource = resource.ok_or_else(|| none("host resource"))?;
    let generation = state.generation(&Object::HostResource(name));
    Ok(Reply::ok(HostResourceBody::of(resource))?.tagged(generation))
}

/// `PUT /api/v1/host-resources/{resource}`: which resource groups' nodes are such hosts.
pub(in crate::rest) async fn put_host(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let fields = call.fields()?;
    let groups = fields.names("resource_groups", MOST_NAMES, GroupName::new)?;
    let resource = HostResource {
        resource: call.named("resource", HostResourceName::new)?,
        groups: groups.ok_or_else(|| missing("resource_groups"))?,
    };
    let object = Object::HostResource(resource.resource.clone());
    let command = Command::SetHostResource(resource.clone());
    let written = call.write(api, object, command).await?;
    Ok(Reply::ok(HostResourceBody::of(&resource))?.tagged(written.generation))
}

/// `DELETE /api/v1/host-resources/{resource}`: also every tenant's limit of it.
pub(in crate::rest) async fn delete_host(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let resource = call.named("resource", HostResourceName::new)?;
    let object = Object::HostResource(resource.clone());
    call.write(api, object, Command::RemoveHostResource(resource))
        .await?;
    Reply::done()
}
