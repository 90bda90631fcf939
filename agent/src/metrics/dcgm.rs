//! `/metrics?compat=dcgm`: rows with the names, labels and units of NVIDIA's dcgm-exporter, for dashboards made for it. Pure.
//!
//! Figures that readings carry and no others; a GPU that does not answer has no rows, and nothing has when the newest good
//! reading is too old. On a GPU cut into instances its temperature is repeated on each GPU instance, memory stands there
//! only and once (compute instances share it), and all else stands on the GPU only, because nobody can split it. Where a
//! kubelet is configured, a device that one container was given has its name, its pod's and its namespace as labels.

use std::collections::BTreeMap;

use gpuquota_proto::exposition::{Families, Format, Labels, Misnamed, truth};
use serde::Deserialize;

use crate::attribute::Granted;
use crate::gpu::gauges::{Activity, Gauges};
use crate::gpu::reading::{Health, Memory, RemappedRows};
use crate::observation::{Device, DeviceKey, Observation, Readout};

use super::snapshot::View;

/// How rows are labelled beyond what the GPUs say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dcgm {
    /// This host's name.
    pub host: String,
    /// What the label with it is called.
    pub host_label: HostLabel,
}

/// dcgm-exporter renamed the label; dashboards follow slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum HostLabel {
    /// `Hostname`, as releases have it.
    #[default]
    Hostname,
    /// `hostname`, as newer ones have it.
    #[serde(rename = "hostname")]
    Lower,
    /// Both.
    #[serde(rename = "both")]
    Both,
}

/// A GPU that answers, or one of its GPU instances.
struct Row<'o> {
    labels: Labels,
    gpu: &'o Readout,
    remapped: Option<RemappedRows>,
    activity: Option<&'o Activity>,
    memory: Option<&'o Memory>,
    /// It is an instance.
    instance: bool,
    /// It is cut, and its instances have its memory.
    cut: bool,
}

/// Where a family has rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    /// On GPUs and again on their instances.
    Everywhere,
    /// On GPUs.
    Gpus,
    /// Where the memory is counted.
    Memory,
}

type Value = fn(&Row<'_>) -> Option<f64>;

const GAUGE: bool = false;
const COUNTER: bool = true;

const FAMILIES: [(&str, bool, Where, Value, &str); 22] = [
    (
        "DCGM_FI_DEV_GPU_TEMP",
        GAUGE,
        Where::Everywhere,
        |row| row.gpu.glow.temperature_celsius.map(f64::from),
        "GPU temperature (in C).",
    ),
    (
        "DCGM_FI_DEV_MEMORY_TEMP",
        GAUGE,
        Where::Gpus,
        |row| count(row, |more| more.memory_celsius),
        "Memory temperature (in C).",
    ),
    (
        "DCGM_FI_DEV_POWER_USAGE",
        GAUGE,
        Where::Gpus,
        |row| {
            row.gpu
                .glow
                .power_milliwatts
                .map(|mw| f64::from(mw) / 1000.0)
        },
        "Power draw (in W).",
    ),
    (
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        COUNTER,
        Where::Gpus,
        |row| count(row, |more| more.energy_millijoules),
        "Total energy consumption since the driver was loaded (in mJ).",
    ),
    (
        "DCGM_FI_DEV_SM_CLOCK",
        GAUGE,
        Where::Gpus,
        |row| figure(row, |more| more.sm_clock_mhz),
        "SM clock frequency (in MHz).",
    ),
    (
        "DCGM_FI_DEV_MEM_CLOCK",
        GAUGE,
        Where::Gpus,
        |row| figure(row, |more| more.memory_clock_mhz),
        "Memory clock frequency (in MHz).",
    ),
    (
        "DCGM_FI_DEV_GPU_UTIL",
        GAUGE,
        Where::Gpus,
        |row| row.gpu.glow.utilization_gpu_percent.map(f64::from),
        "GPU utilization (in %).",
    ),
    (
        "DCGM_FI_DEV_MEM_COPY_UTIL",
        GAUGE,
        Where::Gpus,
        |row| row.gpu.glow.utilization_memory_percent.map(f64::from),
        "Memory utilization (in %).",
    ),
    (
        "DCGM_FI_DEV_ENC_UTIL",
        GAUGE,
        Where::Gpus,
        |row| figure(row, |more| more.encoder_percent),
        "Encoder utilization (in %).",
    ),
    (
        "DCGM_FI_DEV_DEC_UTIL",
        GAUGE,
        Where::Gpus,
        |row| figure(row, |more| more.decoder_percent),
        "Decoder utilization (in %).",
    ),
    (
        "DCGM_FI_DEV_FB_USED",
        GAUGE,
        Where::Memory,
        |row| row.memory.map(|memory| mib(memory.used)),
        "Framebuffer memory used (in MiB).",
    ),
    (
        "DCGM_FI_DEV_FB_FREE",
        GAUGE,
        Where::Memory,
        |row| row.memory.map(|memory| mib(memory.free)),
        "Framebuffer memory free (in MiB).",
    ),
    (
        "DCGM_FI_DEV_FB_RESERVED",
        GAUGE,
        Where::Memory,
        |row| row.memory?.reserved.map(mib),
        "Framebuffer memory reserved by the driver (in MiB).",
    ),
    (
        "DCGM_FI_DEV_PCIE_REPLAY_COUNTER",
        COUNTER,
        Where::Gpus,
        |row| count(row, |more| more.pcie_replays),
        "Total number of PCIe retries.",
    ),
    (
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        COUNTER,
        Where::Gpus,
        |row| row.remapped.map(|rows| f64::from(rows.uncorrectable)),
        "Number of remapped rows for uncorrectable errors.",
    ),
    (
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
        COUNTER,
        Where::Gpus,
        |row| row.remapped.map(|rows| f64::from(rows.correctable)),
        "Number of remapped rows for correctable errors.",
    ),
    (
        "DCGM_FI_DEV_ROW_REMAP_FAILURE",
        GAUGE,
        Where::Gpus,
        |row| row.remapped.map(|rows| truth(rows.failed)),
        "Whether remapping of rows has failed.",
    ),
    (
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
        GAUGE,
        Where::Everywhere,
        |row| row.activity?.engine,
        "Ratio of time the graphics engine is active.",
    ),
    (
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
        GAUGE,
        Where::Everywhere,
        |row| row.activity?.tensor,
        "Ratio of cycles the tensor pipe is active.",
    ),
    (
        "DCGM_FI_PROF_DRAM_ACTIVE",
        GAUGE,
        Where::Everywhere,
        |row| row.activity?.dram,
        "Ratio of cycles the memory interface is active.",
    ),
    (
        "DCGM_FI_PROF_PCIE_TX_BYTES",
        GAUGE,
        Where::Everywhere,
        |row| row.activity?.pcie_tx,
        "Bytes sent to the host over PCIe, a second.",
    ),
    (
        "DCGM_FI_PROF_PCIE_RX_BYTES",
        GAUGE,
        Where::Everywhere,
        |row| row.activity?.pcie_rx,
        "Bytes received from the host over PCIe, a second.",
    ),
];

/// The answer to a scrape.
pub(super) fn render(view: &View, dcgm: &Dcgm) -> Result<Vec<u8>, Misnamed> {
    let mut families = Families::new(Format::Text);
    let observation = view.pass.observation.as_deref().filter(|_| view.fresh);
    let nothing = Granted::new();
    let granted = view.granted.as_deref().unwrap_or(&nothing);
    let rows = observation.map(|observation| rows(observation, dcgm, granted));
    let rows = rows.unwrap_or_default();
    for (name, counts, place, value, help) in FAMILIES {
        let mut family = if counts == COUNTER {
            families.counter(name, help)
        } else {
            families.gauge(name, help)
        };
        for row in rows.iter().filter(|row| row.is_at(place)) {
            if let Some(value) = value(row) {
                family.labelled(&row.labels, value);
            }
        }
    }
    families.text()
}

impl Row<'_> {
    fn is_at(&self, place: Where) -> bool {
        match place {
            Where::Everywhere => true,
            Where::Gpus => !self.instance,
            Where::Memory => !self.cut,
        }
    }
}

fn rows<'o>(observation: &'o Observation, dcgm: &Dcgm, granted: &Granted) -> Vec<Row<'o>> {
    let mut instances: BTreeMap<(&str, u32), Vec<&Device>> = BTreeMap::new();
    let mut gpus: Vec<(&str, &Device, &Readout)> = Vec::new();
    for (key, device) in &observation.devices {
        match (key, &device.readout) {
            (DeviceKey::Mig(uuid, gi, _), _) => {
                instances.entry((uuid, *gi)).or_default().push(device);
            }
            (DeviceKey::Gpu(uuid), Some(readout)) if device.health == Health::Ok => {
                gpus.push((uuid, device, readout));
            }
            (DeviceKey::Gpu(_) | DeviceKey::Vgpu(_), _) => {}
        }
    }
    gpus.sort_by_key(|(_, _, readout)| readout.index);
    let driver = observation.driver_version.as_deref().unwrap_or_default();
    let mut rows = Vec::new();
    for (uuid, device, readout) in gpus {
        let index = readout.index.to_string();
        let node = device.minor.map(|minor| format!("nvidia{minor}"));
        let gpu = [
            ("gpu", index.as_str()),
            ("UUID", uuid),
            ("pci_bus_id", readout.pci_bus_id.as_str()),
            ("device", node.as_deref().unwrap_or_default()),
            ("modelName", device.model.as_str()),
        ];
        let labels = |instance: &[(&str, &str)], device: Option<&str>| {
            let mut all = gpu.to_vec();
            all.extend_from_slice(instance);
            match dcgm.host_label {
                HostLabel::Hostname => all.push(("Hostname", &dcgm.host)),
                HostLabel::Lower => all.push(("hostname", &dcgm.host)),
                HostLabel::Both => {
                    all.extend([("Hostname", dcgm.host.as_str()), ("hostname", &dcgm.host)]);
                }
            }
            all.push(("DCGM_FI_DRIVER_VERSION", driver));
            if let Some(place) = device.and_then(|device| granted.get(device)) {
                all.push(("container", &place.container));
                all.push(("namespace", &place.namespace));
                all.push(("pod", &place.pod));
            }
            Labels::new(&all)
        };
        let own = instances.range((uuid, 0)..=(uuid, u32::MAX));
        let answers = |parts: &[&Device]| parts.iter().all(|part| part.health == Health::Ok);
        let own: Vec<_> = own.filter(|(_, parts)| answers(parts)).collect();
        rows.push(Row {
            labels: labels(&[], Some(uuid)),
            gpu: readout,
            remapped: device.facts.as_ref().and_then(|facts| facts.remapped_rows),
            activity: readout.activities.iter().find(|did| did.gi.is_none()),
            memory: device.memory.as_ref(),
            instance: false,
            cut: !own.is_empty(),
        });
        for ((_, number), parts) in own {
            let Some(part) = parts.first() else { continue };
            let profile = gpu_instance(part.profile.as_deref().unwrap_or_default());
            // Of one that is cut into several, none was given all.
            let whole = Some(part).filter(|_| parts.len() == 1);
            let device = whole.and_then(|part| part.mig_uuid.as_deref());
            let gi = number.to_string();
            rows.push(Row {
                labels: labels(&[("GPU_I_PROFILE", profile), ("GPU_I_ID", &gi)], device),
                gpu: readout,
                remapped: None,
                activity: readout
                    .activities
                    .iter()
                    .find(|did| did.gi == Some(*number)),
                memory: part.memory.as_ref(),
                instance: true,
                cut: false,
            });
        }
    }
    rows
}

/// `3g.40gb` of `1c.3g.40gb`: the profile of the GPU instance around a compute instance.
fn gpu_instance(profile: &str) -> &str {
    match profile.split_once('.') {
        Some((first, rest)) if first.ends_with('c') => rest,
        _ => profile,
    }
}

fn more(row: &Row<'_>) -> Option<Gauges> {
    row.gpu.gauges
}

fn figure(row: &Row<'_>, of: fn(Gauges) -> Option<u32>) -> Option<f64> {
    more(row).and_then(of).map(f64::from)
}

fn count(row: &Row<'_>, of: fn(Gauges) -> Option<u64>) -> Option<f64> {
    more(row).and_then(of).map(|count| count as f64)
}

fn mib(bytes: u64) -> f64 {
    (bytes >> 20) as f64
}

#[cfg(test)]
mod tests;
