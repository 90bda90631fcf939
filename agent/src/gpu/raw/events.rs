//! The event set by raw calls: the wrapper drops the instance ids of an event and frees a set at the first error.
#![expect(unsafe_code, reason = "calls into a C library")]

use std::mem::{MaybeUninit, offset_of};
use std::os::raw::{c_uint, c_ulonglong};

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::{
    nvmlEventData_t, nvmlEventSet_t, nvmlReturn_enum_NVML_ERROR_TIMEOUT,
};

use super::NO_INSTANCE;

// As in nvml.h; the wrapper's bindings come without layout tests.
const _: () = assert!(
    size_of::<nvmlEventData_t>() == 32
        && offset_of!(nvmlEventData_t, eventType) == 8
        && offset_of!(nvmlEventData_t, eventData) == 16
        && offset_of!(nvmlEventData_t, gpuInstanceId) == 24
        && offset_of!(nvmlEventData_t, computeInstanceId) == 28
);

/// An event set of an initialised library that is never unloaded.
#[derive(Debug)]
pub(in crate::gpu) struct EventSet {
    nvml: &'static Nvml,
    set: nvmlEventSet_t,
}

/// An event as the driver gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gpu) struct RawEvent {
    /// Address of the device handle, for comparing.
    pub(in crate::gpu) device: usize,
    pub(in crate::gpu) kind: u64,
    pub(in crate::gpu) data: u64,
    pub(in crate::gpu) gi: Option<u32>,
    pub(in crate::gpu) ci: Option<u32>,
}

impl EventSet {
    /// `nvmlEventSetCreate`.
    pub(in crate::gpu) fn create(nvml: &'static Nvml) -> Result<Self, NvmlError> {
        let call = nvml_sym(nvml.lib().nvmlEventSetCreate.as_ref())?;
        let mut set: nvmlEventSet_t = std::ptr::null_mut();
        // SAFETY: the library is initialised, and `set` outlives the call.
        nvml_try(unsafe { call(&raw mut set) })?;
        Ok(Self { nvml, set })
    }

    /// `nvmlDeviceRegisterEvents`: adds a GPU, which must be no MIG device.
    pub(in crate::gpu) fn register(
        &self,
        device: &Device<'_>,
        kinds: u64,
    ) -> Result<(), NvmlError> {
        let call = nvml_sym(self.nvml.lib().nvmlDeviceRegisterEvents.as_ref())?;
        // SAFETY: the handle is used while `device` borrows the initialised library; the set has not been freed.
        nvml_try(unsafe { call(device.handle(), kinds, self.set) })
    }

    /// `nvmlEventSetWait_v2`: the next event, `None` when there is none for `timeout_ms`.
    pub(in crate::gpu) fn wait(&self, timeout_ms: u32) -> Result<Option<RawEvent>, NvmlError> {
        let call = nvml_sym(self.nvml.lib().nvmlEventSetWait_v2.as_ref())?;
        let mut data = MaybeUninit::<nvmlEventData_t>::zeroed();
        // SAFETY: the set has not been freed, and `data` outlives the call.
        let code = unsafe { call(self.set, data.as_mut_ptr(), c_uint::from(timeout_ms)) };
        if code == nvmlReturn_enum_NVML_ERROR_TIMEOUT {
            return Ok(None);
        }
        nvml_try(code)?;
        // SAFETY: a pointer and integers, for all of which zero is a value.
        let data = unsafe { data.assume_init() };
        let instance = |id: c_uint| Some(id).filter(|id| *id != NO_INSTANCE);
        Ok(Some(RawEvent {
            device: data.device.addr(),
            kind: data.eventType,
            data: data.eventData,
            gi: instance(data.gpuInstanceId),
            ci: instance(data.computeInstanceId),
        }))
    }

    /// `nvmlEventSetFree`.
    pub(in crate::gpu) fn free(self) {
        if let Ok(call) = &self.nvml.lib().nvmlEventSetFree {
            // SAFETY: the set is freed once, because this takes it away. What it answers changes nothing.
            unsafe { call(self.set) };
        }
    }
}

/// `nvmlDeviceGetSupportedEventTypes` as bits.
pub(in crate::gpu) fn supported(device: &Device<'_>) -> Result<u64, NvmlError> {
    let lib = device.nvml().lib();
    let call = nvml_sym(lib.nvmlDeviceGetSupportedEventTypes.as_ref())?;
    let mut kinds: c_ulonglong = 0;
    // SAFETY: the handle is used while `device` borrows the initialised library; `kinds` outlives the call.
    nvml_try(unsafe { call(device.handle(), &raw mut kinds) })?;
    Ok(kinds)
}

/// The address of a handle, by which events name their GPU.
pub(in crate::gpu) fn address(device: &Device<'_>) -> usize {
    // SAFETY: the handle is only compared.
    unsafe { device.handle() }.addr()
}

/// `nvmlShutdown` of a library that is never unloaded. Nothing may be called on it afterwards.
pub(in crate::gpu) fn shutdown(nvml: &'static Nvml) {
    if let Ok(call) = &nvml.lib().nvmlShutdown {
        // SAFETY: no arguments. What it answers tells nothing that the exit of this process would not make true.
        unsafe { call() };
    }
}
