//! Regions and sites, resource groups with their per-node card limits, kinds of dedicated hosts.

use std::collections::BTreeSet;

use gpuquota_core::catalogue::MOST_NAMES;
use gpuquota_core::command::Command;
use gpuquota_core::id::{
    DisplayName, GroupName, HostResourceName, NodeName, Region, SiteId, TenantName,
};
use gpuquota_core::pool::{Accelerator, CardLimitKey, HostResource, RegionProfile, ResourceGroup};
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::{lease_mode, number_of};
use crate::chosen_mode::ChosenMode;
use crate::rest::call::{Api, Call};
use crate::rest::json::{Fields, LONGEST_LIST, invalid, missing};
use crate::rest::names;
use crate::rest::reply::Reply;
use crate::rest::status::{Kind, Problem};
use crate::run_time;

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
    let body = |region| {
        let profile = state.region(region);
        let name = profile.and_then(|profile| profile.display_name.as_ref());
        RegionBody {
            region,
            name: name.map_or(region.as_str(), DisplayName::as_str),
            site_id: state.site_of(region),
            lease_mode: ChosenMode(profile.and_then(|profile| profile.lease_mode)),
        }
    };
    Reply::ok(Regions {
        regions: names.into_iter().map(body).collect(),
    })
}

/// `PUT /api/v1/regions/{region}`: the whole description; without `site_id` it is part of the central site, without
/// `lease_mode` the settings say whether leases are needed.
pub(in crate::rest) async fn put_region(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let fields = Fields::parse(&call.body)?;
    let profile = RegionProfile {
        region: call.named("region", Region::new)?,
        display_name: fields.name("name", DisplayName::new)?,
        site: fields.name("site_id", SiteId::new)?,
        lease_mode: lease_mode(&fields)?.and_then(|mode| mode.0),
    };
    call.submit(api, Command::SetRegion(profile.clone()))
        .await?;
    let name = profile.display_name.as_ref();
    Reply::ok(RegionBody {
        region: &profile.region,
        name: name.map_or(profile.region.as_str(), DisplayName::as_str),
        site_id: profile.site.as_ref(),
        lease_mode: ChosenMode(profile.lease_mode),
    })
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResourceGroup)]
struct GroupBody<'a> {
    #[schema(value_type = names::GroupName)]
    resource_group: &'a GroupName,
    #[schema(value_type = names::RunTime)]
    max_time: String,
    /// Who may use it; null is everybody.
    #[schema(value_type = Option<Vec<names::TenantName>>, required)]
    tenants: Option<Vec<&'a TenantName>>,
    #[schema(value_type = Vec<names::NodeName>)]
    nodes: Vec<&'a NodeName>,
    card_limits: Vec<CardLimitBody<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CardLimit)]
pub(in crate::rest) struct CardLimitBody<'a> {
    #[schema(value_type = names::Accelerator)]
    accelerator: Accelerator,
    /// Whose limit it is; null is everybody who has none.
    #[schema(value_type = Option<names::TenantName>, required)]
    tenant: Option<&'a TenantName>,
    /// Cards on one node; null after a limit was taken away.
    #[schema(value_type = Option<names::Count>, required)]
    cards: Option<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResourceGroups)]
pub(in crate::rest) struct Groups<'a> {
    resource_groups: Vec<GroupBody<'a>>,
}

/// `GET /api/v1/resource-groups`: every group that is described, has nodes or has card limits.
pub(in crate::rest) async fn list_groups(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let committed = call.read(api).await?;
    let state = &committed.state;
    let described = state.groups().map(|group| &group.group);
    let limited = state.card_limits().map(|(key, _)| &key.group);
    let known = described.chain(state.groups_with_nodes()).chain(limited);
    let names: BTreeSet<&GroupName> = known.collect();
    let body = |name| {
        let group = state.group(name);
        let limits = state.card_limits().filter(|(key, _)| key.group == *name);
        GroupBody {
            resource_group: name,
            max_time: run_time::format(group.and_then(|group| group.max_time_s)),
            tenants: group
                .and_then(|group| group.tenants.as_ref())
                .map(|tenants| tenants.iter().collect()),
            nodes: state.nodes_in(name).collect(),
            card_limits: limits
                .map(|(key, cards)| CardLimitBody {
                    accelerator: key.accelerator,
                    tenant: key.tenant.as_ref(),
                    cards: Some(cards),
                })
                .collect(),
        }
    };
    Reply::ok(Groups {
        resource_groups: names.into_iter().map(body).collect(),
    })
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DescribedGroup)]
pub(in crate::rest) struct GroupSaid<'a> {
    #[schema(value_type = names::GroupName)]
    resource_group: &'a GroupName,
    #[schema(value_type = names::RunTime)]
    max_time: String,
    /// Who may use it; null is everybody.
    #[schema(value_type = Option<Vec<names::TenantName>>, required)]
    tenants: Option<&'a BTreeSet<TenantName>>,
}

/// `PUT /api/v1/resource-groups/{group}`: the whole description; without `tenants` everybody may use it.
pub(in crate::rest) async fn put_group(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let fields = Fields::parse(&call.body)?;
    let max_time_s = match fields.text("max_time")? {
        None => None,
        Some(text) => run_time::parse(text)
            .ok_or_else(|| invalid("max_time", "must be unlimited or D-HH:MM:SS"))?,
    };
    let group = ResourceGroup {
        group: call.named("group", GroupName::new)?,
        max_time_s,
        tenants: fields.names("tenants", LONGEST_LIST, TenantName::new)?,
    };
    call.submit(api, Command::SetGroup(group.clone())).await?;
    Reply::ok(GroupSaid {
        resource_group: &group.group,
        max_time: run_time::format(group.max_time_s),
        tenants: group.tenants.as_ref(),
    })
}

/// `DELETE /api/v1/resource-groups/{group}`: forgets the description and the card limits; its nodes stay in it.
pub(in crate::rest) async fn delete_group(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let group = call.named("group", GroupName::new)?;
    call.submit(api, Command::RemoveGroup(group)).await?;
    Reply::done()
}

/// `PUT /api/v1/resource-groups/{group}/card-limits/{accelerator}`: cards on one node, for one tenant or for everybody.
pub(in crate::rest) async fn put_card_limit(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let rule = |_| "the accelerator must be gpu, dcu or mlu";
    let fields = Fields::parse(&call.body)?;
    let key = CardLimitKey {
        group: call.named("group", GroupName::new)?,
        tenant: fields.name("tenant", TenantName::new)?,
        accelerator: call
            .segment("accelerator")
            .parse()
            .map_err(|e| Problem::new(Kind::InvalidPath, rule(e)))?,
    };
    if !fields.has("cards") {
        return Err(missing("cards"));
    }
    // 0 would read as none set in the instance service (dialects D3.4).
    let cards = number_of(&fields, "cards")?;
    let command = Command::SetCardLimit(key.clone(), cards);
    call.submit(api, command).await?;
    Reply::ok(CardLimitBody {
        accelerator: key.accelerator,
        tenant: key.tenant.as_ref(),
        cards,
    })
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

/// `PUT /api/v1/host-resources/{resource}`: which resource groups' nodes are such hosts.
pub(in crate::rest) async fn put_host(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let fields = Fields::parse(&call.body)?;
    let groups = fields.names("resource_groups", MOST_NAMES, GroupName::new)?;
    let resource = HostResource {
        resource: call.named("resource", HostResourceName::new)?,
        groups: groups.ok_or_else(|| missing("resource_groups"))?,
    };
    let command = Command::SetHostResource(resource.clone());
    call.submit(api, command).await?;
    Reply::ok(HostResourceBody::of(&resource))
}

/// `DELETE /api/v1/host-resources/{resource}`: also every tenant's limit of it.
pub(in crate::rest) async fn delete_host(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let resource = call.named("resource", HostResourceName::new)?;
    call.submit(api, Command::RemoveHostResource(resource))
        .await?;
    Reply::done()
}
