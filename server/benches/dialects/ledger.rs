//! A ledger with 1,000 tenants, 10,000 quotas, 10,000 licence quotas, and 100 nodes that run something.

use std::path::Path;
use std::sync::Arc;

use gpuquota_core::Command;
use gpuquota_core::catalogue::ModelEntry;
use gpuquota_core::command::{
    CheckOutSeat, CreateLicenceQuota, NodeReport, OnExcess, QuotaName, SetCounter, SetQuota,
    SetTenant,
};
use gpuquota_core::device::{DeviceHealth, DeviceKey, DeviceReport};
use gpuquota_core::id::{
    Code, DisplayName, GpuModel, GroupName, HostResourceName, NodeName, ProductId, ProjectId,
    Region, ResourceKind, SessionId, TenantName, TenantNumber,
};
use gpuquota_core::licence::Product;
use gpuquota_core::limit::Limit;
use gpuquota_core::node::NodeFacts;
use gpuquota_core::pool::{Counter, HostResource};
use gpuquota_core::quota::QuotaSource;
use gpuquota_server::clock::Clock;
use gpuquota_server::service::{self, BatcherSettings, Committed, Ledger, Origin};
use gpuquota_server::store::Store;
use gpuquota_server::store::sqlite::SqliteStore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Failure;

const TENANTS: u32 = 1000;
const EACH: u32 = 10;
const NODES: u32 = 100;

pub(crate) async fn filled(path: &Path, clock: Arc<dyn Clock>) -> Result<Ledger, Failure> {
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(path).await?);
    let settings = BatcherSettings {
        queue: 65_536,
        batch: 512,
        writer: "bench".into(),
    };
    let stop = CancellationToken::new();
    let (ledger, _) = service::start(store, clock, None, Committed::empty(), settings, stop);
    // What the next refer to comes first.
    for commands in [declarations()?, tenants()?, quotas()?, reports()?] {
        let mut asked = JoinSet::new();
        for command in commands {
            let ledger = ledger.clone();
            asked.spawn(async move { ledger.submit(command, Origin::server()).await });
        }
        while let Some(answer) = asked.join_next().await {
            answer??;
        }
    }
    Ok(ledger)
}

fn declarations() -> Result<Vec<Command>, Failure> {
    let mut commands = vec![Command::SetModel(ModelEntry {
        gpu_model: GpuModel::new("nvidia.com/gpu")?,
        quota_type: None,
        aliases: [GpuModel::new("gpu")?].into(),
        hardware: [].into(),
        profile: None,
    })];
    for id in 1..=EACH {
        commands.push(Command::SetProduct(Product {
            id: ProductId(id),
            name: DisplayName::new(&format!("Product {id}"))?,
            code: Code::new(&format!("PRODUCT_{id}"))?,
            vgpu_types: [].into(),
        }));
    }
    for resource in ["c4", "m4"] {
        commands.push(Command::SetHostResource(HostResource {
            resource: HostResourceName::new(resource)?,
            groups: [GroupName::new("TeslaM40")?].into(),
        }));
    }
    for node in 0..NODES {
        commands.push(Command::OpenSession {
            node: NodeName::new(&format!("node-{node}"))?,
            default_region: Region::new("region-0")?,
            boot_id: "boot".into(),
            agent_version: "bench".into(),
        });
    }
    Ok(commands)
}

fn tenants() -> Result<Vec<Command>, Failure> {
    (1..=TENANTS)
        .map(|number| {
            Ok(Command::SetTenant(SetTenant {
                tenant: TenantName::new(&format!("tenant-{number}"))?,
                number: Some(TenantNumber(number)),
                display_name: Some(DisplayName::new(&format!("Tenant number {number}"))?),
                code: Some(Code::new(&format!("TENANT_{number}"))?),
                projects: Some([ProjectId::new(&format!("project-{number}"))?].into()),
                frozen: None,
                confined: None,
                lease_mode: None,
                enforcement: None,
            }))
        })
        .collect()
}

fn quotas() -> Result<Vec<Command>, Failure> {
    let mut commands = Vec::new();
    for number in 1..=TENANTS {
        let tenant = TenantName::new(&format!("tenant-{number}"))?;
        for each in 0..EACH {
            commands.push(Command::SetQuota(SetQuota {
                name: QuotaName {
                    tenant: tenant.clone(),
                    region: Region::new(&format!("region-{each}"))?,
                    source: QuotaSource::Purchase,
                    gpu_model: GpuModel::new("nvidia.com/gpu")?,
                    quota_type: None,
                    reference: None,
                },
                limit: Limit::Finite(8),
                expires_at: None,
                nodes: None,
                on_excess: OnExcess::Deny,
            }));
            commands.push(Command::CreateLicenceQuota(CreateLicenceQuota {
                tenant: TenantNumber(number),
                product: ProductId(each + 1),
                max: 10 + number % 50,
                expires_at: None,
                is_active: true,
            }));
        }
        for kind in ["users", "volumes"] {
            commands.push(Command::SetCounter(SetCounter {
                project: ProjectId::new(&format!("project-{number}"))?,
                site: None,
                kind: ResourceKind::new(kind)?,
                counter: Some(Counter {
                    quota: Some(Limit::Finite(100)),
                    used: Some(number % 100),
                    unit: None,
                }),
            }));
        }
    }
    Ok(commands)
}

// Each node has eight GPUs, each of them held by another tenant; every tenant has seats.
fn reports() -> Result<Vec<Command>, Failure> {
    let mut commands = Vec::new();
    for node in 0..NODES {
        let devices = (0..8)
            .map(|gpu| {
                let holder = node * 8 + gpu + 1;
                Ok(DeviceReport {
                    key: DeviceKey::gpu(&format!("GPU-{node}-{gpu}"))?,
                    health: DeviceHealth::Ok,
                    model: "Tesla M40".into(),
                    gpu_model: GpuModel::new("nvidia.com/gpu")?,
                    profile: None,
                    memory_total_bytes: Some(12 << 30),
                    partitioned: false,
                    tenants: vec![TenantName::new(&format!("tenant-{holder}"))?],
                    unattributed: false,
                    licence: None,
                    licence_expires_at: None,
                    vm: None,
                    parent: None,
                    numa: None,
                    nvlink: None,
                })
            })
            .collect::<Result<_, Failure>>()?;
        commands.push(Command::Report(NodeReport {
            node: NodeName::new(&format!("node-{node}"))?,
            session: SessionId(1),
            spool: "spool".into(),
            number: 1,
            age_ms: None,
            heard_at: None,
            read_after: None,
            full: true,
            facts: Some(NodeFacts {
                cpu_cores: Some(40),
                memory_bytes: Some(31_888 << 20),
                nvml: "ok".into(),
                ..NodeFacts::default()
            }),
            devices,
            gone: Vec::new(),
        }));
    }
    for number in 1..=TENANTS {
        for seat in 0..number % 8 {
            commands.push(Command::CheckOutSeat(CheckOutSeat {
                tenant: TenantName::new(&format!("tenant-{number}"))?,
                product: ProductId(1 + seat % 3),
                owner: DisplayName::new(&format!("user-{seat}"))?,
                ttl_ms: 3_600_000,
            }));
        }
    }
    Ok(commands)
}
