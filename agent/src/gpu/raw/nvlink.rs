//! What is at the other end of an NVLink: nvml-wrapper's call for it drops the answer.
#![expect(unsafe_code, reason = "calls into a C library")]

use std::os::raw::c_uint;

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings::{
    nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU as GPU,
    nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH as SWITCH,
    nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_UNKNOWN as UNKNOWN,
};

use crate::gpu::reading::NvLinkEnd;

/// `nvmlDeviceGetNvLinkRemoteDeviceType`; `None` for what joins no GPUs, and where the driver does not know.
pub(in crate::gpu) fn remote_kind(
    device: &Device<'_>,
    link: u32,
) -> Result<Option<NvLinkEnd>, NvmlError> {
    let lib = device.nvml().lib();
    let call = nvml_sym(lib.nvmlDeviceGetNvLinkRemoteDeviceType.as_ref())?;
    let mut kind: c_uint = UNKNOWN;
    // SAFETY: the handle is used while `device` borrows the initialised library; the answer's place outlives the call.
    nvml_try(unsafe { call(device.handle(), link, &raw mut kind) })?;
    Ok(match kind {
        GPU => Some(NvLinkEnd::Gpu),
        SWITCH => Some(NvLinkEnd::Switch),
        _ => None,
    })
}
