//! Rows about the boards themselves: what they are and how their memory holds up. Pure.

use gpuquota_proto::exposition::{Families, truth};

use crate::gpu::reading::{GpuFacts, Health};
use crate::observation::{DeviceKey, Observation};

pub(super) fn add(families: &mut Families, observation: &Observation) {
    let mut info = families.gauge(
        "gpuquota_gpu_info",
        "1 for each GPU whose facts are known; driver is its version; numa and nvlink are empty where they are not.",
    );
    for (uuid, nvlink, facts) in boards(observation) {
        let numa = facts.numa_node.map(|node| node.to_string());
        let nvlink = nvlink.map(|island| island.to_string());
        let text = |fact: &'_ Option<String>| fact.clone().unwrap_or_default();
        info.row(
            &[
                ("uuid", uuid),
                ("pci_bus_id", &facts.pci_bus_id),
                ("serial", &text(&facts.serial)),
                ("vbios", &text(&facts.vbios_version)),
                ("part_number", &text(&facts.board_part_number)),
                (
                    "driver",
                    observation.driver_version.as_deref().unwrap_or(""),
                ),
                ("numa", numa.as_deref().unwrap_or("")),
                ("nvlink", nvlink.as_deref().unwrap_or("")),
            ],
            1.0,
        );
    }
    let mut doubts = families.gauge(
        "gpuquota_gpu_doubt",
        "1 for each reason why a GPU may hold more, or others, than is shown; no ground for enforcement then.",
    );
    for (key, device) in &observation.devices {
        for doubt in &device.doubts {
            let uuid = key.to_string();
            doubts.row(&[("uuid", &uuid), ("doubt", doubt.as_str())], 1.0);
        }
    }
    let mut gauge = |name, help, of: &dyn Fn(&GpuFacts) -> Option<f64>| {
        let mut rows = families.gauge(name, help);
        for (uuid, _, facts) in boards(observation) {
            if let Some(value) = of(facts) {
                rows.row(&[("uuid", uuid)], value);
            }
        }
    };
    gauge(
        "gpuquota_gpu_persistence",
        "Whether the driver keeps the GPU set up while nobody has it open.",
        &|facts| facts.persistence.map(truth),
    );
    gauge(
        "gpuquota_gpu_ecc",
        "Whether errors in the GPU's memory are corrected.",
        &|facts| facts.ecc.map(truth),
    );
    gauge(
        "gpuquota_gpu_row_remap_pending",
        "Whether the next reset replaces rows of memory.",
        &|facts| facts.remapped_rows.map(|rows| truth(rows.pending)),
    );
    gauge(
        "gpuquota_gpu_row_remap_failed",
        "Whether a row of memory could not be replaced: the board has no spare ones left.",
        &|facts| facts.remapped_rows.map(|rows| truth(rows.failed)),
    );
    let mut rows = families.gauge(
        "gpuquota_gpu_remapped_rows",
        "Rows of memory that were replaced, by the kind of error.",
    );
    for (uuid, _, facts) in boards(observation) {
        let remapped = facts.remapped_rows.iter();
        for (error, count) in remapped.flat_map(|rows| {
            [
                ("correctable", rows.correctable),
                ("uncorrectable", rows.uncorrectable),
            ]
        }) {
            rows.row(&[("uuid", uuid), ("error", error)], f64::from(count));
        }
    }
    let mut errors = families.counter(
        "gpuquota_gpu_ecc_uncorrected_errors_total",
        "Errors in the GPU's memory that could not be corrected, since the driver was loaded.",
    );
    for (uuid, _, facts) in boards(observation) {
        if let Some(count) = facts.ecc_uncorrected_errors {
            errors.row(&[("uuid", uuid)], count as f64);
        }
    }
}

/// UUID, island and facts of the GPUs that answer.
fn boards(observation: &Observation) -> impl Iterator<Item = (&str, Option<u32>, &GpuFacts)> {
    observation.devices.iter().filter_map(|(key, device)| {
        let DeviceKey::Gpu(uuid) = key else {
            return None;
        };
        let facts = device.facts.as_deref()?;
        (device.health == Health::Ok).then_some((uuid.as_str(), device.nvlink_island, facts))
    })
}
