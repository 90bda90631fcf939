//! What a device is: names, numbers, its place on the bus.
#![expect(unsafe_code, reason = "exports C symbols")]

use std::ffi::{c_int, c_uint};

use nvml_wrapper_sys::bindings as sys;

use crate::library::{Answer, Code, Device};
use crate::scenario::Architecture;

use super::boundary::{Out, OutText, array};
use super::device_calls;

device_calls! {
    fn nvmlDeviceGetName(device, name: OutText, length: c_uint) {
        match device.mig {
            None => name.put(length, &device.gpu.name),
            Some((_, mig)) => name.put(length, &format!("{} MIG {}", device.gpu.name, mig.profile)),
        }
    }

    fn nvmlDeviceGetUUID(device, uuid: OutText, length: c_uint) {
        uuid.put(length, device.uuid())
    }

    fn nvmlDeviceGetIndex(device, index: Out<c_uint>) {
        index.put(device.mig.map_or(device.index, |(slot, _)| slot))
    }

    fn nvmlDeviceGetMinorNumber(device, minor: Out<c_uint>) {
        minor.put(device.whole()?.minor.unwrap_or(device.index))
    }

    fn nvmlDeviceGetSerial(device, serial: OutText, length: c_uint) {
        serial.put(length, device.whole()?.serial.as_deref().ok_or(Code::NOT_SUPPORTED)?)
    }

    fn nvmlDeviceGetBoardPartNumber(device, number: OutText, length: c_uint) {
        number.put(length, device.whole()?.board_part_number.as_deref().ok_or(Code::NOT_SUPPORTED)?)
    }

    fn nvmlDeviceGetVbiosVersion(device, version: OutText, length: c_uint) {
        version.put(length, device.whole()?.vbios_version.as_deref().ok_or(Code::NOT_SUPPORTED)?)
    }

    fn nvmlDeviceGetPciInfo(device, info: Out<sys::nvmlPciInfo_t>) {
        info.put(pci_info(device)?)
    }

    fn nvmlDeviceGetPciInfo_v2(device, info: Out<sys::nvmlPciInfo_t>) {
        info.put(pci_info(device)?)
    }

    fn nvmlDeviceGetPciInfo_v3(device, info: Out<sys::nvmlPciInfo_t>) {
        info.put(pci_info(device)?)
    }

    fn nvmlDeviceGetNumaNodeId(device, node: Out<c_uint>) {
        node.put(device.whole()?.numa_node.ok_or(Code::NOT_SUPPORTED)?)
    }

    fn nvmlDeviceGetArchitecture(device, architecture: Out<c_uint>) {
        architecture.put(match device.gpu.architecture {
            None => sys::NVML_DEVICE_ARCH_UNKNOWN,
            Some(Architecture::Pascal) => sys::NVML_DEVICE_ARCH_PASCAL,
            Some(Architecture::Volta) => sys::NVML_DEVICE_ARCH_VOLTA,
            Some(Architecture::Turing) => sys::NVML_DEVICE_ARCH_TURING,
            Some(Architecture::Ampere) => sys::NVML_DEVICE_ARCH_AMPERE,
            Some(Architecture::Ada) => sys::NVML_DEVICE_ARCH_ADA,
            Some(Architecture::Hopper) => sys::NVML_DEVICE_ARCH_HOPPER,
            Some(Architecture::Blackwell) => sys::NVML_DEVICE_ARCH_BLACKWELL,
        })
    }

    fn nvmlDeviceGetBrand(device, brand: Out<c_uint>) {
        let name = &device.gpu.name;
        brand.put(if name.starts_with("Tesla") {
            sys::nvmlBrandType_enum_NVML_BRAND_TESLA
        } else if name.contains("GeForce") {
            sys::nvmlBrandType_enum_NVML_BRAND_GEFORCE
        } else {
            sys::nvmlBrandType_enum_NVML_BRAND_NVIDIA
        })
    }

    fn nvmlDeviceGetCudaComputeCapability(device, major: Out<c_int>, minor: Out<c_int>) {
        let capability = device.gpu.compute_capability.ok_or(Code::NOT_SUPPORTED)?;
        minor.check()?;
        major.put(capability[0])?;
        minor.put(capability[1])
    }
}

fn pci_info(device: &Device<'_>) -> Answer<sys::nvmlPciInfo_t> {
    let gpu = device.whole()?;
    let place = gpu.pci_numbers().ok_or(Code::NOT_SUPPORTED)?;
    Ok(sys::nvmlPciInfo_t {
        pciDeviceId: gpu.pci_device_id,
        pciSubSystemId: gpu.pci_subsystem_id,
        ..place_on_the_bus(place)
    })
}

/// `domain`, `bus` and `device` as NVML writes them, without what the device is.
pub(super) fn place_on_the_bus([domain, bus, slot]: [u32; 3]) -> sys::nvmlPciInfo_t {
    sys::nvmlPciInfo_t {
        busIdLegacy: array(&format!("{:04X}:{bus:02X}:{slot:02X}.0", domain & 0xffff)),
        domain,
        bus,
        device: slot,
        pciDeviceId: 0,
        pciSubSystemId: 0,
        busId: array(&format!("{domain:08X}:{bus:02X}:{slot:02X}.0")),
    }
}
