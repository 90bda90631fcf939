//! Real GPU models: making an idle GPU of one, and cutting it into MIG instances.

mod fabric;
mod later;
mod profile;
mod table;
mod vgpu;

use crate::scenario::{Architecture, Clocks, Gpu, Pcie, RemappedRows};

use profile::MOST_SLICES;

pub use fabric::Fabric;
pub use profile::{GpuProfile, Profile, profiles_of};
pub use table::MODELS;
pub use vgpu::{VgpuType, class_and_licence, type_id, types_of};

/// A GPU model with the MIG profiles it can be cut into.
#[derive(Debug)]
pub struct Model {
    pub key: &'static str,
    pub name: &'static str,
    pub memory_total_mib: u64,
    memory_reserved_mib: u64,
    pci_device_id: u32,
    architecture: Architecture,
    compute_capability: [i32; 2],
    driver: Driver,
    part_number: Option<&'static str>,
    vbios: Option<&'static str>,
    power_limit_mw: u32,
    idle_power_mw: Option<u32>,
    bar1_mib: Option<u64>,
    fan_percent: Option<u32>,
    max_clocks: Option<Clocks>,
    pcie_generation: u32,
    fabric: Option<Fabric>,
    profiles: &'static [Profile],
    vgpu_types: &'static [VgpuType],
}

/// A driver that knows a model, with its CUDA version as NVML gives it: 12040 is 12.4.
#[derive(Debug, Clone, Copy)]
pub struct Driver {
    pub version: &'static str,
    pub cuda: i32,
}

impl Driver {
    /// Knows all models here but the Blackwell ones.
    const R550: Self = Self {
        version: "550.90.07",
        cuda: 12_040,
    };
}

/// Where eight GPUs of a server usually sit.
const BUSES: [u32; 8] = [0x18, 0x2a, 0x3a, 0x5d, 0x9a, 0xab, 0xba, 0xdb];

impl Model {
    pub fn find(key: &str) -> Option<&'static Self> {
        MODELS.iter().find(|model| model.key == key)
    }

    /// Compute slices of the whole GPU; those of the largest GPU there is where it knows no MIG.
    fn slices(&self) -> u32 {
        let slices = self.profiles.iter().map(|profile| profile.slices);
        slices.max().unwrap_or(MOST_SLICES)
    }

    /// The driver that a node of these GPUs has.
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// The `index`th idle GPU of a node. The same seed and index give the same UUID.
    pub fn gpu(&self, seed: &str, index: u32) -> Gpu {
        let bus = usize::try_from(index)
            .ok()
            .and_then(|index| BUSES.get(index))
            .copied();
        Gpu {
            uuid: format!("GPU-{}", uuid(&format!("{seed}/{}/{index}", self.key))),
            name: self.name.to_owned(),
            pci_bus_id: match bus {
                Some(bus) => format!("00000000:{bus:02X}:00.0"),
                None => format!("00000001:{:02X}:00.0", index & 0xff),
            },
            memory_total_mib: self.memory_total_mib,
            minor: Some(index),
            serial: Some(format!(
                "165{:010}",
                fingerprint(&format!("{seed}/{index}")) % 10_000_000_000
            )),
            board_part_number: self.part_number.map(str::to_owned),
            vbios_version: self.vbios.map(str::to_owned),
            pci_device_id: self.pci_device_id,
            pci_subsystem_id: 0x16c1_10de,
            architecture: Some(self.architecture),
            compute_capability: Some(self.compute_capability),
            numa_node: Some(if index < 4 { 0 } else { 1 }),
            memory_reserved_mib: self.memory_reserved_mib,
            bar1_total_mib: self.bar1_mib,
            temperature_c: Some(31 + index % 4),
            memory_temperature_c: Some(39 + index % 4),
            power_mw: self.idle_power_mw.map(|idle| idle + 350 * (index % 5)),
            power_limit_mw: Some(self.power_limit_mw),
            nvlink_bandwidth: None,
            guest_licensed: None,
            energy_mj: Some(9_000_000_000 + 1_000_000 * u64::from(index)),
            fan_percent: self.fan_percent,
            performance_state: Some(0),
            utilization_gpu: Some(0),
            utilization_memory: Some(0),
            utilization_encoder: Some(0),
            utilization_decoder: Some(0),
            clocks_mhz: self.max_clocks.map(|max| Clocks {
                graphics: 345,
                sm: 345,
                ..max
            }),
            max_clocks_mhz: self.max_clocks,
            pcie: Some(Pcie {
                generation: self.pcie_generation,
                width: 16,
                max_generation: self.pcie_generation,
                max_width: 16,
                replays: 0,
            }),
            ecc: Some(true),
            remapped_rows: match self.architecture {
                Architecture::Pascal | Architecture::Volta | Architecture::Turing => None,
                Architecture::Ampere
                | Architecture::Ada
                | Architecture::Hopper
                | Architecture::Blackwell => Some(RemappedRows::default()),
            },
            persistence: true,
            mig_mode: if self.profiles.is_empty() {
                None
            } else {
                Some(false)
            },
            mig_slots: Some(self.slices()).filter(|slices| *slices < MOST_SLICES),
            ..Gpu::default()
        }
    }

    /// `count` idle GPUs, joined as the model's boards join them.
    pub fn gpus(&self, seed: &str, count: u32) -> Vec<Gpu> {
        let mut gpus: Vec<Gpu> = (0..count).map(|index| self.gpu(seed, index)).collect();
        if let Some(fabric) = &self.fabric {
            fabric.join(&mut gpus);
        }
        gpus
    }
}

/// A hash that stays the same from release to release, because people write these UUIDs down: FNV-1a, and the final mix
/// of MurmurHash3 so that neighbours look nothing alike.
fn fingerprint(text: &str) -> u64 {
    let mix = |hash: u64, factor: u64| (hash ^ (hash >> 33)).wrapping_mul(factor);
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    mix(
        mix(mix(hash, 0xff51_afd7_ed55_8ccd), 0xc4ce_b9fe_1a85_ec53),
        1,
    )
}

/// The UUID of a vGPU, or of a VM, that is described by `text`.
pub fn vgpu_uuid(text: &str) -> String {
    uuid(text)
}

fn uuid(text: &str) -> String {
    let (high, low) = (
        fingerprint(&format!("high/{text}")),
        fingerprint(&format!("low/{text}")),
    );
    let (a, b, c) = (high >> 32, (high >> 16) & 0xffff, high & 0xffff);
    format!(
        "{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}",
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_differ_between_nodes_and_never_change() {
        let model = Model::find("t4").unwrap();
        assert_ne!(model.gpu("a", 0).uuid, model.gpu("b", 0).uuid);
        assert_eq!(
            model.gpu("a", 0).uuid.len(),
            "GPU-00000000-0000-0000-0000-000000000000".len()
        );
    }
}
