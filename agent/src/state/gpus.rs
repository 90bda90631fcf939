//! Which GPUs were read on this node, kept on disk: whoever looks only once, or starts later, cannot ask a GPU that is lost or hangs
//! for its name. It is lost with the boot, as indices and places may be.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{read_own, write_for_this_boot};
use crate::gpu::reading::{Health, NvmlState};
use crate::observation::{DeviceKey, Observation};

const FILE: &str = "gpus";
/// More than the GPUs of a node can be.
const MOST_BYTES: u64 = 1 << 20;

/// One GPU as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptGpu {
    /// NVML's name.
    pub uuid: String,
    /// Where it is, as NVML writes it.
    pub pci_bus_id: Option<String>,
    /// How it was.
    pub state: Health,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    boot_id: String,
    gpus: Vec<KeptGpu>,
}

/// Keeps the file as the readings are.
#[derive(Debug)]
pub struct GpuKeeper {
    state: PathBuf,
    boot_id: String,
    gpus: Vec<KeptGpu>,
}

impl GpuKeeper {
    /// With what an earlier run of this boot left in the state directory.
    #[must_use]
    pub fn new(state: &Path, boot_id: &str) -> Self {
        Self {
            state: state.to_owned(),
            boot_id: boot_id.to_owned(),
            gpus: load(state, boot_id),
        }
    }

    /// Writes down what a good reading shows, if it is new. While `unnamed` GPUs are there, those that are not shown may be they.
    /// A disk that cannot be written is logged.
    pub fn mind(&mut self, observation: &Observation, unnamed: bool) {
        if observation.nvml != NvmlState::Ok {
            return;
        }
        let shown = observation.devices.iter().filter_map(|(key, device)| {
            let DeviceKey::Gpu(uuid) = key else {
                return None;
            };
            Some(KeptGpu {
                uuid: uuid.clone(),
                pci_bus_id: device.pci_bus_id().map(str::to_owned),
                state: device.health,
            })
        });
        let mut gpus: Vec<KeptGpu> = shown.collect();
        if unnamed {
            let silent = self.gpus.iter().filter(|gpu| !gpu.is_shown(observation));
            gpus.extend(silent.cloned());
            gpus.sort_unstable_by(|a, b| a.uuid.cmp(&b.uuid));
        }
        if gpus == self.gpus {
            return;
        }
        self.gpus = gpus;
        if let Err(error) = self.save() {
            tracing::debug!(%error, "the names of the GPUs are not kept");
        }
    }

    fn save(&self) -> io::Result<()> {
        let kept = Kept {
            boot_id: self.boot_id.clone(),
            gpus: self.gpus.clone(),
        };
        write_for_this_boot(&self.state.join(FILE), &serde_json::to_vec(&kept)?)
    }
}

impl KeptGpu {
    /// Whether it, or another board in its place, stands in this observation.
    #[must_use]
    pub fn is_shown(&self, observation: &Observation) -> bool {
        let mut shown = observation.devices.iter().map(|(key, device)| {
            let named = matches!(key, DeviceKey::Gpu(uuid) if *uuid == self.uuid);
            named || device.pci_bus_id().is_some_and(|pci| self.is_at(pci))
        });
        let mut hidden = observation.hidden.iter();
        shown.any(|shown| shown) || hidden.any(|gpu| self.is_at(&gpu.pci_bus_id))
    }

    /// Whether it was at this place.
    #[must_use]
    pub fn is_at(&self, pci_bus_id: &str) -> bool {
        let own = self.pci_bus_id.as_ref();
        own.is_some_and(|own| own.eq_ignore_ascii_case(pci_bus_id))
    }
}

/// What the agent with this state directory kept in this boot; empty when there is nothing, or it cannot be believed.
#[must_use]
pub fn load(state: &Path, boot_id: &str) -> Vec<KeptGpu> {
    let path = state.join(FILE);
    let read = read_own(&path, MOST_BYTES)
        .and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).map_err(io::Error::other));
    match read {
        Ok(kept) if kept.boot_id == boot_id => kept.gpus,
        Ok(_) => Vec::new(),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, file.path = %path.display(), "the names of the GPUs cannot be read");
            }
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::{Device, Readout};

    fn seen(gpus: &[(&str, &str, Health)]) -> Observation {
        let devices = gpus.iter().map(|(uuid, pci, health)| {
            let readout = Readout {
                pci_bus_id: (*pci).to_owned(),
                ..Readout::default()
            };
            let device = Device {
                health: *health,
                readout: Some(readout),
                ..Device::default()
            };
            (DeviceKey::Gpu((*uuid).to_owned()), device)
        });
        Observation {
            at_boottime_ms: 1,
            nvml: NvmlState::Ok,
            driver_version: None,
            devices: devices.collect(),
            hidden: Vec::new(),
        }
    }

    fn kept(dir: &Path) -> Vec<(String, Health)> {
        let gpus = load(dir, "boot").into_iter();
        gpus.map(|gpu| (gpu.uuid, gpu.state)).collect()
    }

    #[test]
    fn a_gpu_keeps_its_name_for_this_boot_while_it_may_be_one_that_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let named = |uuid: &str, state| (uuid.to_owned(), state);
        let (a, b) = ("00000000:1A:00.0", "00000000:2B:00.0");
        GpuKeeper::new(dir.path(), "boot").mind(
            &seen(&[("GPU-a", a, Health::Hung), ("GPU-b", b, Health::Ok)]),
            false,
        );
        let both = [named("GPU-a", Health::Hung), named("GPU-b", Health::Ok)];
        assert_eq!(kept(dir.path()), both);
        assert!(load(dir.path(), "other").is_empty());
        // The agent starts anew, and the GPU hangs still.
        let mut keeper = GpuKeeper::new(dir.path(), "boot");
        keeper.mind(&seen(&[("GPU-b", b, Health::Ok)]), true);
        assert_eq!(kept(dir.path()), both);
        let mut silent = seen(&[]);
        silent.nvml = NvmlState::Unresponsive(String::new());
        keeper.mind(&silent, false);
        assert_eq!(kept(dir.path()), both, "that nobody answers says nothing");
        let board = seen(&[("GPU-c", a, Health::Ok), ("GPU-b", b, Health::Ok)]);
        keeper.mind(&board, true);
        let other = [named("GPU-b", Health::Ok), named("GPU-c", Health::Ok)];
        assert_eq!(kept(dir.path()), other, "another board in its place");
        keeper.mind(&seen(&[("GPU-b", b, Health::Ok)]), false);
        assert_eq!(kept(dir.path()), other[..1], "it was taken out");
        std::fs::write(dir.path().join(FILE), b"junk").unwrap();
        assert!(load(dir.path(), "boot").is_empty());
    }
}
