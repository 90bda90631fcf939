//! The small world of the histories: a few names of each kind, so that they collide often.

use gpuquota_core::device::{DeviceHealth, DeviceKey, DeviceReport};
use gpuquota_core::id::{GpuModel, NodeName, Region, TenantName};
use gpuquota_core::limit::Limit;
use gpuquota_core::quota::QuotaSource;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) const TENANTS: [&str; 3] = ["red", "green", "blue"];
pub(crate) const REGIONS: [&str; 2] = ["bj", "tw"];
pub(crate) const NODES: [&str; 3] = ["n0", "n1", "n2"];
pub(crate) const TOKENS: [&str; 2] = ["t0", "t1"];

pub(crate) fn tenant(name: &str) -> TenantName {
    TenantName::new(name).unwrap()
}

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(crate) fn region(name: &str) -> Region {
    Region::new(name).unwrap()
}

pub(crate) fn model(name: &str) -> GpuModel {
    GpuModel::new(name).unwrap()
}

/// Devices at home on one node.
pub(crate) const PER_NODE: usize = 3;
/// All devices.
pub(crate) const DEVICES: usize = PER_NODE * NODES.len();

/// Devices 0 to 2 are at home on node 0, and so on; the three kinds are spread over the nodes.
pub(crate) fn device(number: usize) -> DeviceKey {
    match number {
        0..=4 => DeviceKey::gpu(&format!("GPU-{number}")).unwrap(),
        5 | 6 => DeviceKey::mig("GPU-4", 1, u32::try_from(number).unwrap()).unwrap(),
        _ => DeviceKey::vgpu(&format!("{number}")).unwrap(),
    }
}

pub(crate) fn any_source() -> impl Strategy<Value = QuotaSource> {
    select(vec![QuotaSource::Purchase, QuotaSource::Assign])
}

pub(crate) fn limit() -> impl Strategy<Value = Limit> {
    prop_oneof![12 => (0..4_u32).prop_map(Limit::Finite), 1 => Just(Limit::Unlimited)]
}

/// A device that some tenants hold; its address is filled in later.
pub(crate) fn seen() -> impl Strategy<Value = DeviceReport> {
    let some = prop::sample::subsequence(TENANTS.to_vec(), 0..=3);
    let held = prop_oneof![1 => Just(Vec::new()), 2 => some];
    (0..16_usize, prop::bool::weighted(0.1), held).prop_map(|(spelling, partitioned, tenants)| {
        let odd = match spelling {
            0 => "nvidia.com/gpu",
            1 => "1g.10gb+me",
            _ => "",
        };
        DeviceReport {
            health: match spelling {
                4 => DeviceHealth::Hung,
                _ => DeviceHealth::Ok,
            },
            gpu_model: model(if odd.is_empty() { "usual" } else { odd }),
            partitioned,
            tenants: tenants.into_iter().map(tenant).collect(),
            unattributed: spelling == 3,
            ..free()
        }
    })
}

/// A device that nobody holds, with nothing odd about it.
pub(crate) fn free() -> DeviceReport {
    DeviceReport {
        key: device(0),
        health: DeviceHealth::Ok,
        model: "H100".into(),
        gpu_model: model("usual"),
        profile: None,
        memory_total_bytes: Some(80 << 30),
        partitioned: false,
        tenants: Vec::new(),
        unattributed: false,
        licence: None,
        licence_expires_at: None,
        vm: None,
        parent: None,
        numa: None,
        nvlink: None,
    }
}

fn usual_model(key: &DeviceKey) -> GpuModel {
    model(match key {
        DeviceKey::Gpu(_) => "nvidia.com/gpu",
        DeviceKey::Mig { ci: 5, .. } => "1g.10gb",
        DeviceKey::Mig { .. } => "nvidia.com/mig-1c10g",
        DeviceKey::Vgpu(_) => "tyui-3",
    })
}

/// `seen` at the address `key`, under the model that such a device usually has.
pub(crate) fn seen_at(key: DeviceKey, seen: &DeviceReport) -> DeviceReport {
    let mut report = DeviceReport {
        key,
        ..seen.clone()
    };
    if report.gpu_model.as_str() == "usual" {
        report.gpu_model = usual_model(&report.key);
    }
    report
}
