//! NVLinks: which a GPU has, whether they are up, and what is at the other end.
#![expect(unsafe_code, reason = "exports C symbols")]

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as sys;

use crate::library::{Answer, Code, Device};
use crate::scenario::{Architecture, NvLinkEnd, NvLinks};

use super::boundary::Out;
use super::device_calls;
use super::identity::place_on_the_bus;

device_calls! {
    fn nvmlDeviceGetNvLinkState(device, link: c_uint, active: Out<c_uint>) {
        active.put(u32::from(!of(device, link)?.down))
    }

    fn nvmlDeviceGetNvLinkVersion(device, link: c_uint, version: Out<c_uint>) {
        of(device, link)?;
        version.put(match device.gpu.architecture {
            Some(Architecture::Pascal) => 1,
            Some(Architecture::Volta | Architecture::Turing) => 2,
            Some(Architecture::Ampere | Architecture::Ada) => 3,
            Some(Architecture::Hopper) => 4,
            Some(Architecture::Blackwell) => 5,
            None => return Err(Code::NOT_SUPPORTED),
        })
    }

    fn nvmlDeviceGetNvLinkRemotePciInfo(device, link: c_uint, info: Out<sys::nvmlPciInfo_t>) {
        info.put(other_end(device, link)?)
    }

    fn nvmlDeviceGetNvLinkRemotePciInfo_v2(device, link: c_uint, info: Out<sys::nvmlPciInfo_t>) {
        info.put(other_end(device, link)?)
    }

    fn nvmlDeviceGetNvLinkRemoteDeviceType(device, link: c_uint, kind: Out<c_uint>) {
        kind.put(match of(device, link)?.kind {
            NvLinkEnd::Gpu => sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU,
            NvLinkEnd::Npu => sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_IBMNPU,
            NvLinkEnd::Switch => sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH,
            NvLinkEnd::Unknown => sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_UNKNOWN,
        })
    }
}

/// A GPU without NVLinks does not support the question; one with some refuses a number that it does not have.
fn of<'s>(device: &Device<'s>, link: c_uint) -> Answer<&'s NvLinks> {
    let gpu = device.whole()?;
    if gpu.nvlink.is_empty() {
        return Err(Code::NOT_SUPPORTED);
    }
    gpu.nvlink(link).ok_or(Code::INVALID_ARGUMENT)
}

fn other_end(device: &Device<'_>, link: c_uint) -> Answer<sys::nvmlPciInfo_t> {
    let place = of(device, link)?.pci_numbers();
    Ok(place_on_the_bus(place.ok_or(Code::NOT_SUPPORTED)?))
}
