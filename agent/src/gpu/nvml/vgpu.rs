//! vGPU instances of one GPU on a host. They come and go with virtual machines, so each pass asks which there are.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::vgpu::VmId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::vgpu::{VgpuInstance, VgpuType};

use super::ask::{Asker, Got};
use super::licence::{Told, told_by_flag, told_by_info};
use super::vgpu_usage::VgpuUsage;
use crate::gpu::raw;
use crate::gpu::reading::{Licence, VgpuReading};

/// `INVALID_GPU_INSTANCE_ID`: the vGPU is on no GPU instance.
const NO_INSTANCE: u32 = u32::MAX;

/// What is kept of the vGPU instances of one GPU between passes.
#[derive(Debug, Default)]
pub(super) struct Vgpus {
    known: Vec<Known>,
    types: Vec<Type>,
    /// This driver has no `nvmlVgpuInstanceGetLicenseInfo_v2`.
    no_licence_info: bool,
    /// This driver does not list vGPUs by GPU instance.
    no_instances: bool,
    /// We may not ask which take turns on GPU instances, and they may.
    denied: bool,
    /// Which guests' drivers are asked for in the next pass.
    drivers: Due,
    usage: VgpuUsage,
}

/// A guest loads its driver when it boots, so who has none is asked more often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Due {
    No,
    Missing,
    #[default]
    All,
}

/// What does not change while an instance runs.
#[derive(Debug)]
struct Known {
    number: u32,
    uuid: String,
    vm: Option<String>,
    type_id: Option<u32>,
    gi: Option<u32>,
    placement_id: Option<u32>,
    guest_driver: Option<String>,
}

#[derive(Debug)]
struct Type {
    id: u32,
    name: String,
    framebuffer_bytes: u64,
}

/// What became of one number of the list.
enum Seen {
    Runs(Known, Box<VgpuReading>),
    /// It ended after the list was made.
    Gone,
    /// It runs, and not even its UUID is known.
    Nameless,
}

/// What NVML gives of a GPU instance.
enum Instance<T> {
    There(T),
    Gone,
    /// We may not ask.
    Refused,
}

impl Vgpus {
    /// Tries again what this driver did not have.
    pub(super) fn retry(&mut self) {
        self.no_licence_info = false;
        self.no_instances = false;
        self.denied = false;
        self.usage.retry();
        self.drivers = Due::All;
    }

    /// Something may have changed that each pass does not ask.
    pub(super) fn look(&mut self) {
        if self.drivers == Due::No {
            self.drivers = Due::Missing;
        }
    }

    /// More may take turns on GPU instances than the last list has: we may not ask.
    pub(super) fn may_be_more(&self) -> bool {
        self.denied
    }

    /// All vGPU instances on `device`, those that take turns on its GPU instances `gis` included; `None` when it is not known
    /// which there are.
    pub(super) fn read(
        &mut self,
        asker: &mut Asker<'_>,
        device: &Device<'_>,
        gis: &[u32],
    ) -> Option<Vec<VgpuReading>> {
        let numbers = asker.ask("nvmlDeviceGetActiveVgpus", || {
            match raw::vgpu::active(device) {
                // A host of another kind, whose virtual machines share a GPU without instances.
                Err(NvmlError::NotSupported) => Ok(Vec::new()),
                answer => answer,
            }
        });
        let mut numbers = numbers.value()?;
        asker.on_instances(|asker| {
            for gi in gis {
                let mut more = self.on_instance(asker, device, *gi)?;
                more.retain(|number| !numbers.contains(number));
                numbers.extend(more);
            }
            let mut found = self.read_all(asker, device, &numbers);
            if let Some(found) = &mut found {
                let numbers = self.known.iter().map(|known| known.number);
                self.usage.fill(asker, device, numbers, found);
            }
            self.drivers = Due::No;
            found
        })
    }

    /// vGPUs that take turns on one GPU instance. Where the driver does not know how, there are none; where we may not ask, it is
    /// noted that there may be.
    fn on_instance(
        &mut self,
        asker: &mut Asker<'_>,
        device: &Device<'_>,
        gi: u32,
    ) -> Option<Vec<u32>> {
        if self.no_instances || self.denied {
            return Some(Vec::new());
        }
        let handle = asker.ask("nvmlDeviceGetGpuInstanceById", || {
            or_refused(raw::mig::handle(device, gi))
        });
        let listed = match handle {
            Got::Value(Instance::There(handle)) => asker
                .ask("nvmlGpuInstanceGetActiveVgpus", || {
                    or_refused(raw::vgpu::active_on(device, handle))
                }),
            Got::Value(Instance::Gone) => Got::Value(Instance::Gone),
            Got::Value(Instance::Refused) => Got::Value(Instance::Refused),
            Got::Lacking => Got::Lacking,
            Got::Unknown => Got::Unknown,
        };
        match listed {
            Got::Value(Instance::There(numbers)) => Some(numbers),
            Got::Value(Instance::Gone) => Some(Vec::new()),
            Got::Value(Instance::Refused) => {
                let turns = asker.ask("nvmlDeviceGetVgpuCapabilities", || {
                    raw::vgpu::takes_turns_on_instances(device)
                });
                match turns {
                    Got::Value(false) => self.no_instances = true,
                    Got::Value(true) | Got::Lacking | Got::Unknown => self.denied = true,
                }
                Some(Vec::new())
            }
            Got::Lacking => {
                self.no_instances = true;
                Some(Vec::new())
            }
            Got::Unknown => None,
        }
    }

    fn read_all(
        &mut self,
        asker: &mut Asker<'_>,
        device: &Device<'_>,
        numbers: &[u32],
    ) -> Option<Vec<VgpuReading>> {
        let mut known = Vec::with_capacity(numbers.len());
        let mut found = Vec::with_capacity(numbers.len());
        for number in numbers {
            match self.read_one(asker, device, *number) {
                Seen::Runs(instance, row) => {
                    known.push(instance);
                    found.push(*row);
                }
                Seen::Gone => {}
                Seen::Nameless => return None,
            }
        }
        self.known = known;
        Some(found)
    }

    /// UUID and VM are asked each time: a number may come back for another instance, and the VM says whose it is.
    fn read_one(&mut self, asker: &mut Asker<'_>, device: &Device<'_>, number: u32) -> Seen {
        let instance = VgpuInstance::new(number, device);
        let before = self.known.iter().position(|known| known.number == number);
        let before = before.map(|at| self.known.swap_remove(at));
        let uuid = match asker.ask("nvmlVgpuInstanceGetUUID", || or_gone(instance.uuid())) {
            Got::Value(None) => return Seen::Gone,
            Got::Value(Some(uuid)) => Some(uuid),
            Got::Lacking | Got::Unknown => before.as_ref().map(|known| known.uuid.clone()),
        };
        let Some(uuid) = uuid else {
            return Seen::Nameless;
        };
        let before = before.filter(|known| known.uuid == uuid);
        let vm = match asker.ask("nvmlVgpuInstanceGetVmID", || or_gone(instance.vm_id())) {
            Got::Value(None) => return Seen::Gone,
            Got::Value(Some(VmId::Uuid(vm) | VmId::Domain(vm))) => Some(vm).filter(|vm| plain(vm)),
            Got::Lacking | Got::Unknown => before.as_ref().and_then(|known| known.vm.clone()),
        };
        let (gi, placement_id) = match &before {
            Some(known) => (known.gi, known.placement_id),
            None => places(asker, device, number, &instance),
        };
        let told = before.as_ref().and_then(|known| known.guest_driver.clone());
        let due = match self.drivers {
            Due::No => before.is_none(),
            Due::Missing => told.is_none(),
            Due::All => true,
        };
        let guest_driver = match due {
            true => guest_driver(asker, &instance, told),
            false => told,
        };
        let type_id = match before.and_then(|known| known.type_id) {
            Some(id) => Some(id),
            None => match asker.ask("nvmlVgpuInstanceGetType", || {
                or_gone(instance.instance_type())
            }) {
                Got::Value(None) => return Seen::Gone,
                Got::Value(Some(of)) => Some(of.id()),
                Got::Lacking | Got::Unknown => None,
            },
        };
        let used_bytes = match asker.ask("nvmlVgpuInstanceGetFbUsage", || {
            or_gone(instance.fb_usage())
        }) {
            Got::Value(None) => return Seen::Gone,
            Got::Value(used) => used,
            Got::Lacking | Got::Unknown => None,
        };
        let Some((licence, licence_expires_at_s)) = self.licence(asker, device, number, &instance)
        else {
            return Seen::Gone;
        };
        let of = type_id.map(|id| self.type_of(asker, device, id));
        let (type_name, framebuffer_bytes) = of.unwrap_or_default();
        let row = VgpuReading {
            uuid: uuid.clone(),
            vm: vm.clone(),
            type_name,
            gi,
            placement_id,
            guest_driver: guest_driver.clone(),
            framebuffer_bytes,
            used_bytes,
            sm_percent: None,
            licence,
            licence_expires_at_s,
        };
        let known = Known {
            number,
            uuid,
            vm,
            type_id,
            gi,
            placement_id,
            guest_driver,
        };
        Seen::Runs(known, Box::new(row))
    }

    /// Name and framebuffer of a type, asked until they are known.
    fn type_of(
        &mut self,
        asker: &mut Asker<'_>,
        device: &Device<'_>,
        id: u32,
    ) -> (Option<String>, Option<u64>) {
        if let Some(of) = self.types.iter().find(|of| of.id == id) {
            return (Some(of.name.clone()), Some(of.framebuffer_bytes));
        }
        let of = VgpuType::new(device, id);
        let name = asker.ask("nvmlVgpuTypeGetName", || of.name()).value();
        let framebuffer_bytes = asker
            .ask("nvmlVgpuTypeGetFramebufferSize", || of.framebuffer_size())
            .value();
        if let (Some(name), Some(framebuffer_bytes)) = (&name, framebuffer_bytes) {
            self.types.push(Type {
                id,
                name: name.clone(),
                framebuffer_bytes,
            });
        }
        (name, framebuffer_bytes)
    }

    /// `None` when the instance has ended.
    fn licence(
        &mut self,
        asker: &mut Asker<'_>,
        device: &Device<'_>,
        number: u32,
        instance: &VgpuInstance<'_>,
    ) -> Option<(Licence, Option<i64>)> {
        const UNKNOWN: (Licence, Option<i64>) = (Licence::Unknown, None);
        if !self.no_licence_info {
            let answer = asker.ask("nvmlVgpuInstanceGetLicenseInfo_v2", || {
                told_by_info(instance.license_info_v2())
            });
            match answer {
                Got::Value(Told::State(licence, expires_at_s)) => {
                    return Some((licence, expires_at_s));
                }
                Got::Value(Told::Gone) => return None,
                Got::Value(Told::NoSuchCall) => self.no_licence_info = true,
                Got::Lacking | Got::Unknown => return Some(UNKNOWN),
            }
        }
        let answer = asker.ask("nvmlVgpuInstanceGetLicenseStatus", || {
            told_by_flag(raw::vgpu::is_licensed(device, number))
        });
        match answer {
            Got::Value(Told::State(licence, expires_at_s)) => Some((licence, expires_at_s)),
            Got::Value(Told::Gone) => None,
            Got::Value(Told::NoSuchCall) | Got::Lacking | Got::Unknown => Some(UNKNOWN),
        }
    }
}

/// GPU instance and placement of a vGPU, which it keeps while it runs.
fn places(
    asker: &mut Asker<'_>,
    device: &Device<'_>,
    number: u32,
    instance: &VgpuInstance<'_>,
) -> (Option<u32>, Option<u32>) {
    let gi = asker.ask("nvmlVgpuInstanceGetGpuInstanceId", || {
        or_gone(instance.gpu_instance_id())
    });
    let gi = gi.value().flatten().filter(|gi| *gi != NO_INSTANCE);
    let placement = asker.ask("nvmlVgpuInstanceGetPlacementId", || {
        or_gone(raw::vgpu::placement_id(device, number))
    });
    (gi, placement.value().flatten().flatten())
}

/// The driver that the guest has loaded; what was known stays while that cannot be asked.
fn guest_driver(
    asker: &mut Asker<'_>,
    instance: &VgpuInstance<'_>,
    told: Option<String>,
) -> Option<String> {
    let version = asker.ask("nvmlVgpuInstanceGetVmDriverVersion", || {
        or_gone(instance.driver_version())
    });
    match version {
        Got::Value(version) => version.filter(|version| plain(version)),
        Got::Lacking => None,
        Got::Unknown => told,
    }
}

fn or_refused<T>(answer: Result<T, NvmlError>) -> Result<Instance<T>, NvmlError> {
    match answer {
        Ok(value) => Ok(Instance::There(value)),
        Err(NvmlError::NotFound) => Ok(Instance::Gone),
        Err(NvmlError::NoPermission) => Ok(Instance::Refused),
        Err(error) => Err(error),
    }
}

fn or_gone<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(NvmlError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the server takes as the name of a VM; any other text is none, as "Not Available" is no driver.
fn plain(vm: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._:@-".contains(&b);
    (1..=128).contains(&vm.len()) && vm.bytes().all(plain)
}
