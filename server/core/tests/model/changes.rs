//! What is said not to have changed has not.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::State;
use gpuquota_core::device::DeviceKind;
use gpuquota_core::id::TenantName;
use gpuquota_core::licence_usage::licence_usage;
use gpuquota_core::usage::usage;

/// Compares the figures that somebody may have kept, where `after` says that its last row left them.
pub(crate) fn kept(before: &State, after: &State) {
    let seq = after.seq();
    let names = after.tenants().map(|(name, _)| name).chain(after.holders());
    let names: BTreeSet<&TenantName> = names.chain(before.holders()).collect();
    for name in names {
        if after.changes().of_tenant(name) < seq {
            assert_eq!(of_tenant(before, name), of_tenant(after, name), "{name}");
        }
    }
    if after.changes().of_nodes() < seq {
        assert_eq!(nodes(before), nodes(after));
    }
    if after.changes().of_licences() < seq {
        assert_eq!(licences(before), licences(after));
    }
    let listed = after.tenants_with_quotas().count();
    let counted = after
        .tenants()
        .filter(|(name, _)| after.quotas_of(name).next().is_some());
    assert_eq!(listed, counted.count(), "tenants with quotas");
}

fn of_tenant(state: &State, name: &TenantName) -> String {
    let quotas: Vec<_> = state.quotas_of(name).collect();
    let profile = state.tenant(name).map(|tenant| &tenant.profile);
    let usage = usage(state, name);
    let figures = (usage.used, usage.leased, usage.observed);
    format!("{profile:?} {quotas:?} {figures:?}")
}

fn nodes(state: &State) -> Vec<String> {
    let all = state.nodes().map(|(name, node)| {
        let gpus = node
            .devices
            .iter()
            .filter(|key| key.kind() == DeviceKind::Gpu);
        let groups: Vec<_> = state.groups_of(name).collect();
        format!(
            "{name} {:?} {:?} {:?} {groups:?} {}",
            node.state,
            node.cpu_cores(),
            node.memory_bytes(),
            gpus.count()
        )
    });
    all.collect()
}

fn licences(state: &State) -> String {
    let used: BTreeMap<_, _> = state
        .tenants()
        .map(|(name, tenant)| (tenant.profile.number, licence_usage(state, name)))
        .filter(|(_, used)| !used.is_empty())
        .collect();
    let quotas: Vec<_> = state.licence_quotas().collect();
    let products: Vec<_> = state.products().collect();
    format!("{used:?} {quotas:?} {products:?}")
}
