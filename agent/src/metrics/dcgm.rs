//! `/metrics?compat=dcgm`: rows with the names, labels and units of NVIDIA's dcgm-exporter, for dashboards made for it. Pure.
//!
//! Figures that readings carry and no others; a GPU that does not answer has no rows, and nothing has when the newest good
//! reading is too old. On a GPU cut into instances its temperature is repeated on each GPU instance, memory stands there
//! only and once (compute instances share it), and all else stands on the GPU only, because nobody can split it. Where a
//! kubelet is configured, a device that one container was given has its name, its pod's and its namespace as labels.

use std::collections::BTreeMap;

use gpuquota_proto::exposition::{Families, Format, Labels, Misnamed};
use serde::Deserialize;

use crate::attribute::Granted;
use crate::events::sentinel::Shown;
use crate::gpu::gauges::Activity;
use crate::gpu::reading::{Health, Memory, RemappedRows};
use crate::observation::{Device, DeviceKey, Observation, Readout};

use self::families::{COUNTER, FAMILIES, Where};
use self::last_xid::XidRow;
use super::snapshot::View;

mod families;
mod last_xid;

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
    xid: Option<XidRow>,
    /// It is an instance.
    instance: bool,
    /// It is cut, and its instances have its memory.
    cut: bool,
}

/// The answer to a scrape.
pub(super) fn render(view: &View, dcgm: &Dcgm) -> Result<Vec<u8>, Misnamed> {
    let mut families = Families::new(Format::Text);
    let observation = view.pass.observation.as_deref().filter(|_| view.fresh);
    let nothing = Granted::new();
    let granted = view.granted.as_deref().unwrap_or(&nothing);
    let rows = observation.map(|observation| rows(observation, &view.pass.trouble, dcgm, granted));
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
    let mut xids = families.gauge("DCGM_FI_DEV_XID_ERRORS", "Number of the last XID.");
    for row in rows.iter().filter_map(|row| row.xid.as_ref()) {
        xids.labelled(&row.labels, row.xid as f64);
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

fn rows<'o>(
    observation: &'o Observation,
    trouble: &Shown,
    dcgm: &Dcgm,
    granted: &Granted,
) -> Vec<Row<'o>> {
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
        let labels = |instance: &[(&str, &str)], device: Option<&str>, more: &[(&str, &str)]| {
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
            all.extend_from_slice(more);
            Labels::new(&all)
        };
        let own = instances.range((uuid, 0)..=(uuid, u32::MAX));
        let answers = |parts: &[&Device]| parts.iter().all(|part| part.health == Health::Ok);
        let own: Vec<_> = own.filter(|(_, parts)| answers(parts)).collect();
        rows.push(Row {
            labels: labels(&[], Some(uuid), &[]),
            gpu: readout,
            remapped: device.facts.as_ref().and_then(|facts| facts.remapped_rows),
            activity: readout.activities.iter().find(|did| did.gi.is_none()),
            memory: device.memory.as_ref(),
            xid: last_xid::of(trouble, uuid, device, None, |more| {
                labels(&[], Some(uuid), more)
            }),
            instance: false,
            cut: !own.is_empty(),
        });
        for ((_, number), parts) in own {
            let Some(part) = parts.first() else { continue };
            let profile = gpu_instance(part.profile.as_deref().unwrap_or_default());
            // Of one that is cut into several, none was given all.
            let whole = Some(part).filter(|_| parts.len() == 1);
            let held = whole.and_then(|part| part.mig_uuid.as_deref());
            let gi = number.to_string();
            let instance = [("GPU_I_PROFILE", profile), ("GPU_I_ID", gi.as_str())];
            rows.push(Row {
                labels: labels(&instance, held, &[]),
                gpu: readout,
                remapped: None,
                activity: readout
                    .activities
                    .iter()
                    .find(|did| did.gi == Some(*number)),
                memory: part.memory.as_ref(),
                xid: last_xid::of(trouble, uuid, device, Some(*number), |more| {
                    labels(&instance, held, more)
                }),
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

#[cfg(test)]
mod tests;
