//! What a GPU is: asked when it is first seen and rarely again.

use std::sync::Arc;

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{EccCounter, HostVgpuMode, MemoryError};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::NVML_FI_DEV_NVLINK_LINK_COUNT;

use super::ask::{Asker, Got};
use crate::gpu::raw;
use crate::gpu::reading::{GpuFacts, HostMode, NvLink};

/// `NVML_NVLINK_MAX_LINKS`: more links than this no GPU has.
const MOST_LINKS: u32 = 18;

/// The facts of one GPU as they were asked last.
#[derive(Debug)]
pub(super) struct Facts {
    now: Arc<GpuFacts>,
    /// A bit for each NVLink that is up. What it leads to is asked when that changes.
    links_up: Option<u32>,
    /// They went out in a reading.
    told: bool,
}

impl Facts {
    pub(super) fn new(asker: &mut Asker<'_>, device: &Device<'_>, pci_bus_id: &str) -> Self {
        let mut facts = GpuFacts {
            pci_bus_id: pci_bus_id.to_owned(),
            ..GpuFacts::default()
        };
        let mut links_up = None;
        ask(asker, device, &mut facts, &mut links_up);
        Self {
            now: Arc::new(facts),
            links_up,
            told: false,
        }
    }

    /// Asks once more, unless nobody has heard the first answers yet.
    pub(super) fn refresh(&mut self, asker: &mut Asker<'_>, device: &Device<'_>) {
        if !self.told {
            return;
        }
        let mut facts = GpuFacts::clone(&self.now);
        ask(asker, device, &mut facts, &mut self.links_up);
        if facts != *self.now {
            self.now = Arc::new(facts);
            self.told = false;
        }
    }

    /// What a reading must carry: everything, if anything is new.
    pub(super) fn news(&mut self) -> Option<Arc<GpuFacts>> {
        let told = std::mem::replace(&mut self.told, true);
        (!told).then(|| Arc::clone(&self.now))
    }
}

/// All facts. What cannot be had right now stays as it was.
fn ask(
    asker: &mut Asker<'_>,
    device: &Device<'_>,
    facts: &mut GpuFacts,
    links_up: &mut Option<u32>,
) {
    keep(
        &mut facts.serial,
        asker.ask("nvmlDeviceGetSerial", || device.serial()),
    );
    keep(
        &mut facts.board_part_number,
        asker.ask("nvmlDeviceGetBoardPartNumber", || {
            device.board_part_number()
        }),
    );
    keep(
        &mut facts.vbios_version,
        asker.ask("nvmlDeviceGetVbiosVersion", || device.vbios_version()),
    );
    keep(
        &mut facts.persistence,
        asker.ask("nvmlDeviceGetPersistenceMode", || {
            device.is_in_persistent_mode()
        }),
    );
    let ecc = asker.ask("nvmlDeviceGetEccMode", || {
        device.is_ecc_enabled().map(|mode| mode.currently_enabled)
    });
    keep(&mut facts.ecc, ecc);
    let errors = match ecc {
        Got::Value(false) | Got::Lacking => Got::Lacking,
        Got::Value(true) | Got::Unknown => asker.ask("nvmlDeviceGetTotalEccErrors", || {
            device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile)
        }),
    };
    keep(&mut facts.ecc_uncorrected_errors, errors);
    let rows = asker.ask("nvmlDeviceGetRemappedRows", || {
        raw::device::remapped_rows(device)
    });
    keep(&mut facts.remapped_rows, rows);
    let mode = asker.ask("nvmlDeviceGetHostVgpuMode", || {
        device.vgpu_host_mode().map(|mode| match mode {
            HostVgpuMode::Sriov => HostMode::Sriov,
            HostVgpuMode::NonSriov => HostMode::NonSriov,
        })
    });
    keep(&mut facts.host_vgpu_mode, mode);
    let numa_node = asker.ask("nvmlDeviceGetNumaNodeId", || device.numa_node_id());
    keep(&mut facts.numa_node, numa_node);
    match active_links(asker, device) {
        Got::Value(up) if *links_up == Some(up) => {}
        Got::Value(up) => {
            let ends = ends(asker, device, up);
            *links_up = Some(up).filter(|_| !matches!(ends, Got::Unknown));
            keep(&mut facts.nvlinks, ends);
        }
        Got::Lacking => (facts.nvlinks, *links_up) = (None, None),
        Got::Unknown => {}
    }
}

fn keep<T>(fact: &mut Option<T>, got: Got<T>) {
    match got {
        Got::Value(value) => *fact = Some(value),
        Got::Lacking => *fact = None,
        Got::Unknown => {}
    }
}

/// A bit for each link that is up.
fn active_links(asker: &mut Asker<'_>, device: &Device<'_>) -> Got<u32> {
    let count = match asker.ask("nvmlDeviceGetFieldValues", || link_count(device)) {
        Got::Value(count) => count.min(MOST_LINKS),
        other => return other,
    };
    let mut up = 0;
    for number in 0..count {
        let link = device.link_wrapper_for(number);
        // A number that the GPU does not have is an invalid argument; the handle is good all the same.
        let active = asker.ask("nvmlDeviceGetNvLinkState", || or_lacking(link.is_active()));
        match active {
            Got::Value(true) => up |= 1 << number,
            Got::Value(false) | Got::Lacking => {}
            Got::Unknown => return Got::Unknown,
        }
    }
    Got::Value(up)
}

/// What these links lead to, each end once.
fn ends(asker: &mut Asker<'_>, device: &Device<'_>, up: u32) -> Got<Vec<NvLink>> {
    let mut found = Vec::new();
    for number in (0..MOST_LINKS).filter(|number| up & (1 << number) != 0) {
        let kind = asker.ask("nvmlDeviceGetNvLinkRemoteDeviceType", || {
            or_lacking(raw::nvlink::remote_kind(device, number))
        });
        let kind = match kind {
            Got::Value(Some(kind)) => kind,
            Got::Value(None) => continue,
            Got::Lacking => return Got::Lacking,
            Got::Unknown => return Got::Unknown,
        };
        let remote = asker.ask("nvmlDeviceGetNvLinkRemotePciInfo_v2", || {
            or_lacking(device.link_wrapper_for(number).remote_pci_info())
        });
        match remote {
            Got::Value(remote) => found.push(NvLink {
                remote: remote.bus_id,
                kind,
            }),
            Got::Lacking => return Got::Lacking,
            Got::Unknown => return Got::Unknown,
        }
    }
    found.sort_unstable();
    found.dedup();
    Got::Value(found)
}

/// A GPU that says it knows no such count has no NVLinks.
fn link_count(device: &Device<'_>) -> Result<u32, NvmlError> {
    let mut values = device.field_values_for(&[FieldId(NVML_FI_DEV_NVLINK_LINK_COUNT)])?;
    let value = values.pop().ok_or(NvmlError::NotSupported)??.value;
    match value {
        Ok(SampleValue::U32(count)) => Ok(count),
        Ok(SampleValue::U64(count)) => u32::try_from(count).map_err(|_| NvmlError::NotSupported),
        Ok(SampleValue::F64(_) | SampleValue::I64(_)) => Err(NvmlError::NotSupported),
        Err(NvmlError::NotSupported | NvmlError::InvalidArg) => Ok(0),
        Err(error) => Err(error),
    }
}

fn or_lacking<T>(answer: Result<T, NvmlError>) -> Result<T, NvmlError> {
    answer.map_err(|error| match error {
        NvmlError::InvalidArg => NvmlError::NotSupported,
        error => error,
    })
}
