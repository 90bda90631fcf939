//! The table for people.

use std::io::{self, Write};

use super::Look;
use super::document::Row;
use crate::gpu::reading::{Licence, NvmlState};
use crate::observation::{Device, Owner};
use crate::report::wire::health_text;

pub(super) fn print(look: &Look, out: &mut dyn Write) -> io::Result<()> {
    let observation = &look.observation;
    let (what, detail) = describe(&observation.nvml);
    let driver = observation.driver_version.as_deref().unwrap_or("unknown");
    writeln!(out, "NVML {what}, driver {driver}{detail}")?;
    let mut rows = vec![
        [
            "DEVICE",
            "GPU MODEL",
            "PRODUCT",
            "MEMORY",
            "STATE",
            "HOLDERS",
        ]
        .map(str::to_owned),
    ];
    for (key, device) in &observation.devices {
        let memory = memory_text(&Row::new(key, device));
        let state = state(device);
        rows.push([
            key.to_string(),
            device.gpu_model.clone(),
            device.model.clone(),
            memory,
            state,
            holders(device),
        ]);
    }
    let none = String::new;
    for gpu in &look.missing {
        let name = gpu.uuid.as_ref().or(gpu.pci_bus_id.as_ref());
        let name = name.map_or("GPU unknown", String::as_str).to_owned();
        let state = health_text(gpu.health).to_owned();
        let unknown = || "?".to_owned();
        rows.push([name, none(), none(), unknown(), state, unknown()]);
    }
    for gpu in &observation.hidden {
        let name = gpu.uuid.as_ref().unwrap_or(&gpu.pci_bus_id).clone();
        let state = gpu.why.as_str().to_owned();
        rows.push([name, none(), none(), "?".to_owned(), state, none()]);
    }
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in &rows {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn describe(state: &NvmlState) -> (&'static str, String) {
    let (what, detail) = match state {
        NvmlState::Ok => return ("answers", String::new()),
        NvmlState::Absent(detail) => ("is not installed", detail),
        NvmlState::DriverNotLoaded(detail) => ("answers, but the driver is not loaded", detail),
        NvmlState::Mismatch(detail) => ("and the loaded driver differ", detail),
        NvmlState::Unresponsive(detail) => ("does not respond", detail),
        NvmlState::Quiesced(detail) => ("is left alone by `gpuquota-agent quiesce`", detail),
        NvmlState::Broken(detail) => ("does not work", detail),
    };
    (what, format!(": {detail}"))
}

/// MiB used of MiB installed, `?` where unknown.
fn memory_text(row: &Row<'_>) -> String {
    let mib = |bytes: Option<u64>| {
        bytes.map_or_else(|| "?".to_owned(), |bytes| (bytes >> 20).to_string())
    };
    format!(
        "{}/{} MiB",
        mib(row.memory_used_bytes),
        mib(row.memory_total_bytes)
    )
}

pub(super) fn state(device: &Device) -> String {
    let health = health_text(device.health);
    match &device.vgpu {
        Some(vgpu) if vgpu.licence == Licence::Unknown => format!("{health}, licence unknown"),
        Some(vgpu) => format!("{health}, {}", vgpu.licence.as_str()),
        None => {
            let mut text = health.to_owned();
            if device.partitioned {
                text.push_str(", partitioned");
            }
            for doubt in &device.doubts {
                text.push_str(", doubtful ");
                text.push_str(doubt.as_str());
            }
            text
        }
    }
}

/// Tenants and how many processes, or virtual machines, each has, by which evidence or for want of which.
pub(super) fn holders(device: &Device) -> String {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for owner in device.owners() {
        let name = match owner {
            Owner::Tenant { name, source } => format!("{name}({})", source.as_str()),
            Owner::System => "(system)".to_owned(),
            Owner::Unattributed(reason) => format!("(nobody's: {})", reason.as_str()),
            Owner::Unresolved(name) => format!("(nobody's: the id of {name} is not known)"),
        };
        *counts.entry(name).or_default() += 1;
    }
    if counts.is_empty() && device.unlisted && !device.partitioned {
        return "?".to_owned();
    }
    let cells = counts.iter().map(|(name, count)| format!("{name}:{count}"));
    cells.collect::<Vec<_>>().join(" ")
}
