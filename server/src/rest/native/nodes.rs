//! Nodes: what they are, where they stand and belong.

use gpuquota_core::command::DeclareNode;
use gpuquota_core::device::{DeviceHealth, DeviceKey, DeviceReport, GpuUuid, LicenceState};
use gpuquota_core::id::{GpuModel, GroupName, HardwareName, NodeName, Region, Seq, TenantName};
use gpuquota_core::node::{Node, NodeFacts, NodeState};
use gpuquota_core::object::Object;
use gpuquota_core::pool::Inventory;
use gpuquota_core::{Command, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::none;
use crate::rest::call::{Api, Call};
use crate::rest::json::{Fields, LONGEST_LIST, invalid, missing};
use crate::rest::names::{self, FactFields, InventoryFields};
use crate::rest::reply::Reply;
use crate::rest::status::{Kind, Problem};
use crate::rest::time;
use crate::service::policies::PolicyOf;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Nodes)]
pub(in crate::rest) struct Listed<'a> {
    nodes: Vec<NodeBody<'a>>,
    /// The journal's row up to which this holds.
    #[schema(value_type = u64)]
    seq: Seq,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Node)]
pub(in crate::rest) struct NodeBody<'a> {
    #[schema(value_type = names::NodeName)]
    name: &'a NodeName,
    #[schema(value_type = names::Region)]
    region: &'a Region,
    #[schema(value_type = names::NodeState)]
    state: NodeState,
    /// It has said since it is heard who is on its devices; until then none of them is given away.
    settled: bool,
    /// The tenant that it serves alone.
    #[schema(value_type = Option<names::TenantName>, required)]
    bound_tenant: Option<&'a TenantName>,
    #[schema(value_type = Vec<names::GroupName>)]
    resource_groups: Vec<&'a GroupName>,
    /// What the operator says is in it.
    #[schema(value_type = Option<InventoryFields>, required)]
    inventory: Option<&'a Inventory>,
    /// What its agent says of it.
    #[schema(value_type = FactFields)]
    facts: &'a NodeFacts,
    /// When its agent last looked; null before it did.
    #[schema(value_type = Option<names::Time>, required)]
    observed_at: Option<String>,
    devices: Vec<DeviceBody<'a>>,
    /// What it was told of who may hold what; null: it has no session with this server, or an earlier state was asked for.
    #[schema(required)]
    policy: Option<PolicyBody>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PolicyTold)]
struct PolicyBody {
    /// Version that was sent last.
    #[schema(value_type = u64)]
    sent: Seq,
    #[schema(value_type = names::Time)]
    sent_at: String,
    /// Version that its agent says it acts by; null: none yet. Where it is not `sent`, the agent has not taken that yet.
    #[schema(value_type = Option<u64>, required)]
    held: Option<Seq>,
}

impl PolicyBody {
    fn of(policy: PolicyOf) -> Self {
        Self {
            sent: policy.sent,
            sent_at: time::format(policy.sent_at),
            held: policy.held.map(|(version, _)| version),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Device)]
struct DeviceBody<'a> {
    #[schema(value_type = names::DeviceKey)]
    device: &'a DeviceKey,
    #[schema(value_type = names::GpuModel)]
    gpu_model: &'a GpuModel,
    /// What NVML calls it.
    model: &'a str,
    #[schema(value_type = names::DeviceHealth)]
    health: DeviceHealth,
    /// It is split into MIG instances, which are counted instead.
    partitioned: bool,
    /// Who holds it.
    #[schema(value_type = Vec<names::TenantName>)]
    tenants: &'a [TenantName],
    /// Something holds it that belongs to no known tenant.
    unattributed: bool,
    /// Null where it is no vGPU.
    #[schema(value_type = Option<names::LicenceState>, required)]
    licence: Option<LicenceState>,
}

impl<'a> DeviceBody<'a> {
    fn of(report: &'a DeviceReport) -> Self {
        Self {
            device: &report.key,
            gpu_model: &report.gpu_model,
            model: &report.model,
            health: report.health,
            partitioned: report.partitioned,
            tenants: &report.tenants,
            unattributed: report.unattributed,
            licence: report.licence,
        }
    }
}

impl<'a> NodeBody<'a> {
    fn of(
        policy: Option<PolicyBody>,
        state: &'a State,
        name: &'a NodeName,
        node: &'a Node,
    ) -> Self {
        Self {
            policy,
            name,
            region: &node.region,
            state: node.state,
            settled: node.told(),
            bound_tenant: state.bound_tenant(name),
            resource_groups: state.groups_of(name).collect(),
            inventory: node.inventory.as_ref(),
            facts: &node.facts,
            observed_at: node.observed_at.map(time::format),
            devices: node
                .devices
                .iter()
                .filter_map(|key| state.device(key))
                .map(|device| DeviceBody::of(&device.report))
                .collect(),
        }
    }
}

// What nodes were told by this server; nothing of the past.
fn policies<'a>(
    api: &'a Api,
    call: &Call,
) -> Result<impl Fn(&NodeName) -> Option<PolicyBody> + use<'a>, Problem> {
    let present = call.query.single("as_of")?.is_none();
    Ok(move |node: &NodeName| {
        let policy = api.liveness.policies.of(node).filter(|_| present);
        policy.map(PolicyBody::of)
    })
}

/// `GET /api/v1/nodes/{name}`. Its generation is about what was said of it, not about what it reports.
pub(in crate::rest) async fn get(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let name = call.named("name", NodeName::new)?;
    let committed = call.read(api).await?;
    let state = &committed.state;
    let node = state.node(&name).ok_or_else(|| none("node"))?;
    let generation = state.generation(&Object::Node(name.clone()));
    Ok(Reply::ok(NodeBody::of(
        policies(api, call)?(&name),
        state,
        &name,
        node,
    ))?
    .tagged(generation))
}

/// `GET /api/v1/nodes`: every node with what it said of itself, where it belongs and what it has.
pub(in crate::rest) async fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let committed = call.read(api).await?;
    let state = &committed.state;
    let policy = policies(api, call)?;
    Reply::ok(Listed {
        nodes: state
            .nodes()
            .map(|(name, node)| NodeBody::of(policy(name), state, name, node))
            .collect(),
        seq: state.seq(),
    })
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeclaredNode)]
pub(in crate::rest) struct Declared<'a> {
    #[schema(value_type = names::NodeName)]
    name: &'a NodeName,
    #[schema(value_type = names::Region)]
    region: &'a Region,
    /// The groups that were declared, without those that follow from its hardware.
    #[schema(value_type = Vec<names::GroupName>)]
    resource_groups: Vec<&'a GroupName>,
    #[schema(value_type = Option<InventoryFields>, required)]
    inventory: Option<&'a Inventory>,
}

impl<'a> Declared<'a> {
    fn of(name: &'a NodeName, node: &'a Node) -> Self {
        Self {
            name,
            region: &node.region,
            resource_groups: node.declared_groups.iter().collect(),
            inventory: node.inventory.as_ref(),
        }
    }
}

/// `PUT /api/v1/nodes/{name}`: where a node stands and belongs, and what is in it; what the body leaves out stays.
pub(in crate::rest) async fn put(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let node = call.named("name", NodeName::new)?;
    let fields = call.fields()?;
    let region = fields.name("region", Region::new)?;
    let declared = DeclareNode {
        node: node.clone(),
        region: region.ok_or_else(|| missing("region"))?,
        groups: fields.names("resource_groups", LONGEST_LIST, GroupName::new)?,
        inventory: inventory(&fields)?,
    };
    let object = Object::Node(node.clone());
    call.write(api, object.clone(), Command::DeclareNode(declared))
        .await?;
    let committed = api.ledger.read();
    match committed.state.node(&node) {
        Some(known) => {
            let generation = committed.state.generation(&object);
            Ok(Reply::ok(Declared::of(&node, known))?.tagged(generation))
        }
        None => Err(Problem::new(Kind::Internal, "the node is not there")),
    }
}

/// `DELETE /api/v1/nodes/{name}`: forgets a node that is no more.
pub(in crate::rest) async fn delete(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let node = call.named("name", NodeName::new)?;
    let forced = call.query.switch("force")?;
    let object = Object::Node(node.clone());
    call.write(api, object, Command::RetireNode { node, forced })
        .await?;
    Reply::done()
}

/// `DELETE /api/v1/gpus/{uuid}`: takes a GPU away from its node, so that another node may report it.
pub(in crate::rest) async fn delete_gpu(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let gpu = call.named("uuid", GpuUuid::new)?;
    let forced = call.query.switch("force")?;
    call.submit(api, Command::ForgetGpu { gpu, forced }).await?;
    Reply::done()
}

fn inventory(fields: &Fields) -> Result<Option<Inventory>, Problem> {
    let Some(fields) = fields.object("inventory")? else {
        return Ok(None);
    };
    let bytes = fields.get("memory_bytes").map(|value| {
        let bytes = value.as_u64().filter(|bytes| i64::try_from(*bytes).is_ok());
        bytes.ok_or_else(|| invalid("memory_bytes", "must be a whole number of bytes"))
    });
    Ok(Some(Inventory {
        cpu_cores: fields.count("cpu_cores")?,
        memory_bytes: bytes.transpose()?,
        gpu_product: fields.name("gpu_product", HardwareName::new)?,
        gpus: fields.count("gpus")?,
    }))
}
