//! What a lease with chosen devices costs where 10,000 nodes have 80,000 GPUs: all free, and a third of them in use.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod fleet;

use std::time::Instant;

use gpuquota_core::Command;
use gpuquota_core::command::{OnExcess, QuotaName, RequestLease, SetQuota};
use gpuquota_core::id::{GpuModel, Region, TenantName};
use gpuquota_core::lease::LeasePlacement;
use gpuquota_core::limit::Limit;
use gpuquota_core::quota::QuotaSource;

use fleet::{NODES, START, fold, name, reported};

const LEASES: u32 = 50;

fn main() {
    run("all free", |_, _| false);
    run("a third in use", |node, at| (node + at) % 3 == 0);
}

fn run(what: &str, held: impl Fn(usize, usize) -> bool) {
    let mut state = reported(held);
    for node in 0..NODES {
        let node = name(node);
        let session = state.node(&node).unwrap().session;
        let agree = Command::Agree {
            node,
            session,
            read_after: Some(state.seq()),
        };
        fold(&mut state, &agree, START);
    }
    fold(&mut state, &quota(), START);
    for (count, spread) in [(1, false), (8, false), (64, false), (64, true)] {
        let begin = Instant::now();
        for _ in 0..LEASES {
            fold(&mut state, &lease(count, spread), START);
        }
        let each = begin.elapsed() / LEASES;
        let spread = if spread { ", spread" } else { "" };
        println!("{what}: a lease of {count}{spread}: {each:?}");
    }
}

fn quota() -> Command {
    Command::SetQuota(SetQuota {
        name: QuotaName {
            tenant: TenantName::new("asking").unwrap(),
            region: Region::new("r").unwrap(),
            source: QuotaSource::Purchase,
            gpu_model: GpuModel::new("nvidia.com/gpu").unwrap(),
            quota_type: None,
            reference: None,
        },
        limit: Limit::Unlimited,
        expires_at: None,
        nodes: None,
        on_excess: OnExcess::Deny,
    })
}

fn lease(count: u32, spread: bool) -> Command {
    Command::RequestLease(RequestLease {
        spread,
        ..RequestLease::of(
            TenantName::new("asking").unwrap(),
            Region::new("r").unwrap(),
            GpuModel::new("nvidia.com/gpu").unwrap(),
            count,
            LeasePlacement::Devices,
        )
    })
}
