//! Driver events: sets, registration, waiting.
#![expect(unsafe_code, reason = "exports C symbols")]

use std::ffi::{c_uint, c_ulonglong};
use std::time::Duration;

use nvml_wrapper_sys::bindings as sys;

use crate::clock;
use crate::library::{Answer, Arrived, Code, Device, library};
use crate::scenario::{Gpu, Scenario};

use super::boundary::{Handle, Out};
use super::{calls, device_calls};

/// The event as it was before instances had ids: the first fields of the struct.
#[repr(C)]
#[derive(Clone, Copy)]
struct FirstEventData {
    device: Handle,
    kind: c_ulonglong,
    data: c_ulonglong,
}

calls! {
    fn nvmlEventSetCreate(_scenario, set: Out<Handle>) {
        set.check()?;
        set.put(Handle::from_number(library().events.create()))
    }

    fn nvmlEventSetFree(_scenario, set: Handle) {
        library().events.free(set.number())
    }

    fn nvmlEventSetWait(_scenario, set: Handle, data: Out<sys::nvmlEventData_t>, timeout_ms: c_uint) {
        data.check()?;
        let (device, arrived) = wait(set, timeout_ms)?;
        let xid = arrived.event.xid.unwrap_or(0);
        data.narrowed().put(FirstEventData { device, kind: arrived.kind, data: xid })
    }

    fn nvmlEventSetWait_v2(_scenario, set: Handle, data: Out<sys::nvmlEventData_t>, timeout_ms: c_uint) {
        data.check()?;
        let (device, arrived) = wait(set, timeout_ms)?;
        data.put(sys::nvmlEventData_t {
            device: std::ptr::without_provenance_mut(device.number()),
            eventType: arrived.kind,
            eventData: arrived.event.xid.unwrap_or(0),
            gpuInstanceId: arrived.event.gi.unwrap_or(u32::MAX),
            computeInstanceId: arrived.event.ci.unwrap_or(u32::MAX),
        })
    }
}

device_calls! {
    fn nvmlDeviceGetSupportedEventTypes(device, kinds: Out<c_ulonglong>) {
        kinds.put(supported(device.whole()?))
    }

    fn nvmlDeviceRegisterEvents(device, kinds: c_ulonglong, set: Handle) {
        if kinds & !supported(device.whole()?) != 0 {
            return Err(Code::NOT_SUPPORTED);
        }
        library().events.register(set.number(), &device.gpu.uuid, kinds, device.scenario)
    }
}

fn supported(gpu: &Gpu) -> u64 {
    let always =
        sys::nvmlEventTypeXidCriticalError | sys::nvmlEventTypePState | sys::nvmlEventTypeClock;
    let ecc = sys::nvmlEventTypeSingleBitEccError | sys::nvmlEventTypeDoubleBitEccError;
    let mig = sys::nvmlEventMigConfigChange;
    let known = |kinds: u32, yes: bool| if yes { u64::from(kinds) } else { 0 };
    u64::from(always) | known(ecc, gpu.ecc == Some(true)) | known(mig, gpu.mig_mode.is_some())
}

/// Sleeps without holding anything, so that other calls go on.
fn wait(set: Handle, timeout_ms: c_uint) -> Answer<(Handle, Arrived)> {
    let end = clock::monotonic() + Duration::from_millis(u64::from(timeout_ms));
    library().watch();
    loop {
        let scenario = library().current()?;
        if let Some(arrived) = library().events.next(set.number(), &scenario)? {
            return Ok((handle(&scenario, &arrived)?, arrived));
        }
        let left = end.saturating_duration_since(clock::monotonic());
        if left.is_zero() {
            return Err(Code::TIMEOUT);
        }
        library().sleep(left);
    }
}

fn handle(scenario: &Scenario, arrived: &Arrived) -> Answer<Handle> {
    let device = Device::all(scenario)
        .find(|device| device.has_uuid(&arrived.event.gpu))
        .ok_or(Code::GPU_IS_LOST)?;
    Ok(Handle::from_number(library().handle_of(&device)))
}
