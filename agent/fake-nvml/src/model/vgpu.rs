//! vGPU types: what a GPU on a host can be cut into for virtual machines.

use std::ffi::c_uint;

use super::{MODELS, fingerprint};
use crate::scenario::Gpu;

/// A vGPU type of a model.
#[derive(Debug)]
pub struct VgpuType {
    pub name: &'static str,
    pub memory_mib: u64,
}

pub(super) const L40S: &[VgpuType] = &[
    VgpuType {
        name: "NVIDIA L40S-2B",
        memory_mib: 2048,
    },
    VgpuType {
        name: "NVIDIA L40S-4Q",
        memory_mib: 4096,
    },
    VgpuType {
        name: "NVIDIA L40S-8Q",
        memory_mib: 8192,
    },
    VgpuType {
        name: "NVIDIA L40S-16Q",
        memory_mib: 16_384,
    },
    VgpuType {
        name: "NVIDIA L40S-24Q",
        memory_mib: 24_576,
    },
    VgpuType {
        name: "NVIDIA L40S-24C",
        memory_mib: 24_576,
    },
    VgpuType {
        name: "NVIDIA L40S-48C",
        memory_mib: 49_152,
    },
];

/// The number by which NVML knows a type. Real drivers have numbers of their own; these follow from the name.
pub fn type_id(name: &str) -> c_uint {
    let hash = fingerprint(name) & 0x7fff_ffff;
    c_uint::try_from(hash | 1).unwrap_or(1)
}

/// Name and framebuffer in MiB of the types that `gpu` can run: those of its model, and those that run on it.
pub fn types_of(gpu: &Gpu) -> Vec<(&str, u64)> {
    let model = MODELS.iter().find(|model| model.name == gpu.name);
    let of_model = model.into_iter().flat_map(|model| model.vgpu_types);
    let mut types: Vec<(&str, u64)> = of_model.map(|of| (of.name, of.memory_mib)).collect();
    for vgpu in &gpu.vgpu {
        if !types.iter().any(|(name, _)| *name == vgpu.type_name) {
            types.push((&vgpu.type_name, vgpu.memory_total_mib));
        }
    }
    types
}

/// What NVML calls the class of a type, and which licences let it run: its name's last letter says both.
pub fn class_and_licence(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name.chars().last()? {
        'Q' => (
            "Quadro",
            "Quadro-Virtual-DWS,5.0;GRID-Virtual-WS,2.0;GRID-Virtual-WS-Ext,2.0",
        ),
        'C' => (
            "Compute",
            "NVIDIA-vComputeServer,9.0;Quadro-Virtual-DWS,5.0",
        ),
        'B' => (
            "NVS",
            "GRID-Virtual-PC,2.0;Quadro-Virtual-DWS,5.0;GRID-Virtual-WS,2.0;GRID-Virtual-WS-Ext,2.0",
        ),
        'A' => ("NVS", "GRID-Virtual-Apps,3.0"),
        _ => return None,
    })
}
