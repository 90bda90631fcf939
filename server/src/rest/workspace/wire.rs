//! The answer of the workspace dialect, with every oddity of it.

use std::collections::BTreeMap;

use gpuquota_core::State;
use gpuquota_core::id::{ProjectId, SiteId, TenantName};
use gpuquota_core::limit::Limit;
use gpuquota_core::pool::Counter;
use gpuquota_core::usage::usage;
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::json::LARGEST_COUNT;
use crate::rest::names;

/// How the dialect, which has no -1, writes that there is no limit (D2.6).
const UNLIMITED: u32 = LARGEST_COUNT;
const GIB: u64 = 1 << 30;

/// Where the figures of a resource come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Its own system counts it.
    Counted,
    /// Logical CPUs of held nodes.
    Cores,
    /// Main memory of held nodes.
    Memory,
    /// The ledger of GPUs.
    Gpus,
    /// Nodes bound to the tenant.
    Hosts,
}

/// The document's types in its example's order; `deh` stands in its table only (D2.4).
const TYPES: [(&str, Source); 10] = [
    ("general_instances", Source::Counted),
    ("volumes", Source::Counted),
    ("volume_gigabytes", Source::Counted),
    ("cores", Source::Cores),
    ("Memory", Source::Memory),
    ("gpu_instances", Source::Gpus),
    ("deh", Source::Hosts),
    ("users", Source::Counted),
    ("policy_groups", Source::Counted),
    ("Cores", Source::Counted),
];

/// The whole answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Workspace::Answer)]
pub(in crate::rest) struct Answer<'a> {
    quotas: Quotas<'a>,
    /// The other sites; never the central one.
    site_quotas: Vec<SiteQuotas<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Workspace::Quotas)]
struct Quotas<'a> {
    resources: Vec<Row<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Workspace::SiteQuotas)]
struct SiteQuotas<'a> {
    #[schema(value_type = names::WrittenSite)]
    site_id: WrittenSite<'a>,
    resources: Vec<Row<'a>>,
}

/// Typed as a String, a number in the example (D2.5).
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum WrittenSite<'a> {
    Text(&'a str),
    Number(i64),
}

#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Workspace::Row)]
struct Row<'a> {
    #[serde(rename = "type")]
    #[schema(value_type = names::ResourceKind)]
    kind: &'a str,
    /// 2147483647 where there is no limit.
    #[schema(value_type = names::Count)]
    quota: u32,
    /// `GB`; only there for `Memory` and `volume_gigabytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    unit: Option<&'static str>,
    #[schema(value_type = names::Count)]
    used: u32,
}

/// What a tenant has at one site.
#[derive(Debug, Default)]
struct Place<'a> {
    granted: u64,
    charged: u64,
    nodes: u64,
    cores: u64,
    memory_bytes: u64,
    hosts: u64,
    /// Set at the central site when the tenant has a limit of hosts, or hosts.
    host_limit: Option<u32>,
    counters: BTreeMap<&'a str, &'a Counter>,
}

/// A project's figures: those of its tenant, and what its own systems count for it.
pub(super) fn answer<'a>(
    state: &'a State,
    tenant: &TenantName,
    project: &ProjectId,
    numbered: bool,
) -> Answer<'a> {
    let mut places = places(state, tenant, project);
    let binds = places.values().any(|place| place.hosts > 0);
    let mut central = places.remove(&None).unwrap_or_default();
    // Whoever has no limit and no host has no business with hosts. A limit holds for all sites together, so it stands at
    // none of them.
    if binds || state.host_limits_of(tenant).next().is_some() {
        central.host_limit = host_limit(state, tenant);
    }
    let sites = places.into_iter().filter_map(|(site, place)| {
        Some(SiteQuotas {
            site_id: written(site?, numbered),
            resources: site_rows(&place),
        })
    });
    Answer {
        quotas: Quotas {
            resources: central_rows(&central),
        },
        site_quotas: sites.collect(),
    }
}

fn places<'a>(
    state: &'a State,
    tenant: &TenantName,
    project: &ProjectId,
) -> BTreeMap<Option<&'a SiteId>, Place<'a>> {
    let mut places: BTreeMap<Option<&SiteId>, Place<'_>> = BTreeMap::new();
    let usage = usage(state, tenant);
    for quota in state.quotas_of(tenant) {
        let place = places.entry(state.site_of(&quota.key.region)).or_default();
        place.granted += u64::from(shown(quota.grants()));
        place.charged += usage.of(quota.id);
    }
    let bound = state.bound_nodes(tenant);
    for name in state.held_nodes(tenant) {
        // A quota may name a node that nobody has seen or declared.
        let Some(node) = state.node(name) else {
            continue;
        };
        let place = places.entry(state.site_of(&node.region)).or_default();
        place.nodes += 1;
        place.cores += node.cpu_cores().map_or(0, u64::from);
        let memory_bytes = node.memory_bytes().unwrap_or(0);
        place.memory_bytes = place.memory_bytes.saturating_add(memory_bytes);
        let mut kinds = state.host_resources();
        if bound.contains(name) && kinds.any(|kind| state.is_host(name, kind)) {
            place.hosts += 1;
        }
    }
    for (site, kind, counter) in state.counters_of(project) {
        let place = places.entry(site).or_default();
        place.counters.insert(kind.as_str(), counter);
    }
    places
}

// All kinds of hosts together; `None` while there are no kinds.
fn host_limit(state: &State, tenant: &TenantName) -> Option<u32> {
    let limits = state
        .host_resources()
        .map(|kind| u64::from(shown(state.host_limit(tenant, &kind.resource))));
    limits.reduce(|sum, limit| sum + limit).map(count)
}

// The document's types are all there, reported or not.
fn central_rows<'a>(place: &Place<'a>) -> Vec<Row<'a>> {
    let known = TYPES
        .into_iter()
        .filter(|(_, source)| *source != Source::Hosts || place.host_limit.is_some());
    known
        .map(|(kind, source)| place.row(kind, source))
        .chain(place.other_rows())
        .collect()
}

// GPUs, and else only what there is at the site.
fn site_rows<'a>(place: &Place<'a>) -> Vec<Row<'a>> {
    let known = TYPES.into_iter().filter(|(kind, source)| match source {
        Source::Counted => place.counters.contains_key(kind),
        Source::Cores | Source::Memory => place.nodes > 0 || place.quota(kind).is_some(),
        Source::Gpus | Source::Hosts => false,
    });
    std::iter::once(place.row("gpu_instances", Source::Gpus))
        .chain(known.map(|(kind, source)| place.row(kind, source)))
        .chain(place.other_rows())
        .collect()
}

impl<'a> Place<'a> {
    fn row(&self, kind: &'a str, source: Source) -> Row<'a> {
        let (quota, used) = match source {
            Source::Counted => (self.quota(kind).unwrap_or(0), self.used(kind)),
            Source::Cores => (self.quota(kind).unwrap_or(UNLIMITED), count(self.cores)),
            Source::Memory => (
                self.quota(kind).unwrap_or(UNLIMITED),
                count(self.memory_bytes.saturating_add(GIB / 2) / GIB),
            ),
            Source::Gpus => (count(self.granted), count(self.charged)),
            Source::Hosts => (self.host_limit.unwrap_or(0), count(self.hosts)),
        };
        Row {
            kind,
            quota,
            unit: matches!(kind, "Memory" | "volume_gigabytes").then_some("GB"),
            used,
        }
    }

    // What the document does not know, by name.
    fn other_rows(&self) -> impl Iterator<Item = Row<'a>> {
        let known = |kind: &str| TYPES.iter().any(|(known, _)| *known == kind);
        let others = self.counters.keys().filter(move |kind| !known(kind));
        others.map(|kind| self.row(kind, Source::Counted))
    }

    // What its own system said of a limit.
    fn quota(&self, kind: &str) -> Option<u32> {
        self.counters.get(kind)?.quota.map(shown)
    }

    fn used(&self, kind: &str) -> u32 {
        let used = self.counters.get(kind).and_then(|counter| counter.used);
        used.map_or(0, |used| used.min(LARGEST_COUNT))
    }
}

// One without leading zeros only, so that two sites never become one number.
fn written(site: &SiteId, numbered: bool) -> WrittenSite<'_> {
    let text = site.as_str();
    match text.parse::<i64>() {
        Ok(number) if numbered && number.to_string() == text => WrittenSite::Number(number),
        _ => WrittenSite::Text(text),
    }
}

fn shown(limit: Limit) -> u32 {
    match limit {
        Limit::Unlimited => UNLIMITED,
        Limit::Finite(limit) => limit.min(LARGEST_COUNT),
    }
}

// Nothing above the largest count is written.
fn count(sum: u64) -> u32 {
    u32::try_from(sum).map_or(LARGEST_COUNT, |sum| sum.min(LARGEST_COUNT))
}
