//! MIG: the mode, the walk over the slots, and what an instance is.
#![expect(unsafe_code, reason = "exports C symbols")]

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as sys;

use crate::library::{Answer, Code, Device, library};

use super::boundary::{Handle, Out};
use super::device_calls;

device_calls! {
    fn nvmlDeviceGetMigMode(device, current: Out<c_uint>, pending: Out<c_uint>) {
        let gpu = device.whole()?;
        let mode = gpu.mig_mode.ok_or(Code::NOT_SUPPORTED)?;
        pending.check()?;
        current.put(u32::from(mode))?;
        pending.put(u32::from(gpu.mig_mode_pending.unwrap_or(mode)))
    }

    fn nvmlDeviceGetMaxMigDeviceCount(device, count: Out<c_uint>) {
        count.put(device.whole()?.slots())
    }

    fn nvmlDeviceGetMigDeviceHandleByIndex(device, index: c_uint, mig: Out<Handle>) {
        mig.check()?;
        let gpu = device.whole()?;
        if gpu.mig_mode.is_none() {
            return Err(Code::NOT_SUPPORTED);
        }
        if gpu.mig_enabled() && index >= gpu.slots() {
            return Err(Code::INVALID_ARGUMENT);
        }
        let in_slot = |instance: &Device<'_>| instance.mig.is_some_and(|(slot, _)| slot == index);
        let instance = device.instances().find(in_slot).ok_or(Code::NOT_FOUND)?;
        mig.put(Handle::from_number(library().handle_of(&instance)))
    }

    fn nvmlDeviceIsMigDeviceHandle(device, is_mig: Out<c_uint>) {
        is_mig.put(u32::from(device.mig.is_some()))
    }

    fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device, parent: Out<Handle>) {
        device.instance()?;
        let gpu = Device { mig: None, ..*device };
        parent.put(Handle::from_number(library().handle_of(&gpu)))
    }

    fn nvmlDeviceGetGpuInstanceId(device, id: Out<c_uint>) {
        id.put(device.instance()?.1.gi)
    }

    fn nvmlDeviceGetComputeInstanceId(device, id: Out<c_uint>) {
        id.put(device.instance()?.1.ci)
    }

    fn nvmlDeviceGetAttributes(device, attributes: Out<sys::nvmlDeviceAttributes_t>) {
        attributes.put(attributes_of(device)?)
    }

    fn nvmlDeviceGetAttributes_v2(device, attributes: Out<sys::nvmlDeviceAttributes_t>) {
        attributes.put(attributes_of(device)?)
    }
}

fn attributes_of(device: &Device<'_>) -> Answer<sys::nvmlDeviceAttributes_t> {
    let (_, mig) = device.mig.ok_or(Code::NOT_SUPPORTED)?;
    let [instance, compute] = mig.slices().ok_or(Code::NOT_SUPPORTED)?;
    Ok(sys::nvmlDeviceAttributes_t {
        multiprocessorCount: mig.sm_count,
        sharedCopyEngineCount: mig.copy_engines,
        sharedDecoderCount: mig.decoders,
        sharedEncoderCount: mig.encoders,
        sharedJpegCount: mig.jpegs,
        sharedOfaCount: mig.ofas,
        gpuInstanceSliceCount: instance,
        computeInstanceSliceCount: compute,
        memorySizeMB: mig.memory_total_mib,
    })
}
