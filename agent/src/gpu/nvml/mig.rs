//! MIG devices of one GPU: a walk over slots of which most are empty.

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;

use super::ask::Asker;
use crate::gpu::profile::{self, Slices};
use crate::gpu::raw;

/// One MIG device with what does not change while it exists.
#[derive(Debug)]
pub(super) struct Instance<'n> {
    pub(super) device: Device<'n>,
    pub(super) uuid: String,
    pub(super) gi: u32,
    pub(super) ci: u32,
    pub(super) profile: Option<String>,
    /// Framebuffer when last read, bytes. Another size under the same handle is another instance.
    pub(super) total: Option<u64>,
}

/// All MIG devices on `parent`. Of an instance that is known by its UUID only the profile is asked again: the same UUID
/// comes back when an instance is made anew in its place.
pub(super) fn walk<'n>(
    asker: &mut Asker<'_>,
    parent: &Device<'n>,
    known: Vec<Instance<'n>>,
) -> Vec<Instance<'n>> {
    let slots = asker.ask("nvmlDeviceGetMaxMigDeviceCount", || {
        parent.mig_device_count()
    });
    let slots = slots.value().unwrap_or(0);
    asker.on_instances(|asker| walk_slots(asker, parent, slots, known))
}

fn walk_slots<'n>(
    asker: &mut Asker<'_>,
    parent: &Device<'n>,
    slots: u32,
    mut known: Vec<Instance<'n>>,
) -> Vec<Instance<'n>> {
    let mut found = Vec::new();
    for slot in 0..slots {
        let device = asker.ask("nvmlDeviceGetMigDeviceHandleByIndex", || {
            or_none(parent.mig_device_by_index(slot))
        });
        let Some(device) = device.value().flatten() else {
            continue;
        };
        // An instance that is destroyed during the walk is no longer there, and no fault.
        let uuid = asker.ask("nvmlDeviceGetUUID", || or_none(device.uuid()));
        let Some(uuid) = uuid.value().flatten() else {
            continue;
        };
        let instance = match known.iter().position(|instance| instance.uuid == uuid) {
            Some(at) => {
                let before = known.swap_remove(at);
                Some(Instance {
                    profile: profile_of(asker, &device).or(before.profile),
                    device,
                    ..before
                })
            }
            None => describe(asker, device, uuid),
        };
        found.extend(instance);
    }
    found
}

fn describe<'n>(asker: &mut Asker<'_>, device: Device<'n>, uuid: String) -> Option<Instance<'n>> {
    let gi = asker
        .ask("nvmlDeviceGetGpuInstanceId", || {
            raw::gpu_instance_id(&device)
        })
        .value()?;
    let ci = asker
        .ask("nvmlDeviceGetComputeInstanceId", || {
            raw::compute_instance_id(&device)
        })
        .value()?;
    Some(Instance {
        profile: profile_of(asker, &device),
        device,
        uuid,
        gi,
        ci,
        total: None,
    })
}

fn profile_of(asker: &mut Asker<'_>, device: &Device<'_>) -> Option<String> {
    let name = asker.ask("nvmlDeviceGetName", || device.name()).value();
    let by_name = name
        .as_deref()
        .and_then(profile::from_name)
        .map(str::to_owned);
    by_name.or_else(|| {
        let attributes = asker
            .ask("nvmlDeviceGetAttributes_v2", || device.attributes())
            .value()?;
        profile::from_slices(Slices {
            gpu: attributes.gpu_instance_slice_count,
            compute: attributes.compute_instance_slice_count,
            memory_mib: attributes.memory_size_mb,
        })
    })
}

fn or_none<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(NvmlError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
