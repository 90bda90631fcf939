//! A small world, so that its names collide often.

use gpuquota_core::device::{DeviceHealth, DeviceKey, DeviceReport, LicenceState};
use gpuquota_core::id::{
    Code, DisplayName, GpuModel, HardwareName, NodeName, ProductId, Region, TenantName,
};
use gpuquota_core::licence::Product;

pub(crate) const TENANTS: [&str; 2] = ["red", "green"];
pub(crate) const PRODUCTS: [u32; 2] = [1, 2];
pub(crate) const GPU: &str = "nvidia.com/gpu";
pub(crate) const VGPU: &str = "tyui-3";
const VGPU_TYPE: &str = "GRID V100-1Q";

pub(crate) fn tenant(name: &str) -> TenantName {
    TenantName::new(name).unwrap()
}

pub(crate) fn region() -> Region {
    Region::new("bj").unwrap()
}

pub(crate) fn node(number: usize) -> NodeName {
    NodeName::new(&format!("n{number}")).unwrap()
}

/// Instances of vGPUs use licences of product 1.
pub(crate) fn product(number: u32) -> Product {
    let vgpu_types = [HardwareName::new("GRID*").unwrap()];
    Product {
        id: ProductId(number),
        name: DisplayName::new(&format!("Product {number}")).unwrap(),
        code: Code::new(&format!("P{number}")).unwrap(),
        vgpu_types: vgpu_types.into_iter().filter(|_| number == 1).collect(),
    }
}

/// Devices of a node: GPUs, and one vGPU instance.
pub(crate) const DEVICES: usize = 4;

/// A device as its agent sees it, held by nobody yet.
pub(crate) fn device(of: usize, number: usize) -> DeviceReport {
    let vgpu = number + 1 == DEVICES;
    let key = if vgpu {
        DeviceKey::vgpu(&format!("{of}-{number}"))
    } else {
        DeviceKey::gpu(&format!("GPU-{of}-{number}"))
    };
    DeviceReport {
        key: key.unwrap(),
        health: DeviceHealth::Ok,
        model: if vgpu { VGPU_TYPE } else { "V100" }.into(),
        gpu_model: GpuModel::new(if vgpu { VGPU } else { GPU }).unwrap(),
        profile: None,
        memory_total_bytes: None,
        partitioned: false,
        tenants: Vec::new(),
        unattributed: false,
        licence: vgpu.then_some(LicenceState::Unlicensed),
        licence_expires_at: None,
        vm: None,
        parent: None,
        numa: None,
        nvlink: None,
    }
}
