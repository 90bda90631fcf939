//! vGPU types: what a host can run, and what a type is.
#![expect(unsafe_code, reason = "exports C symbols")]

use std::ffi::{c_uint, c_ulonglong};

use crate::library::{Answer, Code, bytes};
use crate::model::{class_and_licence, type_id, types_of};
use crate::scenario::{Gpu, Scenario, Virtualization};

use super::boundary::{Out, OutText};
use super::vgpu::host;
use super::{calls, device_calls};

device_calls! {
    fn nvmlDeviceGetSupportedVgpus(device, count: Out<c_uint>, types: Out<c_uint>) {
        let ids: Vec<c_uint> = types_of(host(device)?).iter().map(|(name, _)| type_id(name)).collect();
        types.fill(count, &ids)
    }

    // One size at a time, as GPUs run them by default.
    fn nvmlDeviceGetCreatableVgpus(device, count: Out<c_uint>, types: Out<c_uint>) {
        let gpu = host(device)?;
        let given: u64 = gpu.vgpu.iter().map(|vgpu| vgpu.memory_total_mib).sum();
        let size = gpu.vgpu.first().map(|vgpu| vgpu.memory_total_mib);
        let fits = |memory_mib: u64| {
            given + memory_mib <= framebuffer(gpu) && size.is_none_or(|size| size == memory_mib)
        };
        let types_here = types_of(gpu);
        let creatable = types_here.iter().filter(|(_, memory_mib)| fits(*memory_mib));
        let ids: Vec<c_uint> = creatable.map(|(name, _)| type_id(name)).collect();
        types.fill(count, &ids)
    }

    fn nvmlVgpuTypeGetMaxInstances(device, id: c_uint, count: Out<c_uint>) {
        let gpu = host(device)?;
        let types = types_of(gpu);
        let (_, memory_mib) = types.iter().find(|(name, _)| type_id(name) == id).ok_or(Code::INVALID_ARGUMENT)?;
        let most = framebuffer(gpu).checked_div(*memory_mib).unwrap_or(0);
        count.put(c_uint::try_from(most).unwrap_or(c_uint::MAX))
    }
}

calls! {
    fn nvmlVgpuTypeGetName(scenario, id: c_uint, name: OutText, size: Out<c_uint>) {
        put_sized(name, size, type_of(scenario, id)?.name)
    }

    fn nvmlVgpuTypeGetClass(scenario, id: c_uint, class: OutText, size: Out<c_uint>) {
        let (text, _) = class_and_licence(type_of(scenario, id)?.name).ok_or(Code::NOT_SUPPORTED)?;
        put_sized(class, size, text)
    }

    fn nvmlVgpuTypeGetFramebufferSize(scenario, id: c_uint, size: Out<c_ulonglong>) {
        size.put(bytes(type_of(scenario, id)?.memory_mib))
    }

    fn nvmlVgpuTypeGetLicense(scenario, id: c_uint, licence: OutText, size: c_uint) {
        let (_, text) = class_and_licence(type_of(scenario, id)?.name).ok_or(Code::NOT_SUPPORTED)?;
        licence.put(size, text)
    }

    fn nvmlVgpuTypeGetDeviceID(scenario, id: c_uint, device: Out<c_ulonglong>, subsystem: Out<c_ulonglong>) {
        let gpu = type_of(scenario, id)?.gpu;
        subsystem.check()?;
        device.put(c_ulonglong::from(gpu.pci_device_id))?;
        subsystem.put(c_ulonglong::from(gpu.pci_subsystem_id))
    }
}

struct Type<'s> {
    gpu: &'s Gpu,
    name: &'s str,
    memory_mib: u64,
}

/// A type that some host of this node can run.
fn type_of(scenario: &Scenario, id: c_uint) -> Answer<Type<'_>> {
    let hosts = scenario
        .gpus
        .iter()
        .filter(|gpu| gpu.virtualization == Virtualization::HostVgpu);
    let mut types = hosts.flat_map(|gpu| {
        let of = move |(name, memory_mib)| Type {
            gpu,
            name,
            memory_mib,
        };
        types_of(gpu).into_iter().map(of)
    });
    types
        .find(|found| type_id(found.name) == id)
        .ok_or(Code::INVALID_ARGUMENT)
}

/// What vGPUs share: the memory chips, of which ECC and the driver take a part that types do not reckon with.
fn framebuffer(gpu: &Gpu) -> u64 {
    gpu.memory_total_mib.next_multiple_of(8 * 1024)
}

/// A text whose room is passed by reference and answered with what is needed.
fn put_sized(text: OutText, size: Out<c_uint>, value: &str) -> Answer {
    let answer = text.put(size.get()?, value);
    if answer == Err(Code::INSUFFICIENT_SIZE) {
        size.put(c_uint::try_from(value.len() + 1).unwrap_or(c_uint::MAX))?;
    }
    answer
}
