//! What a caller asks for: the body of a new lease, how long, which leases of a list.

use std::collections::BTreeMap;

use gpuquota_core::command::RequestLease;
use gpuquota_core::id::{
    DisplayName, GpuModel, LabelName, LeaseId, NodeName, ProjectId, Region, TenantName,
};
use gpuquota_core::lease::{Lease, LeasePlacement, MOST_LABELS, MOST_LEASED, OWN_LABELS};
use serde_json::Value;

use crate::rest::json::{Fields, LONGEST_LIST, invalid, misnamed, missing};
use crate::rest::native::page;
use crate::rest::native::wire::{number_of, word_of};
use crate::rest::query::Query;
use crate::rest::status::Problem;

/// A year of 365 days, seconds.
const LONGEST_S: u32 = 365 * 24 * 60 * 60;

/// Reads the body of a new lease.
pub(super) fn lease(fields: &Fields) -> Result<RequestLease, Problem> {
    let tenant = fields.name("tenant", TenantName::new)?;
    let region = fields.name("region", Region::new)?;
    let gpu_model = fields.name("gpu_model", GpuModel::new)?;
    let quota_type = word_of(fields, "type", "must be flexible, dedicated, mig or vgpu")?;
    let placement = word_of(fields, "placement", "must be devices or count_only")?;
    let nodes = fields.names("nodes", LONGEST_LIST, NodeName::new)?;
    if nodes.as_ref().is_some_and(|nodes| nodes.is_empty()) {
        return Err(invalid("nodes", "must name a node; without it any will do"));
    }
    let seconds = match fields.get("ttl_seconds") {
        None => None,
        Some(_) => Some(ttl_seconds(fields)?),
    };
    Ok(RequestLease {
        tenant: tenant.ok_or_else(|| missing("tenant"))?,
        region: region.ok_or_else(|| missing("region"))?,
        gpu_model: gpu_model.ok_or_else(|| missing("gpu_model"))?,
        quota_type,
        count: count(fields)?,
        placement: placement.unwrap_or(LeasePlacement::Devices),
        project: fields.name("project", ProjectId::new)?,
        ttl_ms: seconds.map(milliseconds),
        nodes: nodes.unwrap_or_default(),
        spread: fields.flag("spread")?.unwrap_or(false),
        most_nodes: number_of(fields, "max_nodes")?,
        cpu_cores: number_of(fields, "cpu_cores")?,
        memory_bytes: memory_bytes(fields)?,
        labels: labels(fields)?,
    })
}

/// Reads how much longer a lease is to last, milliseconds; `None` is until it is given back.
pub(super) fn renewal(fields: &Fields) -> Result<Option<u64>, Problem> {
    if !fields.has("ttl_seconds") {
        return Err(missing("ttl_seconds"));
    }
    match fields.get("ttl_seconds") {
        None => Ok(None),
        Some(_) => Ok(Some(milliseconds(ttl_seconds(fields)?))),
    }
}

fn milliseconds(seconds: u32) -> u64 {
    u64::from(seconds) * 1000
}

fn ttl_seconds(fields: &Fields) -> Result<u32, Problem> {
    let rule = format!("must be a whole number from 1 to {LONGEST_S}, or null");
    let seconds = fields.count("ttl_seconds").ok().flatten();
    seconds
        .filter(|seconds| (1..=LONGEST_S).contains(seconds))
        .ok_or_else(|| invalid("ttl_seconds", rule))
}

fn count(fields: &Fields) -> Result<u32, Problem> {
    let rule = format!("must be a whole number from 1 to {MOST_LEASED}");
    let Ok(count) = fields.count("count") else {
        return Err(invalid("count", rule));
    };
    match count.ok_or_else(|| missing("count"))? {
        count @ 1..=MOST_LEASED => Ok(count),
        _ => Err(invalid("count", rule)),
    }
}

fn memory_bytes(fields: &Fields) -> Result<Option<u64>, Problem> {
    let bytes = fields.get("memory_bytes").map(|value| {
        let bytes = value.as_u64().filter(|bytes| i64::try_from(*bytes).is_ok());
        bytes.ok_or_else(|| invalid("memory_bytes", "must be a whole number of bytes"))
    });
    bytes.transpose()
}

fn labels(fields: &Fields) -> Result<BTreeMap<LabelName, DisplayName>, Problem> {
    let Some(given) = fields.object("labels")? else {
        return Ok(BTreeMap::new());
    };
    if given.entries().len() > MOST_LABELS {
        let rule = format!("must be at most {MOST_LABELS} labels");
        return Err(invalid("labels", rule));
    }
    let label = |(name, value): (&str, &Value)| {
        let name = LabelName::new(name).map_err(|e| misnamed("a name of labels", &e))?;
        if name.as_str().starts_with(OWN_LABELS) {
            let rule = format!(
                "must not have names that begin with {OWN_LABELS}: they are the server's own"
            );
            return Err(invalid("labels", rule));
        }
        let text = value.as_str();
        let text = text.ok_or_else(|| invalid("labels", "must be names with texts"))?;
        let text = DisplayName::new(text).map_err(|e| misnamed("a text of labels", &e))?;
        Ok((name, text))
    };
    given.entries().map(label).collect()
}

/// Reads a lease's number.
pub(super) fn number(text: &str) -> Result<LeaseId, &'static str> {
    page::number_in_path(text)
        .filter(|number| *number > 0)
        .map(LeaseId)
        .ok_or("a lease's number is a whole number from 1 to 999999999999999999")
}

/// Which leases a list shows.
pub(super) struct Filter<'a> {
    tenant: Option<&'a str>,
    region: Option<&'a str>,
    project: Option<&'a str>,
    node: Option<&'a str>,
    state: Option<&'a str>,
    /// Only those with a higher number.
    pub(super) after: LeaseId,
    /// So many at most.
    pub(super) limit: usize,
}

impl<'a> Filter<'a> {
    pub(super) fn read(query: &'a Query) -> Result<Self, Problem> {
        let state = query.single("state")?;
        if state.is_some_and(|state| !["active", "releasing", "ended"].contains(&state)) {
            return Err(invalid("state", "must be active, releasing or ended"));
        }
        Ok(Self {
            tenant: query.single("tenant")?,
            region: query.single("region")?,
            project: query.single("project")?,
            node: query.single("node")?,
            state,
            after: LeaseId(page::after(query)?.unwrap_or(0)),
            limit: page::limit(query)?,
        })
    }

    /// Whether it is about leases that are charged no more.
    pub(super) fn ended(&self) -> bool {
        self.state == Some("ended")
    }

    pub(super) fn takes(&self, lease: &Lease) -> bool {
        let is = |wanted: Option<&str>, has: &str| wanted.is_none_or(|wanted| wanted == has);
        let terms = &lease.terms;
        let project = terms.project.as_ref().map(ProjectId::as_str);
        let state = match self.state {
            Some(state) => lease.state() == state,
            None => lease.live(),
        };
        state
            && is(self.tenant, terms.tenant.as_str())
            && is(self.region, terms.region.as_str())
            && self.project.is_none_or(|wanted| project == Some(wanted))
            && self
                .node
                .is_none_or(|node| lease.devices.values().any(|at| at.as_str() == node))
    }
}
