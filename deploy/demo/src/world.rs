//! What REST and all `/metrics` say at one moment.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::exposition::{Sample, Scrape};

/// Which quota.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QuotaKey {
    /// Whose.
    pub(crate) tenant: String,
    /// Where.
    pub(crate) region: String,
    /// purchase or assign.
    pub(crate) source: String,
    /// flexible, dedicated, mig or vgpu.
    pub(crate) quota_type: String,
    /// Of what.
    pub(crate) gpu_model: String,
}

/// What the server's metrics say of a quota.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quota {
    /// Which.
    pub(crate) key: QuotaKey,
    /// Infinite when unlimited.
    pub(crate) limit: f64,
    /// Charged to it.
    pub(crate) used: f64,
    /// Held by processes.
    pub(crate) observed: f64,
    /// Whether it still grants.
    pub(crate) active: bool,
}

/// Devices that a tenant holds without justification.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Violation {
    /// Who.
    pub(crate) tenant: String,
    /// Where.
    pub(crate) node: String,
    /// squatter, foreign or over_quota.
    pub(crate) class: String,
    /// How many.
    pub(crate) devices: f64,
}

/// A node as the native API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    /// Where it stands.
    pub(crate) region: String,
    /// expected, up or silent.
    pub(crate) state: String,
    /// To whom it is dedicated.
    pub(crate) bound_tenant: Option<String>,
    /// Its devices that can be held.
    pub(crate) devices: Vec<Device>,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// `nvidia.com/gpu` or a MIG profile's name.
    pub(crate) gpu_model: String,
    /// Who holds it.
    pub(crate) tenants: Vec<String>,
    /// Whether somebody unknown holds it too.
    pub(crate) unattributed: bool,
    /// Whether it answers: not lost, not hung.
    pub(crate) answers: bool,
}

/// What REST and all `/metrics` say at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    /// The list of the GPU quota dialect.
    pub(crate) listing: Value,
    /// The server's scrape.
    pub(crate) server: Scrape,
    /// All quotas, as the server's metrics have them.
    pub(crate) quotas: Vec<Quota>,
    /// All violations.
    pub(crate) violations: Vec<Violation>,
    /// All nodes.
    pub(crate) nodes: Vec<Node>,
    /// The scrapes of the agents that answer.
    pub(crate) agents: BTreeMap<String, Scrape>,
}

impl World {
    /// Puts the answers together.
    pub(crate) fn new(
        listing: Value,
        nodes: &Value,
        server: Scrape,
        agents: BTreeMap<String, Scrape>,
    ) -> Self {
        Self {
            quotas: quotas(&server),
            violations: violations(&server),
            nodes: list(nodes, "/nodes").map(node).collect(),
            listing,
            server,
            agents,
        }
    }

    /// A quota's row.
    pub(crate) fn quota(&self, key: &QuotaKey) -> Option<&Quota> {
        self.quotas.iter().find(|quota| quota.key == *key)
    }

    /// `used_count` and `total_count` of the list's entry for a quota.
    pub(crate) fn listed(&self, key: &QuotaKey) -> Option<(u64, u64)> {
        let tenants = list(&self.listing, "/data/items");
        let items = tenants.filter(|item| {
            text(item, "tenant_name") == key.tenant && text(item, "quota_source") == key.source
        });
        let mut entries = items.flat_map(|item| list(item, "/quota_types"));
        let entry = entries.find(|entry| {
            let mut details = list(entry, "/quota_details");
            let ours = |detail: &Value| {
                text(detail, "region") == key.region && text(detail, "gpu_model") == key.gpu_model
            };
            text(entry, "quota_type") == key.quota_type && details.any(ours)
        })?;
        let count = |name| entry.get(name).and_then(Value::as_u64);
        Some((count("used_count")?, count("total_count")?))
    }
}

fn quotas(server: &Scrape) -> Vec<Quota> {
    let row = |limit: &Sample| {
        let labels = ["tenant", "region", "source", "type", "gpu_model"];
        let labels = labels.map(|name| (name, limit.label(name)));
        let [tenant, region, source, quota_type, gpu_model] =
            labels.map(|(_, value)| value.to_owned());
        let of = |name| server.value(name, &labels);
        Quota {
            limit: limit.value,
            used: of("gpuquota_quota_used").unwrap_or(f64::NAN),
            observed: of("gpuquota_quota_observed").unwrap_or(f64::NAN),
            active: of("gpuquota_quota_active") != Some(0.0),
            key: QuotaKey {
                tenant,
                region,
                source,
                quota_type,
                gpu_model,
            },
        }
    };
    server.named("gpuquota_quota_limit").map(row).collect()
}

fn violations(server: &Scrape) -> Vec<Violation> {
    let row = |sample: &Sample| Violation {
        tenant: sample.label("tenant").to_owned(),
        node: sample.label("node").to_owned(),
        class: sample.label("class").to_owned(),
        devices: sample.value,
    };
    let rows = server.named("gpuquota_violations").map(row);
    rows.filter(|row| row.devices > 0.0).collect()
}

fn node(value: &Value) -> Node {
    // A GPU in MIG mode cannot be held itself.
    let held = |device: &&Value| device.get("partitioned") != Some(&Value::Bool(true));
    Node {
        name: text(value, "name").to_owned(),
        region: text(value, "region").to_owned(),
        state: text(value, "state").to_owned(),
        bound_tenant: value
            .get("bound_tenant")
            .and_then(Value::as_str)
            .map(ToOwned::to_owned),
        devices: list(value, "/devices").filter(held).map(device).collect(),
    }
}

fn device(value: &Value) -> Device {
    let tenants = list(value, "/tenants").filter_map(Value::as_str);
    Device {
        gpu_model: text(value, "gpu_model").to_owned(),
        tenants: tenants.map(ToOwned::to_owned).collect(),
        unattributed: value.get("unattributed") == Some(&Value::Bool(true)),
        answers: text(value, "health") == "ok",
    }
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    let found = value.pointer(pointer).and_then(Value::as_array);
    found.into_iter().flatten()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rest_and_metrics_are_read_by_the_same_key() {
        let labels = "tenant=\"t\",region=\"US\",source=\"assign\",type=\"dedicated\",gpu_model=\"nvidia.com/gpu\"";
        let metrics = format!(
            "gpuquota_quota_limit{{{labels}}} 1\ngpuquota_quota_used{{{labels}}} 2\ngpuquota_quota_observed{{{labels}}} 2\ngpuquota_violations{{tenant=\"t\",node=\"n\",class=\"over_quota\"}} 1\n"
        );
        let listing = json!({"data": {"items": [
            {"tenant_name": "t", "quota_source": "assign", "region": "US", "quota_types": [{
                "quota_type": "dedicated", "gpu_model": "nvidia.com/gpu", "used_count": 2, "total_count": 1,
                "quota_details": [{"region": "US", "gpu_model": "nvidia.com/gpu", "count": 1}]}]}]}});
        let nodes = json!({"nodes": [{"name": "n", "region": "US", "state": "up", "bound_tenant": "t", "devices": [
            {"gpu_model": "nvidia.com/gpu", "partitioned": true},
            {"gpu_model": "nvidia.com/gpu", "partitioned": false, "tenants": ["t"], "unattributed": true}]}]});
        let world = World::new(listing, &nodes, Scrape::parse(&metrics), BTreeMap::new());
        let quota = world.quotas.first().unwrap();
        assert_eq!((quota.limit, quota.used, quota.active), (1.0, 2.0, true));
        assert_eq!(world.listed(&quota.key), Some((2, 1)));
        assert_eq!(world.violations.len(), 1);
        let node = world.nodes.first().unwrap();
        assert_eq!(node.devices.len(), 1);
        assert_eq!(node.devices[0].tenants, ["t"]);
        assert!(node.devices[0].unattributed);
        let other = QuotaKey {
            region: "TW".to_owned(),
            ..quota.key.clone()
        };
        assert_eq!(world.listed(&other), None);
    }
}
