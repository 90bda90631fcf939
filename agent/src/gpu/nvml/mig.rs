//! MIG devices of one GPU: a walk over slots of which most are empty.

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;

use super::ask::{Asker, Got};
use crate::gpu::epoch;
use crate::gpu::profile::{Profile, Slices};
use crate::gpu::raw;
use crate::gpu::raw::mig::GpuInstance;
use crate::gpu::reading::MigReading;

/// No driver numbers its profiles further.
const PROFILES: u32 = 64;

/// The instances of one GPU with what is kept of them between looks.
#[derive(Debug, Default)]
pub(super) struct Mig<'n> {
    pub(super) instances: Vec<Instance<'n>>,
    /// Ids and names of GPU instance profiles; fixed while the GPU is in MIG mode.
    profiles: Option<Vec<(u32, Profile)>>,
    /// We may not ask about GPU instances, or the driver does not know how.
    untold: bool,
    looks: u32,
    /// The next look asks everything.
    pub(super) thorough: bool,
}

/// One MIG device with what does not change while it exists.
#[derive(Debug)]
pub(super) struct Instance<'n> {
    pub(super) device: Device<'n>,
    pub(super) uuid: String,
    pub(super) gi: u32,
    pub(super) ci: u32,
    /// What its own name or sizes say.
    own: Option<Profile>,
    /// What its GPU instance is.
    of: Option<GpuInstance>,
    pub(super) profile: Option<String>,
    /// Framebuffer when last read, bytes. Another size under the same handle is another instance.
    pub(super) total: Option<u64>,
}

impl Instance<'_> {
    /// The row without what changes from pass to pass.
    pub(super) fn row(&self) -> MigReading {
        MigReading {
            uuid: self.uuid.clone(),
            gi: self.gi,
            ci: self.ci,
            profile: self.profile.clone(),
            placement: self.of.map(|of| of.placement),
            ..MigReading::default()
        }
    }
}

impl<'n> Mig<'n> {
    /// Tries again what could not be asked.
    pub(super) fn retry(&mut self) {
        self.untold = false;
    }

    /// The GPU is not cut, or was and is cut anew.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Ids of the GPU instances that are known, each once.
    pub(super) fn gpu_instances(&self) -> Vec<u32> {
        let mut gis: Vec<u32> = self.instances.iter().map(|instance| instance.gi).collect();
        gis.sort_unstable();
        gis.dedup();
        gis
    }

    /// Which instances there are. The same UUID comes back when an instance is made anew in its place, so of those that are
    /// known half of what tells them apart is asked at each look: name or sizes at one, profile and place at the next.
    /// Says whether the layout is another one.
    pub(super) fn look(&mut self, asker: &mut Asker<'_>, parent: &Device<'n>) -> bool {
        let before: Vec<MigReading> = self.instances.iter().map(Instance::row).collect();
        let slots = asker.ask("nvmlDeviceGetMaxMigDeviceCount", || {
            parent.mig_device_count()
        });
        let slots = slots.value().unwrap_or(0);
        self.looks = self.looks.wrapping_add(1);
        let thorough = std::mem::take(&mut self.thorough);
        let names = thorough || self.looks.is_multiple_of(2);
        let places = thorough || !self.looks.is_multiple_of(2);
        let known = std::mem::take(&mut self.instances);
        self.instances = asker.on_instances(|asker| {
            let mut found = walk(asker, parent, slots, known, names);
            self.ask_gpu_instances(asker, parent, &mut found, places);
            found
        });
        for instance in &mut self.instances {
            instance.profile = name_of(instance, self.profiles.as_deref().unwrap_or_default());
        }
        let now: Vec<MigReading> = self.instances.iter().map(Instance::row).collect();
        epoch::recut(&before, &now)
    }

    /// What the GPU instances are, each asked once.
    fn ask_gpu_instances(
        &mut self,
        asker: &mut Asker<'_>,
        parent: &Device<'_>,
        found: &mut [Instance<'_>],
        all: bool,
    ) {
        let mut asked: Vec<(u32, Option<GpuInstance>)> = Vec::new();
        for instance in found.iter_mut() {
            if self.untold || !(all || instance.of.is_none()) {
                continue;
            }
            let gi = instance.gi;
            let of = match asked.iter().find(|(other, _)| *other == gi) {
                Some((_, of)) => *of,
                None => match gpu_instance(asker, parent, gi) {
                    Got::Value(of) => Some(of),
                    Got::Lacking => {
                        self.untold = true;
                        None
                    }
                    Got::Unknown => instance.of,
                },
            };
            asked.push((gi, of));
            instance.of = of;
        }
        if self.profiles.is_none() && found.iter().any(|instance| instance.of.is_some()) {
            self.profiles = profiles(asker, parent);
        }
    }
}

fn walk<'n>(
    asker: &mut Asker<'_>,
    parent: &Device<'n>,
    slots: u32,
    mut known: Vec<Instance<'n>>,
    names: bool,
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
                let own = match names || before.of.is_none() {
                    true => own_profile(asker, parent, &device).or(before.own),
                    false => before.own,
                };
                Some(Instance {
                    own,
                    device,
                    ..before
                })
            }
            None => describe(asker, parent, device, uuid),
        };
        found.extend(instance);
    }
    found
}

fn describe<'n>(
    asker: &mut Asker<'_>,
    parent: &Device<'n>,
    device: Device<'n>,
    uuid: String,
) -> Option<Instance<'n>> {
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
        own: own_profile(asker, parent, &device),
        of: None,
        profile: None,
        device,
        uuid,
        gi,
        ci,
        total: None,
    })
}

fn own_profile(asker: &mut Asker<'_>, parent: &Device<'_>, device: &Device<'_>) -> Option<Profile> {
    let name = asker.ask("nvmlDeviceGetName", || device.name()).value();
    name.as_deref().and_then(Profile::of_device).or_else(|| {
        let attributes = asker
            .ask("nvmlDeviceGetAttributes_v2", || device.attributes())
            .value()?;
        Profile::of_sizes(Slices {
            gpu: attributes.gpu_instance_slice_count,
            compute: attributes.compute_instance_slice_count,
            memory_mib: attributes.memory_size_mb,
            of_mib: memory_mib(asker, parent)?,
        })
    })
}

fn memory_mib(asker: &mut Asker<'_>, parent: &Device<'_>) -> Option<u64> {
    let memory = asker.ask("nvmlDeviceGetMemoryInfo", || raw::memory_v1(parent));
    memory.value().map(|memory| memory.total >> 20)
}

fn gpu_instance(asker: &mut Asker<'_>, parent: &Device<'_>, gi: u32) -> Got<GpuInstance> {
    let handle = asker.ask("nvmlDeviceGetGpuInstanceById", || {
        raw::mig::handle(parent, gi)
    });
    match handle {
        Got::Value(handle) => {
            asker.ask("nvmlGpuInstanceGetInfo", || raw::mig::info(parent, handle))
        }
        Got::Lacking => Got::Lacking,
        Got::Unknown => Got::Unknown,
    }
}

/// Ids and names of the profiles of a GPU; `None` when they cannot be had right now.
fn profiles(asker: &mut Asker<'_>, parent: &Device<'_>) -> Option<Vec<(u32, Profile)>> {
    let mut found = Vec::new();
    for number in 0..PROFILES {
        let profile = asker.ask(
            "nvmlDeviceGetGpuInstanceProfileInfoV",
            || match raw::mig::profile(parent, number) {
                Err(NvmlError::InvalidArg) => Ok(None),
                answer => answer.map(Some),
            },
        );
        match profile {
            Got::Value(Some((id, name))) => found.extend(Profile::parse(&name).map(|of| (id, of))),
            // The number behind the last one that the driver knows.
            Got::Value(None) => break,
            Got::Lacking => {}
            Got::Unknown => return None,
        }
    }
    Some(found)
}

/// The GPU instance knows its profile best; without it the device's own name or sizes have to do.
fn name_of(instance: &Instance<'_>, profiles: &[(u32, Profile)]) -> Option<String> {
    let own = instance.own.as_ref();
    let of = instance.of.and_then(|of| {
        let (_, profile) = profiles.iter().find(|(id, _)| *id == of.profile)?;
        Some(profile.clone().with_compute_of(own).to_string())
    });
    of.or_else(|| own.map(ToString::to_string))
}

fn or_none<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(NvmlError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
