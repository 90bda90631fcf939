//! A journal in which everything happens that can: what the fixtures of `golden` were written by.

use std::sync::Arc;

use gpuquota_core::archive::Archive;
use gpuquota_core::ban::{Banned, Serial};
use gpuquota_core::catalogue::ModelEntry;
use gpuquota_core::command::{
    CheckOutSeat, CreateLicenceQuota, NodeReport, OnExcess, QuotaName, ReleaseQuota, RequestLease,
    SetQuota, SwitchQuota,
};
use gpuquota_core::device::{DeviceReport, GpuUuid};
use gpuquota_core::event::SilenceReason;
use gpuquota_core::id::{
    Code, DisplayName, GpuModel, GroupName, HostResourceName, Incarnation, LeaseId, NodeName,
    ProductId, QuotaId, Region, SeatId, Seq, SessionId, TenantName, TenantNumber, Timestamp,
};
use gpuquota_core::join::{Certified, Digest, Proof};
use gpuquota_core::lease::LeasePlacement;
use gpuquota_core::licence::Product;
use gpuquota_core::limit::Limit;
use gpuquota_core::pool::{Accelerator, CardLimitKey, ResourceGroup};
use gpuquota_core::quota::QuotaType;
use gpuquota_core::settings::Settings;
use gpuquota_core::{Command, Event, Record};
use gpuquota_server::service::{Origin, store_usage_once};
use gpuquota_server::store::sqlite::SqliteStore;
use gpuquota_server::store::{Hash, Row, Store as _};

use crate::declared::{
    counter, declared, facts, gpu, host_limit, hosts, node, on, quota, region, tenant, until,
};
use crate::golden_steps;
use crate::running::{HOUR, Running, START, SetClock, keyed};

const MODEL: &str = "nvidia.com/gpu";
const DAY: i64 = 24 * HOUR;
const MINUTE: i64 = 60_000;

/// Writes the journal of a new file.
pub(crate) async fn tell(dir: &std::path::Path) {
    let store = SqliteStore::open(&dir.join("ledger.db")).await.unwrap();
    store.append(&[first()]).await.unwrap();
    let running = Running::opened(Arc::new(store), dir, SetClock::new(START), 1_000_000).await;
    directory(&running).await;
    licences(&running).await;
    leases(&running).await;
    drains(&running).await;
    nodes(&running).await;
    golden_steps::tell(&running).await;
    own(&running).await;
    running.end().await;
}

// Only earlier versions made tenants known like that.
fn first() -> Row {
    let record = Record {
        actor: "admin:x".into(),
        request_id: Some("r".into()),
        from: None,
        reason: None,
        tenants: Default::default(),
        replay: None,
        events: vec![Event::TenantCreated {
            tenant: TenantName::new("old").unwrap(),
        }],
    };
    let body = serde_json::to_string(&record).unwrap();
    Row::new(Hash::EMPTY, Seq(1), Timestamp(START), "w", None, body)
}

async fn directory(running: &Running) {
    let group = |name: &str| {
        Command::SetGroup(ResourceGroup {
            group: GroupName::new(name).unwrap(),
            max_time_s: Some(60),
            tenants: None,
        })
    };
    let key = CardLimitKey {
        group: GroupName::new("H100").unwrap(),
        tenant: None,
        accelerator: Accelerator::Gpu,
    };
    let product = |id: u32| {
        Command::SetProduct(Product {
            id: ProductId(id),
            name: DisplayName::new("Suite").unwrap(),
            code: Code::new(&format!("suite-{id}")).unwrap(),
            vgpu_types: [].into(),
        })
    };
    let model = ModelEntry {
        gpu_model: GpuModel::new("tyui-3").unwrap(),
        quota_type: None,
        aliases: [].into(),
        hardware: [].into(),
        profile: None,
    };
    let name = model.gpu_model.clone();
    let resource = HostResourceName::new("gone").unwrap();
    let settings = Settings {
        drain_notice_ms: 3_600_000,
        ..Settings::default()
    };
    let digest = Digest::new(&"a".repeat(64)).unwrap();
    running
        .told([
            Command::SetSettings(settings),
            tenant("a", &["p-1"]),
            tenant("b", &[]),
            region("US", Some("s-1")),
            group("H100"),
            group("gone"),
            Command::RemoveGroup(GroupName::new("gone").unwrap()),
            Command::SetCardLimit(key, Some(8)),
            hosts("kept", &["H100"]),
            hosts("gone", &["H100"]),
            Command::RemoveHostResource(resource),
            host_limit("a", "kept", 2),
            Command::SetModel(model),
            Command::RemoveModel(name),
            counter("p-1", None, "volumes", Some(Limit::Unlimited), Some(3)),
            product(1),
            product(2),
            Command::RemoveProduct(ProductId(2)),
            Command::RevokeToken {
                token: "stolen".into(),
                until: Timestamp(START + 30 * DAY),
            },
            Command::MakeJoinToken {
                hash: digest.clone(),
                node: node("n1"),
                ttl_ms: 600_000,
            },
            Command::Certify(Certified {
                node: node("n1"),
                serial: "0a".into(),
                key: digest.clone(),
                not_after: Timestamp(START + 7 * DAY),
                by: Proof::Token(digest.clone()),
            }),
        ])
        .await;
    let once = Command::SetQuota(quota("a", "US", MODEL, Limit::Finite(4)));
    let origin = Origin {
        actor: "admin:x".into(),
        request_id: Some("r-2".into()),
        from: Some("192.0.2.1".into()),
        reason: Some("ticket ä".into()),
        ..keyed("PUT key ä\"", "f")
    };
    running.ledger.submit(once, origin).await.unwrap();
}

async fn licences(running: &Running) {
    let seat = |owner: &str, ttl_ms| {
        Command::CheckOutSeat(CheckOutSeat {
            tenant: TenantName::new("a").unwrap(),
            product: ProductId(1),
            owner: DisplayName::new(owner).unwrap(),
            ttl_ms,
        })
    };
    let licence = |max, end: Option<i64>| {
        let number = running.ledger.read().state.clone();
        let tenant = number.tenant(&TenantName::new("a").unwrap()).unwrap();
        Command::CreateLicenceQuota(CreateLicenceQuota {
            tenant: TenantNumber(tenant.profile.number.0),
            product: ProductId(1),
            max,
            expires_at: end.map(Timestamp),
            is_active: true,
        })
    };
    running
        .told([
            licence(2, None),
            licence(1, Some(START + MINUTE)),
            seat("kept", u32::MAX),
            seat("ends", 30_000),
            seat("given back", 40_000),
            Command::ReleaseSeat(SeatId(3)),
        ])
        .await;
    running.clock.set(START + 2 * MINUTE);
    running.told([Command::Sweep]).await;
}

fn request(who: &str, count: u32, placement: LeasePlacement) -> RequestLease {
    RequestLease {
        ttl_ms: Some(3_600_000),
        ..RequestLease::of(
            TenantName::new(who).unwrap(),
            Region::new("US").unwrap(),
            GpuModel::new(MODEL).unwrap(),
            count,
            placement,
        )
    }
}

fn gpus(held: &[(usize, &str)]) -> Vec<DeviceReport> {
    let of = |at: usize| {
        let on = held.iter().filter(|(on, _)| *on == at);
        let on: Vec<&str> = on.map(|(_, who)| *who).collect();
        gpu(&format!("GPU-{at}"), MODEL, &on)
    };
    (0..4).map(of).collect()
}

fn session(running: &Running) -> (NodeName, SessionId) {
    let name = node("n0");
    let state = &running.ledger.read().state;
    (name.clone(), state.node(&name).unwrap().session)
}

fn says(running: &Running, number: u64, devices: Vec<DeviceReport>) -> Command {
    let (node, session) = session(running);
    Command::Report(NodeReport {
        node,
        session,
        spool: format!("spool-{}", session.0),
        number,
        age_ms: Some(5),
        heard_at: None,
        read_after: Some(Seq(u64::MAX)),
        full: true,
        facts: None,
        devices,
        gone: Vec::new(),
    })
}

fn agrees(running: &Running) -> Command {
    let (node, session) = session(running);
    Command::Agree {
        node,
        session,
        read_after: Some(Seq(u64::MAX)),
    }
}

fn release(lease: u64) -> Command {
    Command::ReleaseLease {
        lease: LeaseId(lease),
        forced: false,
        expected: None,
    }
}

async fn leases(running: &Running) {
    let host = declared("n0", "US", &["H100"], Some((64, 1 << 40)));
    running.told([host]).await;
    running
        .reported("n0", facts(Some(64), Some(1 << 40)), gpus(&[]))
        .await;
    let devices = |count| Command::RequestLease(request("a", count, LeasePlacement::Devices));
    running
        .told([
            devices(2),
            Command::RequestLease(request("a", 1, LeasePlacement::CountOnly)),
            Command::RenewLease {
                lease: LeaseId(1),
                ttl_ms: Some(7_200_000),
                expected: None,
            },
            says(running, 2, gpus(&[(0, "a"), (1, "a"), (3, "b")])),
            release(1),
            release(2),
            says(running, 3, gpus(&[(0, "a")])),
        ])
        .await;
    let (name, number) = session(running);
    running
        .told([Command::MarkSilent {
            node: name.clone(),
            session: number,
            reason: SilenceReason::Timeout,
        }])
        .await;
    running.clock.set(START + 20 * MINUTE);
    running
        .told([
            Command::Sweep,
            Command::MarkHeard {
                node: name,
                session: number,
            },
            agrees(running),
            says(running, 4, gpus(&[])),
        ])
        .await;
}

async fn drains(running: &Running) {
    let lower = |limit| {
        Command::SetQuota(SetQuota {
            on_excess: OnExcess::Drain,
            ..quota("a", "US", MODEL, Limit::Finite(limit))
        })
    };
    let ends = until(quota("b", "US", MODEL, Limit::Finite(1)), START + 2 * DAY);
    let longer = RequestLease {
        ttl_ms: None,
        ..request("a", 2, LeasePlacement::Devices)
    };
    let switched = |active| {
        Command::SwitchQuota(SwitchQuota {
            quota: QuotaId(0),
            active,
            on_excess: OnExcess::Drain,
        })
    };
    // The lease is told to leave its node, and then may stay.
    let bound = SetQuota {
        on_excess: OnExcess::Drain,
        ..on(quota("b", "US", MODEL, Limit::Finite(1)), &["n0"])
    };
    let given_back = ReleaseQuota {
        name: QuotaName {
            quota_type: Some(QuotaType::Dedicated),
            ..bound.name.clone()
        },
        forced: true,
        must_exist: true,
    };
    running
        .told([
            Command::SetQuota(ends),
            Command::RequestLease(longer),
            Command::SetQuota(bound),
            Command::ReleaseQuota(given_back),
            switched(false),
            switched(true),
            lower(1),
        ])
        .await;
    running.clock.set(START + 2 * HOUR);
    running.told([Command::Sweep, agrees(running)]).await;
    // Its end comes near, and then it comes.
    for days in [1, 2] {
        running.clock.set(START + days * DAY + MINUTE);
        running.told([Command::Sweep]).await;
    }
    while store_usage_once(&running.ledger).await {}
}

async fn nodes(running: &Running) {
    let dedicated = on(quota("b", "US", MODEL, Limit::Unlimited), &["n1"]);
    let name = dedicated.name.clone();
    running
        .told([
            Command::SetQuota(dedicated),
            Command::ReleaseQuota(ReleaseQuota {
                name,
                forced: true,
                must_exist: true,
            }),
            Command::ForgetGpu {
                gpu: GpuUuid::new("GPU-3").unwrap(),
                forced: true,
            },
            declared("n1", "US", &[], None),
        ])
        .await;
    let other = vec![gpu("GPU-9", MODEL, &["nobody"])];
    running.reported("n1", facts(None, None), other).await;
    running
        .told([
            Command::RetireNode {
                node: node("n1"),
                forced: true,
            },
            Command::Ban(Banned::Node(node("n1")), true),
            Command::Ban(Banned::Node(node("n1")), false),
            Command::Ban(Banned::Serial(Serial::new("0a").unwrap()), true),
        ])
        .await;
}

// What the server notes of its own files.
async fn own(running: &Running) {
    let digest = "0".repeat(64);
    running
        .told([
            Command::NoteSnapshot {
                seq: Seq(5),
                digest: digest.clone(),
            },
            Command::NoteArchive(Archive {
                through: Seq(1),
                head: digest.clone(),
                file: digest.clone(),
                base: digest,
            }),
            Command::Restore(Incarnation::default(), None),
        ])
        .await;
}
