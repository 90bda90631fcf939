//! Facts of GPUs that nvml-wrapper lacks, or keeps to itself once it has them.
#![expect(unsafe_code, reason = "calls into a C library")]

use std::mem::{self, MaybeUninit};
use std::os::raw::c_uint;

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::{
    nvmlExcludedDeviceInfo_t, nvmlGridLicensableFeature_t, nvmlGridLicensableFeatures_t,
    nvmlPciInfo_t,
};

use super::text;
use crate::gpu::reading::{HiddenGpu, RemappedRows, Why};

// As in nvml.h 12.9.
const _: () = assert!(size_of::<nvmlExcludedDeviceInfo_t>() == 148);
const _: () = assert!(mem::offset_of!(nvmlExcludedDeviceInfo_t, uuid) == 68);

const _: () = assert!(size_of::<nvmlGridLicensableFeature_t>() == 284);
const _: () = assert!(size_of::<nvmlGridLicensableFeatures_t>() == 860);

/// `nvmlDeviceGetGridLicensableFeatures_v4`, in a virtual machine: whether a feature that is enabled is licensed. "Not supported"
/// where there is no licensing or nothing is enabled.
pub(in crate::gpu) fn guest_licensed(device: &Device<'_>) -> Result<bool, NvmlError> {
    let lib = device.nvml().lib();
    let call = nvml_sym(lib.nvmlDeviceGetGridLicensableFeatures_v4.as_ref())?;
    let mut features = MaybeUninit::<nvmlGridLicensableFeatures_t>::zeroed();
    // SAFETY: the handle is used while `device` borrows the initialised library; `features` has the layout asserted above and
    // outlives the call.
    nvml_try(unsafe { call(device.handle(), features.as_mut_ptr()) })?;
    // SAFETY: integers and arrays of them, for which zero is a value.
    let features = unsafe { features.assume_init() };
    let told = usize::try_from(features.licensableFeaturesCount).unwrap_or(usize::MAX);
    let enabled = features.gridLicensableFeatures.iter().take(told);
    let mut enabled = enabled
        .filter(|feature| feature.featureEnabled != 0)
        .peekable();
    if features.isGridLicenseSupported == 0 || enabled.peek().is_none() {
        return Err(NvmlError::NotSupported);
    }
    Ok(enabled.any(|feature| feature.featureState != 0))
}

/// `nvmlDeviceGetRemappedRows`; not supported while MIG instances exist.
pub(in crate::gpu) fn remapped_rows(device: &Device<'_>) -> Result<RemappedRows, NvmlError> {
    let lib = device.nvml().lib();
    let call = nvml_sym(lib.nvmlDeviceGetRemappedRows.as_ref())?;
    let [mut correctable, mut uncorrectable, mut pending, mut failed]: [c_uint; 4] = [0; 4];
    // SAFETY: the handle is used while `device` borrows the initialised library; the answers' places outlive the call.
    nvml_try(unsafe {
        call(
            device.handle(),
            &raw mut correctable,
            &raw mut uncorrectable,
            &raw mut pending,
            &raw mut failed,
        )
    })?;
    Ok(RemappedRows {
        correctable,
        uncorrectable,
        pending: pending != 0,
        failed: failed != 0,
    })
}

/// `nvmlGetExcludedDeviceInfoByIndex`: a GPU that the driver leaves out.
pub(in crate::gpu) fn excluded(nvml: &Nvml, index: u32) -> Result<HiddenGpu, NvmlError> {
    let call = nvml_sym(nvml.lib().nvmlGetExcludedDeviceInfoByIndex.as_ref())?;
    let mut info = nvmlExcludedDeviceInfo_t {
        pciInfo: nvmlPciInfo_t {
            busIdLegacy: [0; 16],
            domain: 0,
            bus: 0,
            device: 0,
            pciDeviceId: 0,
            pciSubSystemId: 0,
            busId: [0; 32],
        },
        uuid: [0; 80],
    };
    // SAFETY: `info` has the layout asserted above and outlives the call; `nvml` is initialised.
    nvml_try(unsafe { call(index, &raw mut info) })?;
    Ok(HiddenGpu {
        pci_bus_id: text(&info.pciInfo.busId),
        uuid: Some(text(&info.uuid)).filter(|uuid| !uuid.is_empty()),
        why: Why::Excluded,
    })
}
