//! Who runs on a device.
#![expect(unsafe_code, reason = "exports C symbols")]

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as sys;

use crate::clock;
use crate::library::{Answer, Code, Device, bytes};
use crate::scenario::{Kind, Process, Virtualization};

use super::boundary::{Out, OutElements};
use super::device_calls;

/// What stands for the ids of an instance where there is none.
const NO_INSTANCE: u32 = u32::MAX;

/// What stands for memory that the driver cannot tell.
const NOT_AVAILABLE: u64 = u64::MAX;

/// The driver takes a sample of each process this often.
const SAMPLE_PERIOD_US: u64 = 166_667;

/// Room for the longest element any driver wrote.
type Element = [u8; 32];

/// The list of one kind in the element size of one version of the call; `None` is what the scenario says.
macro_rules! lists {
    ($(fn $name:ident = $kind:ident, $size:expr;)*) => {
        device_calls! {$(
            fn $name(device, count: Out<c_uint>, infos: OutElements) {
                list(device, Kind::$kind, $size, count, infos)
            }
        )*}
    };
}

lists! {
    fn nvmlDeviceGetComputeRunningProcesses = Compute, Some(16);
    fn nvmlDeviceGetComputeRunningProcesses_v2 = Compute, Some(24);
    fn nvmlDeviceGetComputeRunningProcesses_v3 = Compute, None;
    fn nvmlDeviceGetGraphicsRunningProcesses = Graphics, Some(16);
    fn nvmlDeviceGetGraphicsRunningProcesses_v2 = Graphics, Some(24);
    fn nvmlDeviceGetGraphicsRunningProcesses_v3 = Graphics, None;
    fn nvmlDeviceGetMPSComputeRunningProcesses = Mps, Some(16);
    fn nvmlDeviceGetMPSComputeRunningProcesses_v2 = Mps, Some(24);
    fn nvmlDeviceGetMPSComputeRunningProcesses_v3 = Mps, None;
}

device_calls! {
    fn nvmlDeviceGetAccountingPids(device, count: Out<c_uint>, pids: Out<c_uint>) {
        if !device.whole()?.accounting {
            return Err(Code::NOT_SUPPORTED);
        }
        let found: Vec<_> = device.processes(|_| true).iter().map(|process| process.pid).collect();
        pids.fill(count, &found)
    }

    fn nvmlDeviceGetProcessUtilization(
        device,
        samples: Out<sys::nvmlProcessUtilizationSample_t>,
        count: Out<c_uint>,
        last_seen: c_ulonglong,
    ) {
        count.check()?;
        device.uncut()?;
        let now = clock::wall_micros();
        let time = |process: &Process| {
            let at = now.saturating_sub(process.sample_age_ms.saturating_mul(1000));
            at - at % SAMPLE_PERIOD_US
        };
        let sampled = |process: &Process| process.sm_percent.is_some() || process.memory_percent.is_some();
        let running = device.processes(|process| sampled(process) && time(process) > last_seen);
        if running.is_empty() {
            return Err(Code::NOT_FOUND);
        }
        let sample = |process: &&Process| sys::nvmlProcessUtilizationSample_t {
            pid: process.sample_pid.unwrap_or(process.pid),
            timeStamp: time(process),
            smUtil: process.sm_percent.unwrap_or(0),
            memUtil: process.memory_percent.unwrap_or(0),
            encUtil: 0,
            decUtil: 0,
        };
        let found: Vec<_> = running.iter().map(sample).collect();
        if samples.is_null() {
            // Asking for the size: whatever the count said before.
            count.put(0)?;
        }
        samples.fill(count, &found)
    }
}

fn list(
    device: &Device<'_>,
    kind: Kind,
    size: Option<u32>,
    count: Out<c_uint>,
    infos: OutElements,
) -> Answer {
    if device.mig.is_some() && device.gpu.virtualization == Virtualization::HostVgpu {
        return Err(Code::NOT_SUPPORTED);
    }
    let stride = size.unwrap_or(device.scenario.process_element_bytes);
    let stride = usize::try_from(stride).map_err(|_| Code::INVALID_ARGUMENT)?;
    let elements: Vec<Element> = device
        .processes(|process| process.kind == kind)
        .into_iter()
        .map(element)
        .collect();
    infos.fill(count, stride, &elements)
}

/// pid, memory, GI, CI, protected memory: each version of the struct is a beginning of this.
fn element(process: &Process) -> Element {
    let memory = process.memory_mib.map_or(NOT_AVAILABLE, bytes);
    let gi = process.gi.unwrap_or(NO_INSTANCE);
    let ci = process.ci.or(process.gi.map(|_| 0)).unwrap_or(NO_INSTANCE);
    let mut element = [0; size_of::<Element>()];
    element[0..4].copy_from_slice(&process.pid.to_ne_bytes());
    element[8..16].copy_from_slice(&memory.to_ne_bytes());
    element[16..20].copy_from_slice(&gi.to_ne_bytes());
    element[20..24].copy_from_slice(&ci.to_ne_bytes());
    element
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// The bytes above are written by hand; this ties them to the bindings, and the header test ties those to NVML.
    #[test]
    fn an_element_is_laid_out_as_the_structs_are() {
        assert_eq!(size_of::<sys::nvmlProcessInfo_v1_t>(), 16);
        assert_eq!(size_of::<sys::nvmlProcessInfo_v2_t>(), 24);
        assert_eq!(
            size_of::<sys::nvmlProcessDetail_v1_t>(),
            size_of::<Element>()
        );
        assert_eq!(offset_of!(sys::nvmlProcessDetail_v1_t, usedGpuMemory), 8);
        assert_eq!(offset_of!(sys::nvmlProcessDetail_v1_t, gpuInstanceId), 16);
        assert_eq!(
            offset_of!(sys::nvmlProcessDetail_v1_t, computeInstanceId),
            20
        );
        assert_eq!(
            offset_of!(sys::nvmlProcessDetail_v1_t, usedGpuCcProtectedMemory),
            24
        );
    }
}
