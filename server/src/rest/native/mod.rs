//! The native API: what has no place in any foreign dialect.

mod fault;

use axum::extract::Request;
use axum::response::Response;
use gpuquota_core::Command;
use gpuquota_core::id::{NodeName, Region};
use http::header::ALLOW;
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::call::{Api, Call};
use super::json::{Fields, invalid, missing};
use super::reply::{Reply, json_response};
use super::status::{Kind, Problem};
use super::time;

pub(super) use fault::fault;

/// `GET /api/v1/nodes`: every node with its region, state and devices.
pub(super) async fn list_nodes(api: &Api, _call: &Call) -> Result<Reply, Problem> {
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
                        "licence": device.report.licence,
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
pub(super) async fn put_node(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let node =
        NodeName::new(&call.name).map_err(|e| Problem::new(Kind::InvalidPath, e.to_string()))?;
    let fields = Fields::parse(&call.body)?;
    let region = fields.text("region")?.ok_or_else(|| missing("region"))?;
    let region = Region::new(region).map_err(|e| invalid("region", e))?;
    let body = json!({ "name": node, "region": region });
    call.submit(api, Command::DeclareNode { node, region })
        .await?;
    Reply::ok(body)
}

/// `POST /api/v1/tokens/revoke` with `{"token": "…"}`: the token is refused from the next request on.
pub(super) async fn revoke_token(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let fields = Fields::parse(&call.body)?;
    let token = fields.text("token")?.ok_or_else(|| missing("token"))?;
    let verified = api
        .tokens
        .verify(token, api.clock.wall())
        .map_err(|e| invalid("token", format!("cannot be revoked: {e}")))?;
    let id = verified
        .id
        .ok_or_else(|| invalid("token", "has no id (jti) by which it could be revoked"))?;
    let body = json!({ "revoked": id, "until": time::format(verified.until) });
    let command = Command::RevokeToken {
        token: id,
        until: verified.until,
    };
    call.submit(api, command).await?;
    Reply::ok(body)
}

/// `GET /healthz`: the process answers. Needs no token and says nothing of the ledger.
pub(super) fn health(request: &Request) -> Response {
    match *request.method() {
        Method::GET | Method::HEAD => json_response(StatusCode::OK, &json!({ "status": "ok" })),
        _ => {
            let problem = Problem::new(Kind::MethodNotAllowed, "this path takes GET, HEAD");
            let (status, body) = fault(&problem);
            let mut response = json_response(status, &body);
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allowed);
            response
        }
    }
}
