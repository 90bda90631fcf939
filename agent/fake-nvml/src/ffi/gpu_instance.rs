//! GPU instances as objects: their profiles, places and handles. NVML wants privileges for most of it.
#![expect(unsafe_code, reason = "exports C symbols")]

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as sys;

use crate::library::{Answer, Code, Device, library};
use crate::model::{GpuProfile, profiles_of};
use crate::scenario::{Gpu, Mig};

use super::boundary::{Handle, Out, array, version_word};
use super::device_calls;

/// The version words of `nvmlGpuInstanceProfileInfo_v2_t` and `_v3_t`.
const PROFILE_V2: u32 = version_word::<sys::nvmlGpuInstanceProfileInfo_v2_t>(2);
const PROFILE_V3: u32 = version_word::<sys::nvmlGpuInstanceProfileInfo_v3_t>(3);

device_calls! {
    fn nvmlDeviceGetGpuInstanceProfileInfo(device, number: c_uint, info: Out<sys::nvmlGpuInstanceProfileInfo_t>) {
        let profile = profile(device, number)?;
        info.put(sys::nvmlGpuInstanceProfileInfo_t {
            id: profile.id,
            isP2pSupported: 0,
            sliceCount: profile.slices,
            instanceCount: profile.most,
            multiprocessorCount: profile.sm_count,
            copyEngineCount: profile.copy_engines,
            decoderCount: profile.decoders,
            encoderCount: 0,
            jpegCount: 0,
            ofaCount: 0,
            memorySizeMB: profile.memory_mib,
        })
    }

    fn nvmlDeviceGetGpuInstanceProfileInfoV(device, number: c_uint, info: Out<sys::nvmlGpuInstanceProfileInfo_v2_t>) {
        let version = info.narrowed::<c_uint>().get()?;
        let profile = profile(device, number)?;
        let name = format!("MIG {}", profile.name);
        match version {
            PROFILE_V2 => info.put(sys::nvmlGpuInstanceProfileInfo_v2_t {
                version,
                id: profile.id,
                isP2pSupported: 0,
                sliceCount: profile.slices,
                instanceCount: profile.most,
                multiprocessorCount: profile.sm_count,
                copyEngineCount: profile.copy_engines,
                decoderCount: profile.decoders,
                encoderCount: 0,
                jpegCount: 0,
                ofaCount: 0,
                memorySizeMB: profile.memory_mib,
                name: array(&name),
            }),
            PROFILE_V3 => info.narrowed().put(sys::nvmlGpuInstanceProfileInfo_v3_t {
                version,
                id: profile.id,
                sliceCount: profile.slices,
                instanceCount: profile.most,
                multiprocessorCount: profile.sm_count,
                copyEngineCount: profile.copy_engines,
                decoderCount: profile.decoders,
                encoderCount: 0,
                jpegCount: 0,
                ofaCount: 0,
                memorySizeMB: profile.memory_mib,
                name: array(&name),
                capabilities: 0,
            }),
            _ => Err(Code::VERSION_MISMATCH),
        }
    }

    fn nvmlDeviceGetGpuInstancePossiblePlacements_v2(
        device,
        profile: c_uint,
        placements: Out<sys::nvmlGpuInstancePlacement_t>,
        count: Out<c_uint>,
    ) {
        let gpu = cut(device)?;
        let mut known = profiles_of(gpu).into_iter();
        let found = known.find(|known| known.id == profile).ok_or(Code::NOT_SUPPORTED)?;
        let places = found.places.iter().map(|[start, size]| sys::nvmlGpuInstancePlacement_t { start: *start, size: *size });
        let places: Vec<_> = places.collect();
        count.put(c_uint::try_from(places.len()).unwrap_or(c_uint::MAX))?;
        // Asking for the number: there is no room then.
        if placements.is_null() {
            return Ok(());
        }
        placements.fill(count, &places)
    }

    fn nvmlDeviceGetGpuInstanceById(device, id: c_uint, instance: Out<Handle>) {
        instance.check()?;
        let gpu = cut(device)?;
        let mig = instance_of(gpu, id).ok_or(Code::NOT_FOUND)?;
        instance.put(Handle::from_number(library().instance_handle(gpu, mig.gi)))
    }

    fn nvmlDeviceGetGpuInstances(device, profile: c_uint, instances: Out<Handle>, count: Out<c_uint>) {
        count.check()?;
        let gpu = cut(device)?;
        let mut found: Vec<u32> = gpu
            .mig
            .iter()
            .filter(|mig| profile_id(gpu, mig) == Some(profile))
            .map(|mig| mig.gi)
            .collect();
        found.sort_unstable();
        found.dedup();
        let handles: Vec<Handle> =
            found.iter().map(|gi| Handle::from_number(library().instance_handle(gpu, *gi))).collect();
        // The room is what the caller vouches for: the count is not read.
        count.put(c_uint::try_from(handles.len()).unwrap_or(c_uint::MAX))?;
        instances.fill(count, &handles)
    }
}

// SAFETY: the name is NVML's, and this library exists to stand in for NVML.
#[unsafe(no_mangle)]
extern "C" fn nvmlGpuInstanceGetInfo(
    instance: Handle,
    info: Out<sys::nvmlGpuInstanceInfo_t>,
) -> u32 {
    library().instance_call("nvmlGpuInstanceGetInfo", instance.number(), |device, gi| {
        let gpu = device.gpu;
        let mig = instance_of(gpu, gi).ok_or(Code::INVALID_ARGUMENT)?;
        let [start, size] = mig.placement.ok_or(Code::NOT_SUPPORTED)?;
        let parent: sys::nvmlDevice_t = Handle::from_number(library().handle_of(device)).pointer();
        info.put(sys::nvmlGpuInstanceInfo_t {
            device: parent,
            id: gi,
            profileId: profile_id(gpu, mig).ok_or(Code::NOT_SUPPORTED)?,
            placement: sys::nvmlGpuInstancePlacement_t { start, size },
        })
    })
}

/// The GPU, when it is cut.
fn cut<'s>(device: &Device<'s>) -> Answer<&'s Gpu> {
    let gpu = device.whole()?;
    if gpu.mig_enabled() {
        Ok(gpu)
    } else {
        Err(Code::NOT_SUPPORTED)
    }
}

/// The first compute instance of a GPU instance, which has what the GPU instance has.
fn instance_of(gpu: &Gpu, gi: u32) -> Option<&Mig> {
    gpu.mig.iter().find(|mig| mig.gi == gi)
}

fn profile(device: &Device<'_>, number: c_uint) -> Answer<GpuProfile> {
    let gpu = device.whole()?;
    if number >= sys::NVML_GPU_INSTANCE_PROFILE_COUNT {
        return Err(Code::INVALID_ARGUMENT);
    }
    let mut profiles = profiles_of(gpu).into_iter();
    let found = profiles.find(|profile| profile.number == number);
    found
        .filter(|_| gpu.mig_mode.is_some())
        .ok_or(Code::NOT_SUPPORTED)
}

fn profile_id(gpu: &Gpu, mig: &Mig) -> Option<u32> {
    let profiles = profiles_of(gpu);
    let mut named = profiles
        .iter()
        .filter(|profile| profile.name == mig.instance_profile());
    named.next().map(|profile| profile.id)
}
