//! Every GPU that this node ever showed since the agent started, so that one that falls silent is shown and not dropped. Pure.

use std::collections::BTreeMap;

use super::epoch;
use super::nvlink::islands;
use super::pci::PciAddress;
use super::protocol::Target;
use super::reading::{Glow, GpuReading, Health, Reading};

/// The last good row of each GPU, by UUID.
#[derive(Debug, Default)]
pub(super) struct Roster {
    known: BTreeMap<String, GpuReading>,
    /// Facts came or a GPU went: which are joined must be found out anew.
    moved: bool,
}

impl Roster {
    /// Completes a fresh reading: known GPUs that are missing in it are added as hung, if quarantined, or lost; GPUs that do
    /// not answer get back the facts they had. Returns how many known GPUs were missing without being quarantined, too.
    pub(super) fn complete(
        &mut self,
        mut fresh: Reading,
        quarantined: &[Target],
    ) -> (Reading, u32) {
        for gpu in &mut fresh.gpus {
            if gpu.health == Health::Ok {
                self.take(gpu);
            } else if let Some(old) = self.known.get(&gpu.uuid) {
                *gpu = silent(old, gpu.health);
            }
        }
        let before = self.known.len();
        let left_out = |gpu: &GpuReading| {
            let mut hidden = fresh.hidden.iter();
            hidden.any(|hidden| hidden.pci_bus_id.eq_ignore_ascii_case(&gpu.pci_bus_id))
        };
        self.known.retain(|uuid, gpu| {
            // One that is given away or left out is not lost; what is shown after all is there.
            !left_out(gpu) || fresh.gpus.iter().any(|shown| shown.uuid == *uuid)
        });
        self.moved |= self.known.len() != before;
        let mut missing = 0_u32;
        for old in self.known.values() {
            if fresh.gpus.iter().any(|gpu| gpu.uuid == old.uuid) {
                continue;
            }
            let hung = quarantined
                .iter()
                .any(|target| target.is(&old.pci_bus_id, old.index));
            if !hung {
                missing = missing.saturating_add(1);
            }
            fresh
                .gpus
                .push(silent(old, if hung { Health::Hung } else { Health::Lost }));
        }
        if std::mem::take(&mut self.moved) {
            self.find_islands();
        }
        for gpu in &mut fresh.gpus {
            let known = self.known.get(&gpu.uuid);
            gpu.nvlink_island = known.and_then(|known| known.nvlink_island);
        }
        fresh
            .gpus
            .sort_by(|a, b| (a.index, &a.pci_bus_id).cmp(&(b.index, &b.pci_bus_id)));
        (fresh, missing)
    }

    /// A row that answers replaces the one before it; what the worker told once stays.
    fn take(&mut self, gpu: &mut GpuReading) {
        // Another board in the same slot, or the same board under a new UUID: the old one is not lost.
        let before = self.known.len();
        self.known
            .retain(|uuid, old| *uuid == gpu.uuid || old.pci_bus_id != gpu.pci_bus_id);
        self.moved |= gpu.facts.is_some() || self.known.len() != before;
        match self.known.get_mut(&gpu.uuid) {
            Some(old) => {
                if gpu.facts.is_none() {
                    gpu.facts.clone_from(&old.facts);
                }
                gpu.nvlink_island = old.nvlink_island;
                let recut = u64::from(epoch::changed(old, gpu));
                gpu.mig_generation = old.mig_generation.saturating_add(recut);
                old.clone_from(gpu);
            }
            None => {
                self.known.insert(gpu.uuid.clone(), gpu.clone());
            }
        }
    }

    fn find_islands(&mut self) {
        let links = |gpu: &GpuReading| gpu.facts.clone().unwrap_or_default();
        let facts: Vec<_> = self.known.values().map(links).collect();
        let places = self.known.values().map(|gpu| gpu.pci_bus_id.as_str());
        let links = facts.iter().map(|facts| facts.nvlinks.as_deref());
        let gpus: Vec<_> = places.zip(links).collect();
        let numbers = islands(&gpus);
        for (gpu, number) in self.known.values_mut().zip(numbers) {
            gpu.nvlink_island = number;
        }
    }

    /// UUID of the GPU that was last read at this address.
    pub(super) fn uuid_at(&self, address: PciAddress) -> Option<&str> {
        let here = |gpu: &&GpuReading| gpu.pci_bus_id.parse() == Ok(address);
        self.known.values().find(here).map(|gpu| gpu.uuid.as_str())
    }

    /// Whether this is a GPU that was ever read.
    pub(super) fn knows(&self, target: &Target) -> bool {
        self.known
            .values()
            .any(|gpu| target.is(&gpu.pci_bus_id, gpu.index))
    }

    /// The PCI bus ids of the GPUs that are not quarantined.
    pub(super) fn others(&self, quarantined: &[Target]) -> Vec<Target> {
        let trusted = |gpu: &&GpuReading| {
            !quarantined
                .iter()
                .any(|target| target.is(&gpu.pci_bus_id, gpu.index))
        };
        let target = |gpu: &GpuReading| Target::Pci(gpu.pci_bus_id.clone());
        self.known.values().filter(trusted).map(target).collect()
    }
}

/// What is known of a GPU that does not answer: what it is, not what happens on it.
fn silent(known: &GpuReading, health: Health) -> GpuReading {
    let mut row = known.clone();
    row.health = health;
    row.memory = None;
    row.glow = Glow::default();
    row.gauges = None;
    row.activities = Vec::new();
    row.processes = None;
    row.vgpus = None;
    row.doubts = Vec::new();
    for instance in &mut row.instances {
        instance.memory = None;
        instance.sm_percent = None;
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::reading::{Memory, MigReading};

    fn gpu(index: u32, health: Health) -> GpuReading {
        let memory = Some(Memory {
            total: 80,
            reserved: Some(1),
            free: 70,
            used: 9,
        });
        GpuReading {
            uuid: format!("GPU-{index}"),
            pci_bus_id: format!("00000000:{index:02}:00.0"),
            index,
            minor: Some(index),
            name: Some("NVIDIA H100".to_owned()),
            health,
            mig_enabled: Some(true),
            vgpu_host: Some(false),
            memory,
            glow: Glow::default(),
            instances: vec![MigReading {
                uuid: "MIG-1".to_owned(),
                gi: 1,
                ci: 0,
                profile: Some("1g.10gb".to_owned()),
                memory,
                ..MigReading::default()
            }],
            vgpus: None,
            processes: Some(Vec::new()),
            ..GpuReading::default()
        }
    }

    fn reading(gpus: Vec<GpuReading>) -> Reading {
        Reading {
            hidden: Vec::new(),
            driver_version: None,
            gpus,
        }
    }

    fn healths(reading: &Reading) -> Vec<(u32, Health)> {
        reading
            .gpus
            .iter()
            .map(|gpu| (gpu.index, gpu.health))
            .collect()
    }

    /// Case 72: a GPU falls off the bus, by error or by not being counted any more.
    #[test]
    fn a_known_gpu_is_never_dropped() {
        let mut roster = Roster::default();
        roster.complete(
            reading((0..4).map(|index| gpu(index, Health::Ok)).collect()),
            &[],
        );
        let mut lost = gpu(1, Health::Lost);
        lost.instances.clear();
        lost.name = None;
        let hung = [Target::Pci("00000000:03:00.0".to_owned())];
        let (seen, missing) = roster.complete(reading(vec![gpu(0, Health::Ok), lost]), &hung);
        let expected = [
            (0, Health::Ok),
            (1, Health::Lost),
            (2, Health::Lost),
            (3, Health::Hung),
        ];
        assert_eq!(healths(&seen), expected);
        assert_eq!(missing, 1);
        for gpu in &seen.gpus[1..] {
            assert_eq!(gpu.instances[0].profile.as_deref(), Some("1g.10gb"));
            assert_eq!(gpu.name.as_deref(), Some("NVIDIA H100"));
            assert_eq!(
                (gpu.memory, &gpu.processes, gpu.instances[0].memory),
                (None, &None, None)
            );
        }
        assert_eq!(roster.others(&hung).len(), 3);
    }

    #[test]
    fn another_board_in_the_slot_replaces_the_old_one() {
        let mut roster = Roster::default();
        roster.complete(reading(vec![gpu(0, Health::Ok)]), &[]);
        let mut board = gpu(0, Health::Ok);
        board.uuid = "GPU-new".to_owned();
        let (seen, missing) = roster.complete(reading(vec![board]), &[]);
        assert_eq!((seen.gpus.len(), missing), (1, 0));
    }
}
