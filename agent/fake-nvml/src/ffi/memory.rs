//! Memory of a device, and its errors.
#![expect(unsafe_code, reason = "exports C symbols")]

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as sys;

use crate::library::{Answer, Code, Device, bytes};

use super::boundary::{Out, version_word};
use super::device_calls;

/// The version word of `nvmlMemory_v2_t`.
const MEMORY_V2: u32 = version_word::<sys::nvmlMemory_v2_t>(2);

device_calls! {
    fn nvmlDeviceGetMemoryInfo(device, memory: Out<sys::nvmlMemory_t>) {
        memory.check()?;
        let now = device.memory();
        // The first version knows no reserve: it counts as used.
        let used = now.total - now.free();
        memory.put(sys::nvmlMemory_t { total: now.total, free: now.free(), used })
    }

    fn nvmlDeviceGetMemoryInfo_v2(device, memory: Out<sys::nvmlMemory_v2_t>) {
        if memory.narrowed::<c_uint>().get()? != MEMORY_V2 {
            return Err(Code::VERSION_MISMATCH);
        }
        let now = device.memory();
        memory.put(sys::nvmlMemory_v2_t {
            version: MEMORY_V2,
            total: now.total,
            reserved: now.reserved,
            free: now.free(),
            used: now.used,
        })
    }

    fn nvmlDeviceGetBAR1MemoryInfo(device, memory: Out<sys::nvmlBAR1Memory_t>) {
        let total = bytes(device.gpu.bar1_total_mib.ok_or(Code::NOT_SUPPORTED)?);
        memory.put(sys::nvmlBAR1Memory_t { bar1Total: total, bar1Free: total, bar1Used: 0 })
    }

    fn nvmlDeviceGetEccMode(device, current: Out<c_uint>, pending: Out<c_uint>) {
        let mode = u32::from(device.whole()?.ecc.ok_or(Code::NOT_SUPPORTED)?);
        pending.check()?;
        current.put(mode)?;
        pending.put(mode)
    }

    fn nvmlDeviceGetRemappedRows(
        device,
        correctable: Out<c_uint>,
        uncorrectable: Out<c_uint>,
        pending: Out<c_uint>,
        failed: Out<c_uint>,
    ) {
        let gpu = device.uncut()?;
        let rows = gpu.remapped_rows.ok_or(Code::NOT_SUPPORTED)?;
        uncorrectable.check()?;
        pending.check()?;
        failed.check()?;
        correctable.put(rows.correctable)?;
        uncorrectable.put(rows.uncorrectable)?;
        pending.put(u32::from(rows.pending))?;
        failed.put(u32::from(rows.failed))
    }

    fn nvmlDeviceGetTotalEccErrors(device, kind: c_uint, counter: c_uint, count: Out<c_ulonglong>) {
        if counter >= sys::nvmlEccCounterType_enum_NVML_ECC_COUNTER_TYPE_COUNT {
            return Err(Code::INVALID_ARGUMENT);
        }
        count.put(ecc_errors(device, kind)?)
    }
}

/// Volatile and aggregate counts are the same here: a scenario has no reboots.
pub(super) fn ecc_errors(device: &Device<'_>, kind: c_uint) -> Answer<u64> {
    let gpu = device.whole()?;
    if gpu.ecc != Some(true) {
        return Err(Code::NOT_SUPPORTED);
    }
    match kind {
        sys::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED => Ok(gpu.ecc_corrected),
        sys::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED => Ok(gpu.ecc_uncorrected),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}
