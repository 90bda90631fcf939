//! Nodes: what they are, where they stand and belong.

use gpuquota_core::Command;
use gpuquota_core::command::DeclareNode;
use gpuquota_core::id::{NodeName, Region};
use serde_json::{Value, json};

use crate::rest::call::{Api, Call};
use crate::rest::json::{Fields, invalid, missing};
use crate::rest::reply::Reply;
use crate::rest::status::{Kind, Problem};
use crate::rest::time;

/// `GET /api/v1/nodes`: every node with its region, state and devices.
pub(in crate::rest) async fn list(api: &Api, _call: &Call) -> Result<Reply, Problem> {
    let committed = api.ledger.read();
    let state = &committed.state;
    let nodes: Vec<Value> = state
        .nodes()
        .map(|(name, node)| {
            let devices = node.devices.iter().filter_map(|key| state.device(key));
            let devices: Vec<Value> = devices
                .map(|device| {
                    json!({
                        "device": device.report.key,
                        "gpu_model": device.report.gpu_model,
                        "model": device.report.model,
                        "health": device.report.health,
                        "partitioned": device.report.partitioned,
                        "tenants": device.report.tenants,
                        "unattributed": device.report.unattributed,
                    })
                })
                .collect();
            json!({
                "name": name,
                "region": node.region,
                "state": node.state,
                "bound_tenant": state.bound_tenant(name),
                "facts": node.facts,
                "observed_at": node.observed_at.map(time::format),
                "devices": devices,
            })
        })
        .collect();
    Reply::ok(json!({ "nodes": nodes, "seq": state.seq() }))
}

/// `PUT /api/v1/nodes/{name}` with `{"region": "…"}`: says where a node stands.
pub(in crate::rest) async fn put(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let node = NodeName::new(call.segment("name"))
        .map_err(|e| Problem::new(Kind::InvalidPath, e.to_string()))?;
    let fields = Fields::parse(&call.body)?;
    let region = fields.text("region")?.ok_or_else(|| missing("region"))?;
    let region = Region::new(region).map_err(|e| invalid("region", e))?;
    let body = json!({ "name": node, "region": region });
    call.submit(api, Command::DeclareNode(DeclareNode::at(node, region)))
        .await?;
    Reply::ok(body)
}
