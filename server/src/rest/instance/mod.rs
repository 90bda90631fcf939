//! Document 002, the instance service: GET `/ai/openapi/v2/instance-service/resources`, what one node of a resource group
//! has and how much of it the caller may have.

mod fault;
mod hardware;
mod kept;
mod wire;

use std::collections::BTreeSet;

use gpuquota_core::State;
use gpuquota_core::id::{GroupName, TenantName};
use gpuquota_core::pool::Accelerator;

use super::call::{Api, Call};
use super::reply::Reply;
use super::status::{Kind, Problem};
use crate::auth::{Principal, Role};
use crate::run_time;
use kept::Figures;
use wire::Resources;

pub(super) use fault::fault;
pub(super) use kept::KeptGroups;
pub(super) use wire::Answer;

/// Shows a group's hardware and the caller's limits on it.
pub(super) async fn resources(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let committed = api.ledger.read();
    let state = &committed.state;
    let tenants = call.principal.acts_for(state);
    if tenants.is_empty() && call.principal.role != Role::Admin {
        return Err(Problem::new(
            Kind::Forbidden,
            "the token is for no tenant that is known here",
        ));
    }
    check_frozen(state, &call.principal, &tenants)?;
    let asked = wire::read(&call.query)?;
    let group = &asked.group;
    let tenants = check_group(state, &call.principal, tenants, group)?;
    let Figures { largest, up } = api.kept.groups.of(state, group);
    let limit = |accelerator| card_limit(state, group, &tenants, accelerator);
    Reply::ok(Answer::from(Resources {
        id: call.principal.container.as_deref(),
        cpu_number: largest.cpu_cores,
        mlu_limits: limit(Accelerator::Mlu),
        dcu_limits: limit(Accelerator::Dcu),
        nv_limits: limit(Accelerator::Gpu),
        // Agents see NVIDIA's cards only.
        gpu_number: match asked.accelerator {
            Accelerator::Gpu => largest.gpus,
            Accelerator::Dcu | Accelerator::Mlu => 0,
        },
        memory_size: largest.memory_bytes >> 20,
        resource_group: group.as_str(),
        user_name: call.principal.user.as_deref(),
        node_number: up,
        max_time: run_time::format(state.group(group).and_then(|group| group.max_time_s)),
    }))
}

// An account is frozen when there is nobody left for whom it could act.
fn check_frozen(
    state: &State,
    principal: &Principal,
    tenants: &BTreeSet<TenantName>,
) -> Result<(), Problem> {
    let frozen = |tenant| {
        state
            .tenant(tenant)
            .is_some_and(|tenant| tenant.profile.frozen)
    };
    if principal.role == Role::Admin || tenants.is_empty() || !tenants.iter().all(frozen) {
        return Ok(());
    }
    Err(Problem::new(Kind::Frozen, "this account is frozen"))
}

// The tenants for which the caller may use the group.
fn check_group(
    state: &State,
    principal: &Principal,
    mut tenants: BTreeSet<TenantName>,
    group: &GroupName,
) -> Result<BTreeSet<TenantName>, Problem> {
    let described = state.group(group);
    if described.is_none() && state.nodes_in(group).next().is_none() {
        return Err(wire::no_group());
    }
    let Some(users) = described.and_then(|group| group.tenants.as_ref()) else {
        return Ok(tenants);
    };
    tenants.retain(|tenant| users.contains(tenant));
    if tenants.is_empty() && principal.role != Role::Admin {
        return Err(Problem::new(
            Kind::Forbidden,
            "this account may not use that resource group",
        ));
    }
    Ok(tenants)
}

// 0 is none set; of several tenants the smallest.
fn card_limit(
    state: &State,
    group: &GroupName,
    tenants: &BTreeSet<TenantName>,
    accelerator: Accelerator,
) -> u32 {
    let limit = |tenant| state.card_limit(group, tenant, accelerator);
    let smallest = match tenants.is_empty() {
        true => limit(None),
        false => tenants
            .iter()
            .filter_map(|tenant| limit(Some(tenant)))
            .min(),
    };
    smallest.unwrap_or(0)
}
