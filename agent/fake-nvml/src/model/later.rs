//! Models whose numbers were read from published listings, and the profiles that only some of them have.
//!
//! Names, engines and counts of the MIG profiles: NVIDIA's MIG User Guide, "Supported MIG Profiles". Ids, memory and SMs:
//! `nvidia-smi mig -lgip` as published for the A30 and the RTX PRO 6000 with their placements (`-lgipp`, `-lgi`), for the
//! H200 in NVIDIA/mig-parted#120 and for the B200 in NVIDIA/mig-parted#187. Memory there is rounded to 0.01 GiB: here
//! it is the multiple of 64 MiB next to that, as it is where MiB were listed too. PCI device ids: the device filters of NVIDIA/gpu-operator's MIG configuration. Memory and power
//! of a whole GPU: `nvidia-smi` of an idle one. Oldest drivers: the guide's "Deployment Considerations".
//!
//! What was nowhere to be read is absent: clocks, BAR1, part number, VBIOS, reserve, NVLinks, the B200's idle power.

use super::{Driver, Model, Profile};
use crate::scenario::Architecture;

/// Where the instances of a profile lie, the same on all GPUs with as many slices.
struct Place {
    slices: u32,
    number: u32,
    id: u32,
    gis: [u32; 2],
    most: u32,
    starts: &'static [u32],
    size: u32,
}

impl Place {
    const fn new([slices, number, id, most]: [u32; 4], gis: [u32; 2]) -> Self {
        Self {
            slices,
            number,
            id,
            gis,
            most,
            starts: &[0],
            size: 1,
        }
    }

    const fn at(self, starts: &'static [u32], size: u32) -> Self {
        Self {
            starts,
            size,
            ..self
        }
    }

    /// A profile with these copy engines and decoders.
    const fn profile(
        self,
        name: &'static str,
        memory_mib: u64,
        sm_count: u32,
        [copy_engines, decoders]: [u32; 2],
    ) -> Profile {
        Profile {
            name,
            slices: self.slices,
            memory_mib,
            sm_count,
            number: self.number,
            id: self.id,
            gis: self.gis[0]..=self.gis[1],
            most: self.most,
            starts: self.starts,
            size: self.size,
            copy_engines,
            decoders,
        }
    }
}

/// On GPUs with seven slices: each is numbered, and lies, as on the H100.
mod seven {
    use super::Place;

    const SINGLE: &[u32] = &[0, 1, 2, 3, 4, 5, 6];
    pub(super) const ONE: Place = Place::new([1, 0, 19, 7], [7, 13]).at(SINGLE, 1);
    pub(super) const ONE_MEDIA: Place = Place::new([1, 7, 20, 1], [7, 13]).at(SINGLE, 1);
    pub(super) const ONE_WIDE: Place = Place::new([1, 9, 15, 4], [3, 6]).at(&[0, 2, 4, 6], 2);
    pub(super) const TWO: Place = Place::new([2, 1, 14, 3], [3, 5]).at(&[0, 2, 4], 2);
    pub(super) const THREE: Place = Place::new([3, 2, 9, 2], [1, 2]).at(&[4, 0], 4);
    pub(super) const FOUR: Place = Place::new([4, 3, 5, 1], [1, 1]).at(&[0], 4);
    pub(super) const WHOLE: Place = Place::new([7, 4, 0, 1], [0, 0]).at(&[0], 8);
}

pub(super) const H200: Model = Model {
    key: "h200",
    name: "NVIDIA H200",
    memory_total_mib: 143_771,
    pci_device_id: 0x2335_10de,
    architecture: Architecture::Hopper,
    driver: Driver::R550,
    compute_capability: [9, 0],
    power_limit_mw: 700_000,
    idle_power_mw: Some(74_000),
    pcie_generation: 5,
    profiles: &[
        seven::ONE.profile("1g.18gb", 16_384, 16, [1, 1]),
        seven::ONE_MEDIA.profile("1g.18gb+me", 16_384, 16, [1, 1]),
        seven::ONE_WIDE.profile("1g.35gb", 33_024, 26, [1, 1]),
        // Its memory was not listed; it is as much of the GPU's as that of 1g.35gb.
        seven::TWO.profile("2g.35gb", 33_024, 32, [2, 2]),
        seven::THREE.profile("3g.71gb", 71_168, 60, [3, 3]),
        seven::FOUR.profile("4g.71gb", 71_168, 64, [4, 4]),
        seven::WHOLE.profile("7g.141gb", 143_104, 132, [8, 7]),
    ],
    ..UNKNOWN
};

/// Decoders of its three largest profiles: NVIDIA/go-nvml's `mock/gpus/b200.go`, which agrees with the listing on the others.
pub(super) const B200: Model = Model {
    key: "b200",
    name: "NVIDIA B200",
    memory_total_mib: 183_359,
    pci_device_id: 0x2901_10de,
    architecture: Architecture::Blackwell,
    driver: Driver {
        version: "570.133.20",
        cuda: 12_080,
    },
    compute_capability: [10, 0],
    power_limit_mw: 1_000_000,
    pcie_generation: 5,
    profiles: &[
        seven::ONE.profile("1g.23gb", 20_992, 18, [2, 1]),
        seven::ONE_MEDIA.profile("1g.23gb+me", 20_992, 18, [2, 1]),
        seven::ONE_WIDE.profile("1g.45gb", 45_312, 30, [2, 1]),
        seven::TWO.profile("2g.45gb", 45_312, 36, [4, 2]),
        seven::THREE.profile("3g.90gb", 91_136, 70, [6, 3]),
        seven::FOUR.profile("4g.90gb", 91_136, 72, [8, 4]),
        seven::WHOLE.profile("7g.180gb", 182_784, 148, [16, 7]),
    ],
    ..UNKNOWN
};

pub(super) const A30: Model = {
    const ONE: &[u32] = &[0, 1, 2, 3];
    const TWO: &[u32] = &[0, 2];
    Model {
        key: "a30",
        name: "NVIDIA A30",
        memory_total_mib: 24_576,
        pci_device_id: 0x20b7_10de,
        architecture: Architecture::Ampere,
        driver: Driver::R550,
        compute_capability: [8, 0],
        power_limit_mw: 165_000,
        idle_power_mw: Some(31_000),
        pcie_generation: 4,
        profiles: &[
            Place::new([1, 0, 14, 4], [3, 6])
                .at(ONE, 1)
                .profile("1g.6gb", 5952, 14, [1, 1]),
            Place::new([1, 7, 21, 1], [3, 6])
                .at(ONE, 1)
                .profile("1g.6gb+me", 5952, 14, [1, 1]),
            Place::new([2, 1, 5, 2], [1, 2])
                .at(TWO, 2)
                .profile("2g.12gb", 11_968, 28, [2, 2]),
            Place::new([2, 8, 6, 1], [1, 2])
                .at(TWO, 2)
                .profile("2g.12gb+me", 11_968, 28, [2, 2]),
            Place::new([4, 3, 0, 1], [0, 0])
                .at(&[0], 4)
                .profile("4g.24gb", 24_000, 56, [4, 4]),
        ],
        ..UNKNOWN
    }
};

/// The only board here with `+gfx` (graphics), `+me.all` (all media engines) and `-me` (none). Twelve places of memory.
pub(super) const RTX_PRO_6000: Model = {
    const fn one(number: u32, id: u32, most: u32) -> Place {
        Place::new([1, number, id, most], [3, 6]).at(&[0, 3, 6, 9], 3)
    }
    const fn two(number: u32, id: u32, most: u32) -> Place {
        Place::new([2, number, id, most], [1, 2]).at(&[0, 6], 6)
    }
    const fn whole(number: u32, id: u32) -> Place {
        Place::new([4, number, id, 1], [0, 0]).at(&[0], 12)
    }
    Model {
        key: "rtxpro6000",
        name: "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        memory_total_mib: 97_887,
        pci_device_id: 0x2bb5_10de,
        architecture: Architecture::Blackwell,
        driver: Driver {
            version: "575.51.03",
            cuda: 12_090,
        },
        compute_capability: [12, 0],
        power_limit_mw: 600_000,
        idle_power_mw: Some(28_000),
        pcie_generation: 5,
        profiles: &[
            one(0, 14, 4).profile("1g.24gb", 24_192, 46, [1, 1]),
            one(7, 21, 1).profile("1g.24gb+me", 24_192, 46, [1, 1]),
            one(10, 47, 4).profile("1g.24gb+gfx", 24_192, 46, [1, 1]),
            one(15, 65, 1).profile("1g.24gb+me.all", 24_192, 46, [1, 4]),
            one(13, 67, 4).profile("1g.24gb-me", 24_192, 46, [1, 0]),
            two(1, 5, 2).profile("2g.48gb", 48_512, 94, [2, 2]),
            two(11, 35, 2).profile("2g.48gb+gfx", 48_512, 94, [2, 2]),
            two(16, 64, 1).profile("2g.48gb+me.all", 48_512, 94, [2, 4]),
            two(14, 66, 2).profile("2g.48gb-me", 48_512, 94, [2, 0]),
            whole(3, 0).profile("4g.96gb", 97_408, 188, [4, 4]),
            whole(12, 32).profile("4g.96gb+gfx", 97_408, 188, [4, 4]),
        ],
        ..UNKNOWN
    }
};

/// What was nowhere to be read. The rest each model fills in.
const UNKNOWN: Model = Model {
    key: "",
    name: "",
    memory_total_mib: 0,
    memory_reserved_mib: 0,
    pci_device_id: 0,
    architecture: Architecture::Blackwell,
    driver: Driver::R550,
    compute_capability: [0, 0],
    part_number: None,
    vbios: None,
    power_limit_mw: 0,
    idle_power_mw: None,
    bar1_mib: None,
    fan_percent: None,
    max_clocks: None,
    pcie_generation: 0,
    fabric: None,
    profiles: &[],
    vgpu_types: &[],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::profiles_of;
    use crate::scenario::Gpu;

    /// GPU instance, first place and decoders of each instance of a new GPU that is cut so.
    fn cut(model: &Model, layout: &[&str]) -> Result<Vec<(u32, u32, u32)>, String> {
        let mut gpu = model.gpu("node", 0);
        model.slice(&mut gpu, layout)?;
        let seen = |gpu: &Gpu| {
            let row = gpu.mig.iter();
            row.map(|mig| (mig.gi, mig.placement.map_or(99, |[at, _]| at), mig.decoders))
                .collect()
        };
        Ok(seen(&gpu))
    }

    #[test]
    fn every_listed_profile_can_be_cut_as_often_as_the_listing_says_and_no_more() {
        for model in [&A30, &H200, &B200, &RTX_PRO_6000] {
            for profile in model.profiles {
                let most = usize::try_from(profile.most).unwrap();
                let one_more = vec![profile.name; most + 1];
                let name = profile.name;
                assert!(cut(model, &one_more[1..]).is_ok(), "{most} {name}");
                assert!(cut(model, &one_more).is_err(), "{most} {name} and one");
            }
            let mut numbers: Vec<u32> = profiles_of(&model.gpu("node", 0))
                .iter()
                .map(|profile| profile.number)
                .collect();
            numbers.sort_unstable();
            let before = numbers.len();
            numbers.dedup();
            assert_eq!(numbers.len(), before, "{}", model.key);
        }
    }

    /// The listings' own examples.
    #[test]
    fn instances_of_four_slice_gpus_lie_where_the_driver_puts_them() {
        let mixed = cut(&RTX_PRO_6000, &["2g.48gb", "1g.24gb", "1g.24gb"]);
        assert_eq!(mixed.unwrap(), [(1, 0, 2), (5, 6, 1), (6, 9, 1)]);
        let mixed = cut(&A30, &["1g.6gb", "1g.6gb", "2g.12gb"]);
        assert_eq!(mixed.unwrap(), [(3, 0, 1), (4, 1, 1), (2, 2, 2)]);
        assert_eq!(A30.gpu("node", 0).mig_slots, Some(4));
    }

    #[test]
    fn all_media_engines_in_one_instance_leave_none_to_the_others() {
        let alone = ["1g.24gb+me.all", "1g.24gb-me", "2g.48gb-me"];
        let seen = cut(&RTX_PRO_6000, &alone).unwrap();
        assert_eq!(seen, [(3, 0, 4), (4, 3, 0), (2, 6, 0)]);
        assert!(cut(&RTX_PRO_6000, &["1g.24gb+me.all", "1g.24gb"]).is_err());
        let graphics = cut(&RTX_PRO_6000, &["1g.24gb+gfx", "1g.24gb", "2g.48gb+gfx"]);
        assert_eq!(graphics.unwrap().len(), 3);
        let error = cut(&H200, &["1g.18gb+gfx"]).unwrap_err();
        assert!(error.contains("1g.18gb+me"), "{error}");
    }
}
