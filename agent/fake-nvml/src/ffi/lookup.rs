//! Counting devices and finding their handles.
#![expect(unsafe_code, reason = "exports C symbols")]

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as sys;

use crate::library::{Answer, Code, Device, library};
use crate::scenario::{Scenario, pci_numbers};

use super::boundary::{Handle, InText, Out, array};
use super::calls;
use super::identity::place_on_the_bus;

/// Exports functions that find a device by one key.
macro_rules! lookups {
    ($(fn $name:ident($key:ident: $kind:ty) = $find:path;)*) => {$(
        // SAFETY: the name is NVML's, and this library exists to stand in for NVML.
        #[unsafe(no_mangle)]
        extern "C" fn $name($key: $kind, device: Out<Handle>) -> u32 {
            library().lookup(
                stringify!($name),
                |scenario| {
                    device.check()?;
                    $find(scenario, $key)
                },
                |handle| device.put(Handle::from_number(handle)),
            )
        }
    )*};
}

lookups! {
    fn nvmlDeviceGetHandleByIndex(index: c_uint) = by_index;
    fn nvmlDeviceGetHandleByIndex_v2(index: c_uint) = by_index;
    fn nvmlDeviceGetHandleByUUID(uuid: InText) = by_uuid;
    fn nvmlDeviceGetHandleByPciBusId(bus_id: InText) = by_pci_bus_id;
    fn nvmlDeviceGetHandleByPciBusId_v2(bus_id: InText) = by_pci_bus_id;
    fn nvmlDeviceGetHandleBySerial(serial: InText) = by_serial;
}

calls! {
    fn nvmlDeviceGetCount(scenario, count: Out<c_uint>) {
        count.put(number_of_gpus(scenario))
    }

    fn nvmlDeviceGetCount_v2(scenario, count: Out<c_uint>) {
        count.put(number_of_gpus(scenario))
    }

    fn nvmlGetExcludedDeviceCount(scenario, count: Out<c_uint>) {
        count.put(c_uint::try_from(scenario.excluded.len()).unwrap_or(c_uint::MAX))
    }

    fn nvmlGetExcludedDeviceInfoByIndex(scenario, index: c_uint, info: Out<sys::nvmlExcludedDeviceInfo_t>) {
        let gpu = usize::try_from(index).ok().and_then(|index| scenario.excluded.get(index));
        let gpu = gpu.ok_or(Code::INVALID_ARGUMENT)?;
        let place = pci_numbers(&gpu.pci_bus_id).ok_or(Code::NOT_SUPPORTED)?;
        info.put(sys::nvmlExcludedDeviceInfo_t { pciInfo: place_on_the_bus(place), uuid: array(&gpu.uuid) })
    }
}

fn number_of_gpus(scenario: &Scenario) -> c_uint {
    c_uint::try_from(scenario.gpus.len()).unwrap_or(c_uint::MAX)
}

fn by_index(scenario: &Scenario, index: c_uint) -> Answer<Device<'_>> {
    Device::all(scenario)
        .find(|device| device.index == index)
        .ok_or(Code::INVALID_ARGUMENT)
}

/// Also finds MIG devices.
fn by_uuid(scenario: &Scenario, uuid: InText) -> Answer<Device<'_>> {
    let uuid = uuid.get()?;
    Device::all(scenario)
        .flat_map(|device| device.instances().chain([device]))
        .find(|device| device.has_uuid(&uuid))
        .ok_or(Code::NOT_FOUND)
}

/// People and tools write the domain with four digits, with eight, or not at all.
fn by_pci_bus_id(scenario: &Scenario, bus_id: InText) -> Answer<Device<'_>> {
    let bus_id = bus_id.get()?;
    let mut numbers = bus_id
        .split([':', '.'])
        .map(|part| u32::from_str_radix(part, 16));
    let mut next = || {
        numbers
            .next()
            .and_then(Result::ok)
            .ok_or(Code::INVALID_ARGUMENT)
    };
    let wanted = match bus_id.matches(':').count() {
        2 => [next()?, next()?, next()?],
        1 => [0, next()?, next()?],
        _ => return Err(Code::INVALID_ARGUMENT),
    };
    Device::all(scenario)
        .find(|device| device.gpu.pci_numbers() == Some(wanted))
        .ok_or(Code::NOT_FOUND)
}

/// A board with two GPUs cannot be found this way.
fn by_serial(scenario: &Scenario, serial: InText) -> Answer<Device<'_>> {
    let serial = serial.get()?;
    let mut found =
        Device::all(scenario).filter(|device| device.gpu.serial.as_ref() == Some(&serial));
    let device = found.next().ok_or(Code::NOT_FOUND)?;
    if found.next().is_some() {
        Err(Code::INVALID_ARGUMENT)
    } else {
        Ok(device)
    }
}
