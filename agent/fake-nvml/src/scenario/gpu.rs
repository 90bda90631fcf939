//! One GPU and its MIG instances as a scenario describes them.

use serde::{Deserialize, Serialize};

use super::{NvLinks, Vgpu, is_default};

/// A GPU. Only the first four fields are needed; whatever else is absent is "not supported" on this GPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    pub uuid: String,
    pub name: String,
    /// `DDDDDDDD:BB:DD.F`
    pub pci_bus_id: String,
    pub memory_total_mib: u64,
    /// N of `/dev/nvidiaN`; the position in the file when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minor: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub board_part_number: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vbios_version: Option<String>,
    /// Device id in the upper, vendor id in the lower 16 bits.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pci_device_id: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub pci_subsystem_id: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_capability: Option<[i32; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// The driver's share; never part of `used`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory_reserved_mib: u64,
    /// Replaces the sum over the live processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_used_mib: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bar1_total_mib: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_c: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_temperature_c: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_mw: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_limit_mw: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_mj: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fan_percent: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub performance_state: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization_gpu: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization_memory: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization_encoder: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization_decoder: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clocks_mhz: Option<Clocks>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_clocks_mhz: Option<Clocks>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcie: Option<Pcie>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecc: Option<bool>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub ecc_corrected: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub ecc_uncorrected: u64,
    /// Absent: this GPU does not remap rows. In MIG mode with instances NVML does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remapped_rows: Option<RemappedRows>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub compute_mode: ComputeMode,
    #[serde(default, skip_serializing_if = "is_default")]
    pub persistence: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub accounting: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub virtualization: Virtualization,
    /// Field 230: 0 none, 1 reset, 2 reboot, 3 drain, 4 drain and reset.
    #[serde(default, skip_serializing_if = "is_default")]
    pub recovery_action: u32,
    /// Absent: this GPU knows no MIG at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig_mode: Option<bool>,
    /// After the next reset; the current mode when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig_mode_pending: Option<bool>,
    /// Slots to walk in MIG mode, most of them empty; 7 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig_slots: Option<u32>,
    /// Fallen off the bus: every call about it answers 15, also looking it up; the count and other GPUs stay.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lost: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nvlink: Vec<NvLinks>,
    /// Field 66; absent: no such counter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvlink_bandwidth: Option<u64>,
    /// In mode `vgpu`, in a guest: whether its feature is licensed. Absent: no licensing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_licensed: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mig: Vec<Mig>,
    /// Only on a GPU in `host-vgpu` mode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vgpu: Vec<Vgpu>,
}

/// One MIG device, which is one compute instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mig {
    pub gi: u32,
    #[serde(default)]
    pub ci: u32,
    /// `1g.10gb`, or `1c.3g.40gb` for a part of a GPU instance.
    pub profile: String,
    pub uuid: String,
    /// The index it is found under; the position in the list when absent. Slots may have gaps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// First memory slice of the GPU instance, and how many it takes; absent: NVML does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<[u32; 2]>,
    /// Of the GPU instance; its compute instances share it.
    pub memory_total_mib: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory_reserved_mib: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_used_mib: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub sm_count: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub copy_engines: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub decoders: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub encoders: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub jpegs: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub ofas: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clocks {
    pub graphics: u32,
    pub sm: u32,
    pub memory: u32,
    pub video: u32,
}

/// Rows of memory that were replaced by spare ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemappedRows {
    #[serde(default, skip_serializing_if = "is_default")]
    pub correctable: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub uncorrectable: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub pending: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pcie {
    pub generation: u32,
    pub width: u32,
    pub max_generation: u32,
    pub max_width: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub replays: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    Pascal,
    Volta,
    Turing,
    Ampere,
    Ada,
    Hopper,
    Blackwell,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComputeMode {
    #[default]
    Default,
    Prohibited,
    ExclusiveProcess,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Virtualization {
    #[default]
    None,
    Passthrough,
    Vgpu,
    HostVgpu,
}

impl Gpu {
    /// Whether instances exist at all on this GPU right now.
    pub fn mig_enabled(&self) -> bool {
        self.mig_mode == Some(true)
    }

    pub fn slots(&self) -> u32 {
        if self.mig_enabled() {
            self.mig_slots.unwrap_or(7)
        } else {
            0
        }
    }

    /// The MIG devices with the slot each stands in.
    pub fn slotted_mig(&self) -> impl Iterator<Item = (u32, &Mig)> {
        (0..)
            .zip(&self.mig)
            .map(|(position, mig)| (mig.slot.unwrap_or(position), mig))
    }

    /// UUIDs of the MIG and vGPU instances on it.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        let mig = self.mig.iter().map(|mig| mig.uuid.as_str());
        mig.chain(self.vgpu.iter().map(|vgpu| vgpu.uuid.as_str()))
    }

    /// `domain`, `bus`, `device` of the PCI bus id.
    pub fn pci_numbers(&self) -> Option<[u32; 3]> {
        pci_numbers(&self.pci_bus_id)
    }

    /// The NVLink with this number.
    pub fn nvlink(&self, number: u32) -> Option<&NvLinks> {
        let mut before = 0_u32;
        self.nvlink.iter().find(|links| {
            before = before.saturating_add(links.links);
            number < before
        })
    }
}

pub(crate) fn pci_numbers(bus_id: &str) -> Option<[u32; 3]> {
    let mut parts = bus_id.split([':', '.']);
    let mut next = || u32::from_str_radix(parts.next()?, 16).ok();
    Some([next()?, next()?, next()?])
}

impl Mig {
    /// The profile of its GPU instance: the name without the part of a smaller compute instance.
    pub fn instance_profile(&self) -> &str {
        let parted = self.profile.split_once("c.");
        parted.map_or(&self.profile, |(_, instance)| instance)
    }

    /// GPU instance slices and compute instance slices, read from the profile's name.
    pub fn slices(&self) -> Option<[u32; 2]> {
        let mut compute = None;
        let mut instance = None;
        for part in self.profile.split('.') {
            if let Some(slices) = part.strip_suffix('c') {
                compute = Some(slices.parse().ok()?);
            } else if let Some(slices) = part.strip_suffix('g') {
                instance = Some(slices.parse().ok()?);
            }
        }
        let instance = instance?;
        Some([instance, compute.unwrap_or(instance)])
    }
}
