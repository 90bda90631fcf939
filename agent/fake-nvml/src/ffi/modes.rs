//! Modes that an administrator sets on a GPU.
#![expect(unsafe_code, reason = "exports C symbols")]

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as sys;

use crate::scenario::{ComputeMode, Virtualization};

use super::boundary::Out;
use super::device_calls;

device_calls! {
    fn nvmlDeviceGetComputeMode(device, mode: Out<c_uint>) {
        let gpu = device.whole()?;
        // MIG forces the default.
        let asked = if gpu.mig_enabled() { ComputeMode::Default } else { gpu.compute_mode };
        mode.put(match asked {
            ComputeMode::Default => sys::nvmlComputeMode_enum_NVML_COMPUTEMODE_DEFAULT,
            ComputeMode::Prohibited => sys::nvmlComputeMode_enum_NVML_COMPUTEMODE_PROHIBITED,
            ComputeMode::ExclusiveProcess => sys::nvmlComputeMode_enum_NVML_COMPUTEMODE_EXCLUSIVE_PROCESS,
        })
    }

    fn nvmlDeviceGetPersistenceMode(device, mode: Out<c_uint>) {
        mode.put(u32::from(device.whole()?.persistence))
    }

    fn nvmlDeviceGetDisplayMode(device, mode: Out<c_uint>) {
        device.whole()?;
        mode.put(sys::nvmlEnableState_enum_NVML_FEATURE_DISABLED)
    }

    fn nvmlDeviceGetDisplayActive(device, mode: Out<c_uint>) {
        device.whole()?;
        mode.put(sys::nvmlEnableState_enum_NVML_FEATURE_DISABLED)
    }

    fn nvmlDeviceGetAccountingMode(device, mode: Out<c_uint>) {
        let gpu = device.whole()?;
        // MIG forces it off.
        mode.put(u32::from(gpu.accounting && !gpu.mig_enabled()))
    }

    fn nvmlDeviceGetVirtualizationMode(device, mode: Out<c_uint>) {
        mode.put(match device.whole()?.virtualization {
            Virtualization::None => sys::nvmlGpuVirtualizationMode_NVML_GPU_VIRTUALIZATION_MODE_NONE,
            Virtualization::Passthrough => sys::nvmlGpuVirtualizationMode_NVML_GPU_VIRTUALIZATION_MODE_PASSTHROUGH,
            Virtualization::Vgpu => sys::nvmlGpuVirtualizationMode_NVML_GPU_VIRTUALIZATION_MODE_VGPU,
            Virtualization::HostVgpu => sys::nvmlGpuVirtualizationMode_NVML_GPU_VIRTUALIZATION_MODE_HOST_VGPU,
        })
    }
}
