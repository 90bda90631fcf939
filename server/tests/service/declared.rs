//! What operators, other systems and agents say, as commands to the ledger.

use gpuquota_core::command::{
    DeclareNode, NodeReport, OnExcess, QuotaName, SetCounter, SetQuota, SetTenant,
};
use gpuquota_core::device::{DeviceHealth, DeviceKey, DeviceReport};
use gpuquota_core::id::{
    GpuModel, GroupName, HostResourceName, NodeName, ProjectId, Region, ResourceKind, SessionId,
    SiteId, TenantName, Timestamp,
};
use gpuquota_core::limit::Limit;
use gpuquota_core::node::NodeFacts;
use gpuquota_core::pool::{Counter, HostLimitKey, HostResource, Inventory, RegionProfile};
use gpuquota_core::quota::{QuotaSource, QuotaType};
use gpuquota_core::{Command, Outcome};
use gpuquota_server::service::Origin;

use crate::running::Running;

impl Running {
    /// Commands that must be granted, one after the other.
    pub(crate) async fn told(&self, commands: impl IntoIterator<Item = Command>) {
        for command in commands {
            let said = format!("{command:?}");
            let granted = self.ledger.submit(command, Origin::server()).await;
            assert!(granted.is_ok(), "{said}: {granted:?}");
        }
    }

    /// The first full report of a node in a new session.
    pub(crate) async fn reported(&self, name: &str, facts: NodeFacts, devices: Vec<DeviceReport>) {
        let open = Command::OpenSession {
            node: node(name),
            default_region: Region::new("default").unwrap(),
            boot_id: "boot".into(),
            agent_version: "test".into(),
        };
        let opened = self.ledger.submit(open, Origin::server()).await.unwrap();
        let session = match opened.outcome {
            Outcome::Session(session) => Some(session),
            _ => None,
        };
        let session = session.unwrap();
        self.told([Command::Report(report(name, session, facts, devices))])
            .await;
    }
}

fn report(
    name: &str,
    session: SessionId,
    facts: NodeFacts,
    devices: Vec<DeviceReport>,
) -> NodeReport {
    NodeReport {
        node: node(name),
        session,
        spool: format!("spool-{}", session.0),
        number: 1,
        age_ms: Some(0),
        heard_at: None,
        read_after: Some(gpuquota_core::id::Seq(u64::MAX)),
        full: true,
        facts: Some(facts),
        devices,
        gone: Vec::new(),
    }
}

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(crate) fn tenant(name: &str, projects: &[&str]) -> Command {
    let projects = projects.iter().map(|id| ProjectId::new(id).unwrap());
    Command::SetTenant(SetTenant {
        tenant: TenantName::new(name).unwrap(),
        number: None,
        display_name: None,
        code: None,
        projects: Some(projects.collect()),
        frozen: None,
        confined: None,
        lease_mode: None,
        enforcement: None,
    })
}

pub(crate) fn region(name: &str, site: Option<&str>) -> Command {
    Command::SetRegion(RegionProfile {
        region: Region::new(name).unwrap(),
        display_name: None,
        site: site.map(|site| SiteId::new(site).unwrap()),
        lease_mode: None,
        enforcement: None,
    })
}

/// A node in a region, in these groups, with so many CPUs and bytes when the operator says so.
pub(crate) fn declared(
    name: &str,
    region: &str,
    groups: &[&str],
    has: Option<(u32, u64)>,
) -> Command {
    let groups = groups.iter().map(|group| GroupName::new(group).unwrap());
    Command::DeclareNode(DeclareNode {
        groups: Some(groups.collect()),
        inventory: has.map(|(cpus, bytes)| Inventory {
            cpu_cores: Some(cpus),
            memory_bytes: Some(bytes),
            ..Inventory::default()
        }),
        ..DeclareNode::at(node(name), Region::new(region).unwrap())
    })
}

/// A purchased quota of full GPUs that does not end.
pub(crate) fn quota(tenant: &str, region: &str, model: &str, limit: Limit) -> SetQuota {
    SetQuota {
        name: QuotaName {
            tenant: TenantName::new(tenant).unwrap(),
            region: Region::new(region).unwrap(),
            source: QuotaSource::Purchase,
            gpu_model: GpuModel::new(model).unwrap(),
            quota_type: Some(QuotaType::Flexible),
            reference: None,
        },
        limit,
        expires_at: None,
        nodes: None,
        on_excess: OnExcess::Deny,
    }
}

pub(crate) fn until(set: SetQuota, ms: i64) -> SetQuota {
    SetQuota {
        expires_at: Some(Timestamp(ms)),
        ..set
    }
}

/// The quota dedicated to these nodes.
pub(crate) fn on(set: SetQuota, nodes: &[&str]) -> SetQuota {
    SetQuota {
        name: QuotaName {
            quota_type: Some(QuotaType::Dedicated),
            ..set.name
        },
        nodes: Some(nodes.iter().map(|name| node(name)).collect()),
        ..set
    }
}

pub(crate) fn counter(
    project: &str,
    site: Option<&str>,
    kind: &str,
    quota: Option<Limit>,
    used: Option<u32>,
) -> Command {
    Command::SetCounter(SetCounter {
        project: ProjectId::new(project).unwrap(),
        site: site.map(|site| SiteId::new(site).unwrap()),
        kind: ResourceKind::new(kind).unwrap(),
        counter: Some(Counter {
            quota,
            used,
            unit: None,
        }),
    })
}

/// A kind of dedicated host.
pub(crate) fn hosts(resource: &str, groups: &[&str]) -> Command {
    let groups = groups.iter().map(|group| GroupName::new(group).unwrap());
    Command::SetHostResource(HostResource {
        resource: HostResourceName::new(resource).unwrap(),
        groups: groups.collect(),
    })
}

pub(crate) fn host_limit(tenant: &str, resource: &str, limit: u32) -> Command {
    let key = HostLimitKey {
        tenant: TenantName::new(tenant).unwrap(),
        resource: HostResourceName::new(resource).unwrap(),
    };
    Command::SetHostLimit(key, Some(Limit::Finite(limit)))
}

pub(crate) fn facts(cpu_cores: Option<u32>, memory_bytes: Option<u64>) -> NodeFacts {
    NodeFacts {
        cpu_cores,
        memory_bytes,
        nvml: "ok".into(),
        ..NodeFacts::default()
    }
}

/// A full GPU that these tenants hold.
pub(crate) fn gpu(uuid: &str, model: &str, tenants: &[&str]) -> DeviceReport {
    DeviceReport {
        key: DeviceKey::gpu(uuid).unwrap(),
        health: DeviceHealth::Ok,
        model: "NVIDIA H100 80GB HBM3".into(),
        gpu_model: GpuModel::new(model).unwrap(),
        profile: None,
        memory_total_bytes: Some(80 << 30),
        partitioned: false,
        tenants: tenants
            .iter()
            .map(|tenant| TenantName::new(tenant).unwrap())
            .collect(),
        unattributed: false,
        licence: None,
        licence_expires_at: None,
        vm: None,
        parent: None,
        numa: None,
        nvlink: None,
    }
}
