//! vGPU calls that nvml-wrapper lacks, or makes such that an instance that starts between two calls is an error.
#![expect(unsafe_code, reason = "calls into a C library")]

use std::os::raw::c_uint;

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings::{
    NVML_INVALID_VGPU_PLACEMENT_ID, nvmlActiveVgpuInstanceInfo_t, nvmlGpuInstance_t,
    nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE, nvmlVgpuInstance_t, nvmlVgpuPlacementId_t,
};

/// `nvmlVgpuPlacementId_v1` and `nvmlActiveVgpuInstanceInfo_v1`: the size, and the version in the top byte.
const PLACEMENT_V1: u32 = 8 | 1 << 24;
const ACTIVE_V1: u32 = 16 | 1 << 24;

// As in nvml.h 12.9 (the fake's header test compares the same bindings with it).
const _: () = assert!(size_of::<nvmlVgpuPlacementId_t>() == 8);
const _: () = assert!(size_of::<nvmlActiveVgpuInstanceInfo_t>() == 16);

/// Instances that are asked for at first; a GPU runs at most 32.
const ROOM: usize = 32;
/// More instances than this are no answer.
const MOST: usize = 4096;

/// `nvmlDeviceGetActiveVgpus`: the vGPU instances that run on a GPU, in one call unless there are very many.
pub(in crate::gpu) fn active(device: &Device<'_>) -> Result<Vec<nvmlVgpuInstance_t>, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetActiveVgpus.as_ref())?;
    let mut room = ROOM;
    // They may become more between two calls.
    for _ in 0..3 {
        let mut instances: Vec<nvmlVgpuInstance_t> = vec![0; room];
        let mut count = c_uint::try_from(room).unwrap_or(c_uint::MAX);
        // SAFETY: the handle is used while `device` borrows the initialised library; `count` says how much room
        // `instances` has, and both outlive the call.
        let code = unsafe { call(device.handle(), &raw mut count, instances.as_mut_ptr()) };
        let counted = usize::try_from(count).unwrap_or(usize::MAX);
        if code == nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE {
            room = counted.saturating_add(ROOM).max(room.saturating_mul(2));
            if room > MOST {
                break;
            }
            continue;
        }
        nvml_try(code)?;
        instances.truncate(counted);
        return Ok(instances);
    }
    Err(NvmlError::InsufficientSize(None))
}

/// `nvmlVgpuInstanceGetLicenseStatus`, for drivers without `nvmlVgpuInstanceGetLicenseInfo_v2`.
pub(in crate::gpu) fn is_licensed(
    device: &Device<'_>,
    instance: nvmlVgpuInstance_t,
) -> Result<bool, NvmlError> {
    let lib = device.nvml().lib();
    let call = nvml_sym(lib.nvmlVgpuInstanceGetLicenseStatus.as_ref())?;
    let mut licensed: c_uint = 0;
    // SAFETY: a number and a place for the answer, which outlives the call; `device` borrows the initialised library.
    nvml_try(unsafe { call(instance, &raw mut licensed) })?;
    Ok(licensed != 0)
}

/// `nvmlGpuInstanceGetActiveVgpus`: the vGPUs that take turns on a GPU instance, by a handle of [`super::mig::handle`].
pub(in crate::gpu) fn active_on(
    device: &Device<'_>,
    instance: nvmlGpuInstance_t,
) -> Result<Vec<nvmlVgpuInstance_t>, NvmlError> {
    let lib = device.nvml().lib();
    let call = nvml_sym(lib.nvmlGpuInstanceGetActiveVgpus.as_ref())?;
    let mut room = ROOM;
    for _ in 0..3 {
        let mut found: Vec<nvmlVgpuInstance_t> = vec![0; room];
        let mut info = nvmlActiveVgpuInstanceInfo_t {
            version: ACTIVE_V1,
            vgpuCount: c_uint::try_from(room).unwrap_or(c_uint::MAX),
            vgpuInstances: found.as_mut_ptr(),
        };
        // SAFETY: NVML checks the handle; `info` has the layout that its version word names (asserted above) and says how
        // much room `found` has; both outlive the call, and `device` borrows the initialised library.
        let code = unsafe { call(instance, &raw mut info) };
        let counted = usize::try_from(info.vgpuCount).unwrap_or(usize::MAX);
        if code == nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE {
            room = counted.saturating_add(ROOM).max(room.saturating_mul(2));
            if room > MOST {
                break;
            }
            continue;
        }
        nvml_try(code)?;
        found.truncate(counted);
        return Ok(found);
    }
    Err(NvmlError::InsufficientSize(None))
}

/// `nvmlVgpuInstanceGetPlacementId`; `None` on a GPU whose vGPUs are all of one size.
pub(in crate::gpu) fn placement_id(
    device: &Device<'_>,
    instance: nvmlVgpuInstance_t,
) -> Result<Option<u32>, NvmlError> {
    let lib = device.nvml().lib();
    let call = nvml_sym(lib.nvmlVgpuInstanceGetPlacementId.as_ref())?;
    let mut placement = nvmlVgpuPlacementId_t {
        version: PLACEMENT_V1,
        placementId: NVML_INVALID_VGPU_PLACEMENT_ID,
    };
    // SAFETY: a number and a struct of the layout that its version word names, which outlives the call; `device` borrows the
    // initialised library.
    nvml_try(unsafe { call(instance, &raw mut placement) })?;
    Ok(Some(placement.placementId).filter(|id| *id != NVML_INVALID_VGPU_PLACEMENT_ID))
}
