//! What it costs to follow who must be told of a change, and to say one node's policy, where 10,000 nodes have 80,000 GPUs and
//! a third of them are held by a hundred tenants, half of them beyond their quotas; beside deciding and applying that change.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod fleet;

use std::time::{Duration, Instant};

use gpuquota_core::command::{OnExcess, QuotaName, SetQuota};
use gpuquota_core::id::{GpuModel, Region, TenantName, Timestamp};
use gpuquota_core::limit::Limit;
use gpuquota_core::policy::{Kept, policy_with};
use gpuquota_core::quota::QuotaSource;
use gpuquota_core::{Command, State};

use fleet::{NODES, START, device, fold, name, report, reported};

const CHANGES: u32 = 500;
const TENANTS: usize = 100;

fn main() {
    let mut state = reported(|node, at| (node + at) % 3 == 0);
    for tenant in 0..TENANTS {
        fold(&mut state, &quota(tenant), START);
    }
    let mut kept = Kept::default();
    let begin = Instant::now();
    kept.follow(&state);
    let all = whole(&state, &mut kept);
    println!(
        "policies of {NODES} nodes, {all} verdicts, nothing kept: {:?}",
        begin.elapsed()
    );
    let (mut decided, mut followed, mut said) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut woken = 0;
    for change in 0..CHANGES {
        let node = usize::try_from(change).unwrap() * 7 % NODES;
        let held = change % 2 == 0;
        let number = 2 + u64::from(change) * 7 / NODES as u64;
        let changed = report(node, number, false, vec![device(node, 1, held)]);
        let begin = Instant::now();
        fold(&mut state, &changed, START);
        decided += begin.elapsed();
        let begin = Instant::now();
        let nodes = kept.follow(&state).unwrap();
        followed += begin.elapsed();
        woken += nodes.len();
        let begin = Instant::now();
        let found = &mut |tenant: &TenantName| kept.found(&state, tenant);
        policy_with(&state, &name(node), Timestamp(START), found).unwrap();
        said += begin.elapsed();
    }
    println!(
        "a change of one holder, decided and applied: {:?}",
        decided / CHANGES
    );
    println!(
        "who must be told of it, {} nodes at a time: {:?}, {:.1} times that",
        woken / usize::try_from(CHANGES).unwrap(),
        followed / CHANGES,
        followed.as_secs_f64() / decided.as_secs_f64()
    );
    println!("what one of them is told: {:?}", said / CHANGES);
}

fn whole(state: &State, kept: &mut Kept) -> usize {
    let mut verdicts = 0;
    for node in 0..NODES {
        let found = &mut |tenant: &TenantName| kept.found(state, tenant);
        let policy = policy_with(state, &name(node), Timestamp(START), found).unwrap();
        verdicts += policy.verdicts.len();
    }
    verdicts
}

// Half of the tenants hold more than that.
fn quota(tenant: usize) -> Command {
    Command::SetQuota(SetQuota {
        name: QuotaName {
            tenant: TenantName::new(&format!("tenant-{tenant}")).unwrap(),
            region: Region::new("r").unwrap(),
            source: QuotaSource::Purchase,
            gpu_model: GpuModel::new("nvidia.com/gpu").unwrap(),
            quota_type: None,
            reference: None,
        },
        limit: Limit::Finite(if tenant.is_multiple_of(2) { 1000 } else { 200 }),
        expires_at: None,
        nodes: None,
        on_excess: OnExcess::Deny,
    })
}
