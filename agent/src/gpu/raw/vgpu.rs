//! vGPU calls that nvml-wrapper lacks, or makes such that an instance that starts between two calls is an error.
#![expect(unsafe_code, reason = "calls into a C library")]

use std::mem;
use std::os::raw::c_uint;

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings::{
    NVML_INVALID_VGPU_PLACEMENT_ID, nvmlActiveVgpuInstanceInfo_t,
    nvmlDeviceVgpuCapability_enum_NVML_DEVICE_VGPU_CAP_MIG_TIMESLICING_ENABLED as TURNS_ENABLED,
    nvmlGpuInstance_t, nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE, nvmlReturn_t, nvmlValue_t,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT as UNSIGNED_INT, nvmlValueType_t,
    nvmlVgpuInstance_t, nvmlVgpuInstanceUtilizationSample_t, nvmlVgpuPlacementId_t,
};

use crate::gpu::usage::Sample;

/// `nvmlVgpuPlacementId_v1` and `nvmlActiveVgpuInstanceInfo_v1`: the size, and the version in the top byte.
const PLACEMENT_V1: u32 = 8 | 1 << 24;
const ACTIVE_V1: u32 = 16 | 1 << 24;

// As in nvml.h 12.9 (the fake's header test compares the same bindings with it).
const _: () = assert!(size_of::<nvmlVgpuPlacementId_t>() == 8);
const _: () = assert!(size_of::<nvmlActiveVgpuInstanceInfo_t>() == 16);

const _: () = assert!(size_of::<nvmlVgpuInstanceUtilizationSample_t>() == 48);
const _: () = assert!(mem::offset_of!(nvmlVgpuInstanceUtilizationSample_t, smUtil) == 16);

/// Instances that are asked for at first; a GPU runs at most 32.
const ROOM: usize = 32;
/// More instances than this are no answer.
const MOST: usize = 4096;

/// A list that NVML writes into room for so many, asked again with more room while that is too little: it may become longer
/// between two calls. `call` gets the place and the room, and gives the count that NVML wrote beside its return code.
fn growing<T: Clone>(
    empty: T,
    room: usize,
    most: usize,
    mut call: impl FnMut(*mut T, c_uint) -> (c_uint, nvmlReturn_t),
) -> Result<Vec<T>, NvmlError> {
    let mut room = room;
    for _ in 0..3 {
        let mut list = vec![empty.clone(); room];
        let (count, code) = call(
            list.as_mut_ptr(),
            c_uint::try_from(room).unwrap_or(c_uint::MAX),
        );
        let counted = usize::try_from(count).unwrap_or(usize::MAX);
        if code == nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE {
            room = counted.saturating_add(ROOM).max(room.saturating_mul(2));
            if room > most {
                break;
            }
            continue;
        }
        nvml_try(code)?;
        list.truncate(counted);
        return Ok(list);
    }
    Err(NvmlError::InsufficientSize(None))
}

/// `nvmlDeviceGetActiveVgpus`: the vGPU instances that run on a GPU, in one call unless there are very many.
pub(in crate::gpu) fn active(device: &Device<'_>) -> Result<Vec<nvmlVgpuInstance_t>, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetActiveVgpus.as_ref())?;
    growing(0, ROOM, MOST, |list, room| {
        let mut count = room;
        // SAFETY: the handle is used while `device` borrows the initialised library; `count` says how much room `list` has,
        // and both outlive the call.
        let code = unsafe { call(device.handle(), &raw mut count, list) };
        (count, code)
    })
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
    growing(0, ROOM, MOST, |list, room| {
        let mut info = nvmlActiveVgpuInstanceInfo_t {
            version: ACTIVE_V1,
            vgpuCount: room,
            vgpuInstances: list,
        };
        // SAFETY: NVML checks the handle; `info` has the layout that its version word names (asserted above) and says how
        // much room `list` has; both outlive the call, and `device` borrows the initialised library.
        let code = unsafe { call(instance, &raw mut info) };
        (info.vgpuCount, code)
    })
}

/// Whether vGPUs take turns on this GPU's instances (`NVML_DEVICE_VGPU_CAP_MIG_TIMESLICING_ENABLED`).
pub(in crate::gpu) fn takes_turns_on_instances(device: &Device<'_>) -> Result<bool, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetVgpuCapabilities.as_ref())?;
    let mut capable: c_uint = 0;
    // SAFETY: the handle is used while `device` borrows the initialised library; `capable` outlives the call.
    nvml_try(unsafe { call(device.handle(), TURNS_ENABLED, &raw mut capable) })?;
    Ok(capable != 0)
}

/// `nvmlDeviceGetVgpuUtilization`: samples after `since_us`, by the number of the vGPU. "Not found" is none.
pub(in crate::gpu) fn utilization(
    device: &Device<'_>,
    since_us: u64,
) -> Result<Vec<Sample>, NvmlError> {
    let lib = device.nvml().lib();
    let call = nvml_sym(lib.nvmlDeviceGetVgpuUtilization.as_ref())?;
    let nothing = nvmlValue_t { ullVal: 0 };
    let empty = nvmlVgpuInstanceUtilizationSample_t {
        vgpuInstance: 0,
        timeStamp: 0,
        smUtil: nothing,
        memUtil: nothing,
        encUtil: nothing,
        decUtil: nothing,
    };
    let mut kind: nvmlValueType_t = UNSIGNED_INT;
    let rows = growing(empty, ROOM, MOST, |list, room| {
        let mut count = room;
        // SAFETY: the handle is used while `device` borrows the initialised library; `count` says how much room `list` has,
        // and all places outlive the call.
        let code = unsafe {
            call(
                device.handle(),
                since_us,
                &raw mut kind,
                &raw mut count,
                list,
            )
        };
        (count, code)
    });
    let rows = match rows {
        Err(NvmlError::NotFound) => return Ok(Vec::new()),
        rows => rows?,
    };
    // The header promises this kind; what another one means is not guessed.
    if kind != UNSIGNED_INT {
        return Err(NvmlError::Unknown);
    }
    // SAFETY: eight bytes that were zero before NVML wrote to them, all of which are an unsigned int for any bits.
    let figure = |value: nvmlValue_t| unsafe { value.uiVal };
    let sample = |row: nvmlVgpuInstanceUtilizationSample_t| Sample {
        pid: row.vgpuInstance,
        at_us: row.timeStamp,
        sm: figure(row.smUtil),
        memory: figure(row.memUtil),
    };
    Ok(rows.into_iter().map(sample).collect())
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
