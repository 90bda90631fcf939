//! vGPU instances: which run on a host, who holds them, and what their guests say of their licence.
#![expect(unsafe_code, reason = "exports C symbols")]

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as sys;

use crate::clock;
use crate::library::{Answer, Code, Device, bytes, library};
use crate::model::type_id;
use crate::scenario::{Gpu, Licence, Vgpu, Virtualization};

use super::boundary::{Handle, Out, OutText, array, version_word};
use super::device_calls;

/// What stands for the GPU instance of a vGPU that lives on no MIG instance.
const NO_INSTANCE: u32 = u32::MAX;

/// The version words of `nvmlVgpuPlacementId_v1_t` and `nvmlActiveVgpuInstanceInfo_v1_t`.
const PLACEMENT_V1: u32 = version_word::<sys::nvmlVgpuPlacementId_t>(1);
const ACTIVE_V1: u32 = version_word::<sys::nvmlActiveVgpuInstanceInfo_t>(1);

/// Whether vGPUs may, and do, take turns on a GPU instance.
const TURNS_SUPPORTED: c_uint =
    sys::nvmlDeviceVgpuCapability_enum_NVML_DEVICE_VGPU_CAP_MIG_TIMESLICING_SUPPORTED;
const TURNS_ENABLED: c_uint =
    sys::nvmlDeviceVgpuCapability_enum_NVML_DEVICE_VGPU_CAP_MIG_TIMESLICING_ENABLED;

/// How far apart a vGPU's samples are.
const SAMPLE_PERIOD_US: u64 = 166_667;

/// What a VM without a driver has as its driver's version.
const NOT_AVAILABLE: &str = "Not Available";

/// Exports functions about one vGPU instance. The body sees it and its GPU.
macro_rules! vgpu_calls {
    ($(fn $name:ident($gpu:ident, $vgpu:ident $(, $argument:ident: $kind:ty)* $(,)?) $body:block)*) => {$(
        // SAFETY: the name is NVML's, and this library exists to stand in for NVML.
        #[unsafe(no_mangle)]
        extern "C" fn $name(number: c_uint $(, $argument: $kind)*) -> u32 {
            library().vgpu_call(stringify!($name), number, |$gpu, $vgpu| $body)
        }
    )*};
}

device_calls! {
    fn nvmlDeviceGetHostVgpuMode(device, mode: Out<c_uint>) {
        host(device)?;
        mode.put(sys::nvmlHostVgpuMode_enum_NVML_HOST_VGPU_MODE_SRIOV)
    }

    fn nvmlDeviceGetGridLicensableFeatures_v4(device, features: Out<sys::nvmlGridLicensableFeatures_t>) {
        let licensed = device.whole()?.guest_licensed;
        let expiry = sys::nvmlGridLicenseExpiry_t {
            year: 0,
            month: 0,
            day: 0,
            hour: 0,
            min: 0,
            sec: 0,
            status: 0,
        };
        let feature = sys::nvmlGridLicensableFeature_t {
            featureCode: sys::nvmlGridLicenseFeatureCode_t_NVML_GRID_LICENSE_FEATURE_CODE_VGPU,
            featureState: u32::from(licensed == Some(true)),
            licenseInfo: array(""),
            productName: array("NVIDIA Virtual Compute Server"),
            featureEnabled: u32::from(licensed.is_some()),
            licenseExpiry: expiry,
        };
        features.put(sys::nvmlGridLicensableFeatures_t {
            isGridLicenseSupported: i32::from(licensed.is_some()),
            licensableFeaturesCount: u32::from(licensed.is_some()),
            gridLicensableFeatures: [feature; 3],
        })
    }

    fn nvmlDeviceGetVgpuCapabilities(device, capability: c_uint, capable: Out<c_uint>) {
        capable.check()?;
        let gpu = host(device)?;
        match capability {
            TURNS_SUPPORTED | TURNS_ENABLED => {
                let turns = gpu.vgpu.iter().any(|vgpu| vgpu.time_sliced);
                capable.put(u32::from(turns))
            }
            _ => Err(Code::NOT_SUPPORTED),
        }
    }

    // One row for each vGPU, of its newest sample; the layout is the same on a GPU that is cut, where vGPUs are not sampled.
    fn nvmlDeviceGetVgpuUtilization(
        device,
        last_seen: c_ulonglong,
        kind: Out<c_uint>,
        count: Out<c_uint>,
        samples: Out<sys::nvmlVgpuInstanceUtilizationSample_t>,
    ) {
        kind.check()?;
        count.check()?;
        host(device)?;
        let gpu = device.uncut()?;
        let now = clock::wall_micros();
        let at = now - now % SAMPLE_PERIOD_US;
        let value = |percent: u32| sys::nvmlValue_t { uiVal: percent };
        let sample = |vgpu: &Vgpu| vgpu.sm_percent.map(|percent| sys::nvmlVgpuInstanceUtilizationSample_t {
            vgpuInstance: library().vgpu_number(vgpu),
            timeStamp: at,
            smUtil: value(percent),
            memUtil: value(0),
            encUtil: value(0),
            decUtil: value(0),
        });
        let found: Vec<_> = gpu.vgpu.iter().filter_map(sample).filter(|row| row.timeStamp > last_seen).collect();
        if found.is_empty() {
            return Err(Code::NOT_FOUND);
        }
        kind.put(sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT)?;
        if samples.is_null() {
            count.put(0)?;
        }
        samples.fill(count, &found)
    }

    // A GPU that is no host has none, and that is an answer.
    fn nvmlDeviceGetActiveVgpus(device, count: Out<c_uint>, vgpus: Out<c_uint>) {
        let running = device.whole()?.vgpu.iter().filter(|vgpu| !vgpu.time_sliced);
        let numbers: Vec<c_uint> = running.map(|vgpu| library().vgpu_number(vgpu)).collect();
        vgpus.fill(count, &numbers)
    }
}

vgpu_calls! {
    fn nvmlVgpuInstanceGetUUID(_gpu, vgpu, uuid: OutText, length: c_uint) {
        uuid.put(length, &vgpu.uuid)
    }

    fn nvmlVgpuInstanceGetVmID(_gpu, vgpu, vm: OutText, length: c_uint, kind: Out<c_uint>) {
        kind.check()?;
        vm.put(length, vgpu.vm.as_deref().ok_or(Code::NOT_SUPPORTED)?)?;
        kind.put(if vgpu.vm_is_uuid() {
            sys::nvmlVgpuVmIdType_NVML_VGPU_VM_ID_UUID
        } else {
            sys::nvmlVgpuVmIdType_NVML_VGPU_VM_ID_DOMAIN_ID
        })
    }

    fn nvmlVgpuInstanceGetVmDriverVersion(_gpu, vgpu, version: OutText, length: c_uint) {
        version.put(length, vgpu.driver_version.as_deref().unwrap_or(NOT_AVAILABLE))
    }

    fn nvmlVgpuInstanceGetType(_gpu, vgpu, id: Out<c_uint>) {
        id.put(type_id(&vgpu.type_name))
    }

    fn nvmlVgpuInstanceGetFbUsage(_gpu, vgpu, used: Out<c_ulonglong>) {
        used.put(bytes(vgpu.memory_used_mib))
    }

    fn nvmlVgpuInstanceGetLicenseStatus(_gpu, vgpu, licensed: Out<c_uint>) {
        let licence = vgpu.licence.ok_or(Code::NOT_SUPPORTED)?;
        licensed.put(u32::from(licence == Licence::Licensed))
    }

    fn nvmlVgpuInstanceGetLicenseInfo(_gpu, vgpu, info: Out<sys::nvmlVgpuLicenseInfo_t>) {
        info.put(licence_info(vgpu)?)
    }

    fn nvmlVgpuInstanceGetLicenseInfo_v2(_gpu, vgpu, info: Out<sys::nvmlVgpuLicenseInfo_t>) {
        info.put(licence_info(vgpu)?)
    }

    fn nvmlVgpuInstanceGetGpuInstanceId(_gpu, vgpu, id: Out<c_uint>) {
        id.put(vgpu.gi.unwrap_or(NO_INSTANCE))
    }

    fn nvmlVgpuInstanceGetPlacementId(_gpu, vgpu, placement: Out<sys::nvmlVgpuPlacementId_t>) {
        if placement.get()?.version != PLACEMENT_V1 {
            return Err(Code::VERSION_MISMATCH);
        }
        let id = vgpu.placement_id.unwrap_or(sys::NVML_INVALID_VGPU_PLACEMENT_ID);
        placement.put(sys::nvmlVgpuPlacementId_t { version: PLACEMENT_V1, placementId: id })
    }

    fn nvmlVgpuInstanceGetGpuPciId(gpu, _vgpu, bus_id: OutText, length: Out<c_uint>) {
        bus_id.put(length.get()?, &gpu.pci_bus_id)
    }
}

// SAFETY: the name is NVML's, and this library exists to stand in for NVML.
#[unsafe(no_mangle)]
extern "C" fn nvmlGpuInstanceGetActiveVgpus(
    instance: Handle,
    info: Out<sys::nvmlActiveVgpuInstanceInfo_t>,
) -> u32 {
    let name = "nvmlGpuInstanceGetActiveVgpus";
    library().instance_call(name, instance.number(), |device, gi| {
        let asked = info.get()?;
        if asked.version != ACTIVE_V1 {
            return Err(Code::VERSION_MISMATCH);
        }
        let gpu = host(device)?;
        let here = gpu.vgpu.iter().filter(|vgpu| vgpu.gi == Some(gi));
        let numbers: Vec<c_uint> = here.map(|vgpu| library().vgpu_number(vgpu)).collect();
        let needed = c_uint::try_from(numbers.len()).unwrap_or(c_uint::MAX);
        let answer = Out::from_struct(asked.vgpuInstances).fill_room(asked.vgpuCount, &numbers);
        info.put(sys::nvmlActiveVgpuInstanceInfo_t {
            vgpuCount: needed,
            ..asked
        })?;
        answer
    })
}

/// The GPU, for questions that only a vGPU host answers.
pub(super) fn host<'s>(device: &Device<'s>) -> Answer<&'s Gpu> {
    let gpu = device.whole()?;
    match gpu.virtualization {
        Virtualization::HostVgpu => Ok(gpu),
        Virtualization::None | Virtualization::Passthrough | Virtualization::Vgpu => {
            Err(Code::NOT_SUPPORTED)
        }
    }
}

fn licence_info(vgpu: &Vgpu) -> Answer<sys::nvmlVgpuLicenseInfo_t> {
    let state = match vgpu.licence.ok_or(Code::NOT_SUPPORTED)? {
        Licence::Licensed => sys::NVML_GRID_LICENSE_STATE_LICENSED,
        Licence::Unlicensed => sys::NVML_GRID_LICENSE_STATE_UNLICENSED,
        Licence::Unknown => sys::NVML_GRID_LICENSE_STATE_UNINITIALIZED,
        Licence::NoDriver => return Err(Code::DRIVER_NOT_LOADED),
    };
    Ok(sys::nvmlVgpuLicenseInfo_t {
        isLicensed: u8::from(state == sys::NVML_GRID_LICENSE_STATE_LICENSED),
        licenseExpiry: expiry(vgpu),
        currentState: state,
    })
}

fn expiry(vgpu: &Vgpu) -> sys::nvmlVgpuLicenseExpiry_t {
    let at = vgpu.licence_expires.and_then(|at| at.date.zip(at.time));
    let (date, time) = at.unzip();
    let status = match at {
        Some(_) => sys::NVML_GRID_LICENSE_EXPIRY_VALID,
        None => sys::NVML_GRID_LICENSE_EXPIRY_NOT_AVAILABLE,
    };
    sys::nvmlVgpuLicenseExpiry_t {
        year: date.map_or(0, |date| u32::from(date.year)),
        month: date.map_or(0, |date| u16::from(date.month)),
        day: date.map_or(0, |date| u16::from(date.day)),
        hour: time.map_or(0, |time| u16::from(time.hour)),
        min: time.map_or(0, |time| u16::from(time.minute)),
        sec: time.map_or(0, |time| u16::from(time.second.unwrap_or(0))),
        status: u8::try_from(status).unwrap_or(0),
    }
}
