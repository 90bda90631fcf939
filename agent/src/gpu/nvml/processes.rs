//! The process lists of one GPU, made one.

use nvml_wrapper::Device;

use super::ask::{Asker, Got};
use super::figures::{GRAPHICS, MPS};
use super::mig::Instance;
use crate::gpu::raw::ProcessBuffer;
use crate::gpu::reading::{GpuProcess, ProcessKind};

/// Everything on a GPU and its instances, by one call for each list. `lacking`: lists that this GPU does not have.
pub(super) fn on(
    asker: &mut Asker<'_>,
    buffer: &mut ProcessBuffer,
    device: &Device<'_>,
    lacking: &mut u8,
) -> Got<Vec<GpuProcess>> {
    let mut found = Vec::new();
    match list(
        asker,
        buffer,
        device,
        ProcessKind::Compute,
        None,
        &mut found,
    ) {
        Got::Value(()) => {}
        Got::Lacking => return Got::Lacking,
        Got::Unknown => return Got::Unknown,
    }
    for (bit, kind) in [(GRAPHICS, ProcessKind::Graphics), (MPS, ProcessKind::Mps)] {
        if *lacking & bit == 0 {
            match list(asker, buffer, device, kind, None, &mut found) {
                Got::Value(()) => {}
                Got::Lacking => *lacking |= bit,
                Got::Unknown => return Got::Unknown,
            }
        }
    }
    Got::Value(merged(found))
}

/// Without privileges the parent of MIG instances does not tell; each instance may. Graphics do not run on them.
pub(super) fn on_each(
    asker: &mut Asker<'_>,
    buffer: &mut ProcessBuffer,
    instances: &[Instance<'_>],
    lacking: &mut u8,
) -> Option<Vec<GpuProcess>> {
    let mut found = Vec::new();
    for instance in instances {
        let place = Some((instance.gi, instance.ci));
        let mut ask = |kind| list(asker, buffer, &instance.device, kind, place, &mut found);
        ask(ProcessKind::Compute).value()?;
        if *lacking & MPS == 0 {
            match ask(ProcessKind::Mps) {
                Got::Value(()) => {}
                Got::Lacking => *lacking |= MPS,
                Got::Unknown => return None,
            }
        }
    }
    Some(merged(found))
}

fn list(
    asker: &mut Asker<'_>,
    buffer: &mut ProcessBuffer,
    device: &Device<'_>,
    kind: ProcessKind,
    place: Option<(u32, u32)>,
    found: &mut Vec<GpuProcess>,
) -> Got<()> {
    let name = match kind {
        ProcessKind::Compute => "nvmlDeviceGetComputeRunningProcesses_v3",
        ProcessKind::Graphics => "nvmlDeviceGetGraphicsRunningProcesses_v3",
        ProcessKind::Mps => "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    };
    asker.ask(name, || {
        buffer.list(device, kind, |row| {
            found.push(GpuProcess {
                pid: row.pid,
                gi: place.map_or(row.gi, |(gi, _)| Some(gi)),
                ci: place.map_or(row.ci, |(_, ci)| Some(ci)),
                kind,
                used_memory_bytes: row.used_memory_bytes,
                sm_percent: None,
                memory_percent: None,
            });
        })
    })
}

/// One row for a process and instance, whichever lists it stood in.
fn merged(mut processes: Vec<GpuProcess>) -> Vec<GpuProcess> {
    processes.sort_unstable_by_key(|process| (process.pid, process.gi, process.ci, process.kind));
    processes.dedup_by(|later, kept| {
        let same = (later.pid, later.gi, later.ci) == (kept.pid, kept.gi, kept.ci);
        if same {
            kept.used_memory_bytes = kept.used_memory_bytes.max(later.used_memory_bytes);
        }
        same
    });
    processes
}
