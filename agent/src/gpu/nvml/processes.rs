//! The process lists of one GPU, made one.

use nvml_wrapper::Device;

use super::ask::{Asker, Got};
use super::figures::{GRAPHICS, MPS};
use super::mig::Instance;
use crate::gpu::raw::{Layout, ProcessBuffer};
use crate::gpu::reading::{GpuProcess, ProcessKind};

/// All processes of a GPU.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) processes: Vec<GpuProcess>,
    /// The size of some list's rows is not proven.
    pub(super) guessed: bool,
}

/// Everything on a GPU and its instances, by one call for each list. `lacking`: lists that this GPU does not have.
pub(super) fn on(
    asker: &mut Asker<'_>,
    buffer: &mut ProcessBuffer,
    device: &Device<'_>,
    lacking: &mut u8,
) -> Got<Listed> {
    let mut found = Listed::default();
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
    Got::Value(found.merged())
}

/// Without privileges the parent of MIG instances does not tell; each instance may. Graphics do not run on them.
pub(super) fn on_each(
    asker: &mut Asker<'_>,
    buffer: &mut ProcessBuffer,
    instances: &[Instance<'_>],
    lacking: &mut u8,
) -> Option<Listed> {
    let mut found = Listed::default();
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
    Some(found.merged())
}

fn list(
    asker: &mut Asker<'_>,
    buffer: &mut ProcessBuffer,
    device: &Device<'_>,
    kind: ProcessKind,
    place: Option<(u32, u32)>,
    found: &mut Listed,
) -> Got<()> {
    let name = match kind {
        ProcessKind::Compute => "nvmlDeviceGetComputeRunningProcesses_v3",
        ProcessKind::Graphics => "nvmlDeviceGetGraphicsRunningProcesses_v3",
        ProcessKind::Mps => "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    };
    let layout = asker.ask(name, || {
        buffer.list(device, kind, |row| {
            found.processes.push(GpuProcess {
                pid: row.pid,
                gi: place.map_or(row.gi, |(gi, _)| Some(gi)),
                ci: place.map_or(row.ci, |(_, ci)| Some(ci)),
                kind,
                used_memory_bytes: row.used_memory_bytes,
                sm_percent: None,
                memory_percent: None,
            });
        })
    });
    match layout {
        Got::Value(layout) => {
            found.guessed |= layout == Layout::Guessed;
            Got::Value(())
        }
        Got::Lacking => Got::Lacking,
        Got::Unknown => Got::Unknown,
    }
}

impl Listed {
    /// One row for a process and instance, whichever lists it stood in. Those without a pid are one row for an instance and list:
    /// how many they are says nothing, what they hold together does.
    fn merged(mut self) -> Self {
        self.processes
            .sort_unstable_by_key(|process| (process.pid, process.gi, process.ci, process.kind));
        self.processes.dedup_by(|later, kept| {
            let same = (later.pid, later.gi, later.ci) == (kept.pid, kept.gi, kept.ci);
            if same && kept.pid.is_some() {
                kept.used_memory_bytes = kept.used_memory_bytes.max(later.used_memory_bytes);
                return true;
            }
            let nameless = same && later.kind == kept.kind;
            if nameless {
                let both = kept.used_memory_bytes.zip(later.used_memory_bytes);
                kept.used_memory_bytes = both.map(|(a, b)| a.saturating_add(b));
            }
            nameless
        });
        self
    }
}
