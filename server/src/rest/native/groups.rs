//! Resource groups with their per-node card limits.

use std::collections::BTreeSet;

use gpuquota_core::State;
use gpuquota_core::command::Command;
use gpuquota_core::id::{GroupName, NodeName, TenantName};
use gpuquota_core::object::Object;
use gpuquota_core::pool::{Accelerator, CardLimitKey, ResourceGroup};
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::{none, number_of};
use crate::rest::call::{Api, Call};
use crate::rest::json::{LONGEST_LIST, invalid, missing};
use crate::rest::names;
use crate::rest::reply::Reply;
use crate::rest::status::{Kind, Problem};
use crate::run_time;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResourceGroup)]
pub(in crate::rest) struct GroupBody<'a> {
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
pub(in crate::rest) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let committed = call.read(api).await?;
    let state = &committed.state;
    let described = state.groups().map(|group| &group.group);
    let limited = state.card_limits().map(|(key, _)| &key.group);
    let known = described.chain(state.groups_with_nodes()).chain(limited);
    let names: BTreeSet<&GroupName> = known.collect();
    Reply::ok(Groups {
        resource_groups: names.into_iter().map(|name| body(state, name)).collect(),
    })
}

fn body<'a>(state: &'a State, name: &'a GroupName) -> GroupBody<'a> {
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
}

/// `GET /api/v1/resource-groups/{group}`: one that is described.
pub(in crate::rest) async fn get(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let group = call.named("group", GroupName::new)?;
    let committed = call.read(api).await?;
    let state = &committed.state;
    state.group(&group).ok_or_else(|| none("resource group"))?;
    let generation = state.generation(&Object::Group(group.clone()));
    Ok(Reply::ok(body(state, &group))?.tagged(generation))
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
pub(in crate::rest) async fn put(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let fields = call.fields()?;
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
    let object = Object::Group(group.group.clone());
    let command = Command::SetGroup(group.clone());
    let written = call.write(api, object, command).await?;
    let said = GroupSaid {
        resource_group: &group.group,
        max_time: run_time::format(group.max_time_s),
        tenants: group.tenants.as_ref(),
    };
    Ok(Reply::ok(said)?.tagged(written.generation))
}

/// `DELETE /api/v1/resource-groups/{group}`: forgets the description and the card limits; its nodes stay in it.
pub(in crate::rest) async fn delete(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let group = call.named("group", GroupName::new)?;
    let object = Object::Group(group.clone());
    call.write(api, object, Command::RemoveGroup(group)).await?;
    Reply::done()
}

/// `PUT /api/v1/resource-groups/{group}/card-limits/{accelerator}`: cards on one node, for one tenant or for everybody.
pub(in crate::rest) async fn put_card_limit(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let rule = |_| "the accelerator must be gpu, dcu or mlu";
    let fields = call.fields()?;
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
