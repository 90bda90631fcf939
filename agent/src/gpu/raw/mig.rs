//! GPU instances as objects, which nvml-wrapper lacks: their profile and their place. Privileged; whoever may not, is told so.
#![expect(unsafe_code, reason = "calls into a C library")]

use std::mem;
use std::os::raw::c_uint;
use std::ptr;

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings::{
    nvmlGpuInstance_t, nvmlGpuInstanceInfo_t, nvmlGpuInstancePlacement_t,
    nvmlGpuInstanceProfileInfo_v2_t,
};

use super::text;
use crate::gpu::reading::Placement;

/// `nvmlGpuInstanceProfileInfo_v2`: the size, and the version in the top byte.
const PROFILE_V2: u32 = 152 | 2 << 24;

// As in nvml.h 12.9 (the fake's header test compares the same bindings with it).
const _: () = assert!(size_of::<nvmlGpuInstanceProfileInfo_v2_t>() == 152);
const _: () = assert!(mem::offset_of!(nvmlGpuInstanceProfileInfo_v2_t, name) == 56);
const _: () = assert!(size_of::<nvmlGpuInstanceInfo_t>() == 24);
const _: () = assert!(mem::offset_of!(nvmlGpuInstanceInfo_t, placement) == 16);

/// One GPU instance as `nvmlGpuInstanceGetInfo` describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gpu) struct GpuInstance {
    /// Id of its profile on this device.
    pub(in crate::gpu) profile: u32,
    /// Where it lies.
    pub(in crate::gpu) placement: Placement,
}

/// `nvmlDeviceGetGpuInstanceById`: the handle, good until the instance is destroyed.
pub(in crate::gpu) fn handle(device: &Device<'_>, gi: u32) -> Result<nvmlGpuInstance_t, NvmlError> {
    let lib = device.nvml().lib();
    let call = nvml_sym(lib.nvmlDeviceGetGpuInstanceById.as_ref())?;
    let mut instance: nvmlGpuInstance_t = ptr::null_mut();
    // SAFETY: the handle is used while `device` borrows the initialised library; the answer's place outlives the call.
    nvml_try(unsafe { call(device.handle(), gi, &raw mut instance) })?;
    Ok(instance)
}

/// `nvmlGpuInstanceGetInfo` of a handle that [`handle`] gave for this device just now.
pub(in crate::gpu) fn info(
    device: &Device<'_>,
    instance: nvmlGpuInstance_t,
) -> Result<GpuInstance, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlGpuInstanceGetInfo.as_ref())?;
    let mut info = nvmlGpuInstanceInfo_t {
        device: ptr::null_mut(),
        id: 0,
        profileId: 0,
        placement: nvmlGpuInstancePlacement_t { start: 0, size: 0 },
    };
    // SAFETY: NVML checks the handle; `info` has the layout asserted above and outlives the call; `device` borrows the
    // initialised library.
    nvml_try(unsafe { call(instance, &raw mut info) })?;
    Ok(GpuInstance {
        profile: info.profileId,
        placement: Placement {
            start: info.placement.start,
            size: info.placement.size,
        },
    })
}

/// `nvmlDeviceGetGpuInstanceProfileInfoV`, version 2: id and name (`MIG 1g.10gb+me`) of profile `number`, one of
/// `NVML_GPU_INSTANCE_PROFILE_*`.
pub(in crate::gpu) fn profile(
    device: &Device<'_>,
    number: c_uint,
) -> Result<(u32, String), NvmlError> {
    let lib = device.nvml().lib();
    let call = nvml_sym(lib.nvmlDeviceGetGpuInstanceProfileInfoV.as_ref())?;
    let mut info = nvmlGpuInstanceProfileInfo_v2_t {
        version: PROFILE_V2,
        id: 0,
        isP2pSupported: 0,
        sliceCount: 0,
        instanceCount: 0,
        multiprocessorCount: 0,
        copyEngineCount: 0,
        decoderCount: 0,
        encoderCount: 0,
        jpegCount: 0,
        ofaCount: 0,
        memorySizeMB: 0,
        name: [0; 96],
    };
    // SAFETY: the handle is used while `device` borrows the initialised library; `info` has the size that its version word
    // says and outlives the call.
    nvml_try(unsafe { call(device.handle(), number, &raw mut info) })?;
    Ok((info.id, text(&info.name)))
}
