//! Nodes and certificates that are refused.

use gpuquota_core::Command;
use gpuquota_core::ban::{Banned, Serial};
use gpuquota_core::id::NodeName;
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::call::{Api, Call};
use crate::rest::json::{invalid, missing};
use crate::rest::names;
use crate::rest::reply::Reply;
use crate::rest::status::{Kind, Problem};
use crate::rest::time;

/// One ban, of a node or of a certificate.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ban)]
pub(in crate::rest) struct BanBody {
    /// Whatever its certificate.
    #[schema(value_type = Option<names::NodeName>, required)]
    node: Option<String>,
    /// Of one certificate.
    #[schema(value_type = Option<names::CertificateSerial>, required)]
    serial: Option<String>,
    /// Since when; who did it and why stands in the audit.
    #[schema(value_type = names::Time)]
    since: String,
}

/// All bans.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Bans)]
pub(in crate::rest) struct Listed {
    bans: Vec<BanBody>,
}

impl BanBody {
    fn of(who: &Banned, since: gpuquota_core::id::Timestamp) -> Self {
        let (node, serial) = match who {
            Banned::Node(node) => (Some(node.to_string()), None),
            Banned::Serial(serial) => (None, Some(serial.as_str().to_owned())),
        };
        Self {
            node,
            serial,
            since: time::format(since),
        }
    }
}

fn banned(node: Option<&str>, serial: Option<&str>) -> Result<Banned, Problem> {
    match (node, serial) {
        (Some(node), None) => NodeName::new(node)
            .map(Banned::Node)
            .map_err(|e| invalid("node", e)),
        (None, Some(serial)) => Serial::new(serial)
            .map(Banned::Serial)
            .map_err(|e| invalid("serial", e)),
        (Some(_), Some(_)) => Err(invalid("serial", "cannot stand beside node")),
        (None, None) => Err(missing("node")),
    }
}

/// `GET /api/v1/bans`.
pub(in crate::rest) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let committed = call.read(api).await?;
    let bans = committed.state.bans();
    Reply::ok(Listed {
        bans: bans.map(|(who, since)| BanBody::of(who, since)).collect(),
    })
}

/// `POST /api/v1/bans` with `{"node": "…"}` or `{"serial": "…"}`.
pub(in crate::rest) async fn post(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let fields = call.fields()?;
    let who = banned(fields.text("node")?, fields.text("serial")?)?;
    call.submit(api, Command::Ban(who.clone(), true)).await?;
    let committed = api.ledger.read();
    let known = committed.state.bans().find(|(known, _)| **known == who);
    let (_, since) = known.ok_or_else(|| Problem::new(Kind::InUse, "the ban was lifted"))?;
    Reply::ok(BanBody::of(&who, since))
}

/// `DELETE /api/v1/bans?node=N` or `?serial=S`.
pub(in crate::rest) async fn delete(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let who = banned(call.query.single("node")?, call.query.single("serial")?)?;
    call.submit(api, Command::Ban(who, false)).await?;
    Reply::done()
}
