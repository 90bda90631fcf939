//! MIG profiles: what a model can be cut into, and the cutting.

use std::ops::RangeInclusive;

use super::{MODELS, Model, uuid};
use crate::scenario::{Gpu, Mig};

/// A GPU instance profile.
#[derive(Debug)]
pub struct Profile {
    pub name: &'static str,
    pub(super) slices: u32,
    pub(super) memory_mib: u64,
    pub(super) sm_count: u32,
    /// `NVML_GPU_INSTANCE_PROFILE_*`
    pub(super) number: u32,
    /// The profile's id on the device.
    pub(super) id: u32,
    /// Ids of its instances, as the driver hands them out.
    pub(super) gis: RangeInclusive<u32>,
    /// How many fit on an empty GPU.
    pub(super) most: u32,
    /// Memory slices where one may begin, in the order in which the driver takes them.
    pub(super) starts: &'static [u32],
    /// Memory slices that one takes.
    pub(super) size: u32,
    pub(super) copy_engines: u32,
    pub(super) decoders: u32,
}

/// What NVML says of a profile on one GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuProfile {
    /// `NVML_GPU_INSTANCE_PROFILE_*`
    pub number: u32,
    pub id: u32,
    pub name: String,
    pub slices: u32,
    pub memory_mib: u64,
    pub sm_count: u32,
    pub copy_engines: u32,
    pub decoders: u32,
    /// How many fit on an empty GPU.
    pub most: u32,
    /// Where one may lie: first memory slice, and how many.
    pub places: Vec<[u32; 2]>,
}

/// Slices of the GPUs that have most; those with four are cut by other rules.
pub(super) const MOST_SLICES: u32 = 7;
/// Profiles that no model has get ids from here on.
const FIRST_FOREIGN_ID: u32 = 100;
/// Profile numbers that NVML knows; the last that are free are given to profiles that no model has.
const NUMBERS: u32 = 17;

/// The profiles of a GPU: those of its model, and those of instances that a scenario gave it besides.
pub fn profiles_of(gpu: &Gpu) -> Vec<GpuProfile> {
    let model = MODELS.iter().find(|model| model.name == gpu.name);
    let all = model.map_or(MOST_SLICES, Model::slices);
    let mut profiles: Vec<GpuProfile> = model
        .map(|model| model.profiles)
        .unwrap_or_default()
        .iter()
        .map(|profile| GpuProfile {
            number: profile.number,
            id: profile.id,
            name: profile.name.to_owned(),
            slices: profile.slices,
            memory_mib: profile.memory_mib,
            sm_count: profile.sm_count,
            copy_engines: profile.copy_engines,
            decoders: profile.decoders,
            most: profile.most,
            places: profile
                .starts
                .iter()
                .map(|start| [*start, profile.size])
                .collect(),
        })
        .collect();
    for mig in &gpu.mig {
        let name = mig.instance_profile();
        if profiles.iter().any(|profile| profile.name == name) {
            continue;
        }
        let foreign = profiles
            .iter()
            .filter(|profile| profile.id >= FIRST_FOREIGN_ID);
        let foreign = u32::try_from(foreign.count()).unwrap_or(u32::MAX);
        let slices = mig.slices().map_or(0, |[instance, _]| instance);
        let taken = |number: &u32| profiles.iter().any(|profile| profile.number == *number);
        profiles.push(GpuProfile {
            number: (0..NUMBERS).rfind(|number| !taken(number)).unwrap_or(0),
            id: FIRST_FOREIGN_ID + foreign,
            name: name.to_owned(),
            slices,
            memory_mib: mig.memory_total_mib,
            sm_count: mig.sm_count,
            copy_engines: mig.copy_engines,
            decoders: mig.decoders,
            most: all.checked_div(slices).unwrap_or(0),
            places: mig.placement.into_iter().collect(),
        });
    }
    profiles
}

impl Model {
    /// Cuts `gpu` into one instance for each profile named, in slots of that order, with ids and places as the driver gives
    /// them. `1c.3g.40gb` is a compute instance of one slice: on the newest 3g.40gb that has room, else on a new one.
    /// The same layout cut twice has the same UUIDs, as on real hardware.
    pub fn slice(&self, gpu: &mut Gpu, layout: &[&str]) -> Result<(), String> {
        let mut instances: Vec<Mig> = Vec::new();
        for name in layout {
            let (compute, of) = compute_part(name);
            let profile = self.profiles.iter().find(|profile| profile.name == of);
            let Some(profile) = profile.filter(|profile| compute <= profile.slices) else {
                let known: Vec<&str> = self.profiles.iter().map(|profile| profile.name).collect();
                return Err(format!(
                    "{} has no MIG profile {name:?}; it has {}",
                    self.name,
                    known.join(", ")
                ));
            };
            let shared = (compute > 0).then(|| with_room(&instances, of, compute, profile.slices));
            let place = match shared.flatten() {
                Some(place) => Some(place),
                None => self
                    .free_place(&instances, profile)
                    .map(|(gi, start)| (gi, 0, start)),
            };
            let Some((gi, ci, start)) = place else {
                return Err(format!(
                    "{} does not fit on one {}",
                    layout.join(" + "),
                    self.name
                ));
            };
            let key = match ci {
                0 => format!("{}/{gi}/{name}", gpu.uuid),
                ci => format!("{}/{gi}/{ci}/{name}", gpu.uuid),
            };
            instances.push(Mig {
                gi,
                ci,
                profile: (*name).to_owned(),
                uuid: format!("MIG-{}", uuid(&key)),
                slot: None,
                placement: Some([start, profile.size]),
                memory_total_mib: profile.memory_mib,
                memory_reserved_mib: 0,
                memory_used_mib: None,
                sm_count: match compute {
                    0 => profile.sm_count,
                    compute => profile.sm_count * compute / profile.slices,
                },
                copy_engines: profile.copy_engines,
                decoders: profile.decoders,
                encoders: 0,
                jpegs: 0,
                ofas: 0,
            });
        }
        gpu.mig_mode = Some(true);
        gpu.mig = instances;
        Ok(())
    }
}

/// Compute slices (0: all) and the profile of the GPU instance.
fn compute_part(name: &str) -> (u32, &str) {
    let parted = name
        .split_once("c.")
        .and_then(|(compute, of)| Some((compute.parse().ok()?, of)));
    parted.unwrap_or((0, name))
}

/// GPU instance, next compute instance and first memory slice of the newest instance with that many compute slices free.
fn with_room(instances: &[Mig], of: &str, compute: u32, slices: u32) -> Option<(u32, u32, u32)> {
    let newest = instances
        .iter()
        .rev()
        .find(|mig| mig.instance_profile() == of)?;
    let here = instances.iter().filter(|mig| mig.gi == newest.gi);
    let taken: u32 = here
        .clone()
        .filter_map(Mig::slices)
        .map(|[_, compute]| compute)
        .sum();
    let next = here.map(|mig| mig.ci + 1).max()?;
    let start = newest.placement.map_or(0, |[start, _]| start);
    (taken + compute <= slices).then_some((newest.gi, next, start))
}

impl Model {
    /// An id and a place that no instance has.
    fn free_place(&self, instances: &[Mig], profile: &Profile) -> Option<(u32, u32)> {
        let unused = |gi: &u32| !instances.iter().any(|mig| mig.gi == *gi);
        let free = |start: u32| {
            let end = start + profile.size;
            !instances.iter().any(|mig| {
                mig.placement
                    .is_some_and(|[other, size]| start < other + size && other < end)
            })
        };
        let mut places = profile.gis.clone().zip(profile.starts);
        let place = if self.slices() == MOST_SLICES {
            let gi = profile.gis.clone().find(unused);
            gi.zip(profile.starts.iter().copied().find(|start| free(*start)))
        } else {
            // Each place has an id of its own.
            let place = places.find(|(gi, start)| unused(gi) && free(**start));
            place.map(|(gi, start)| (gi, *start))
        };
        // Of a GPU instance its first compute instance stands for all.
        let mut firsts: Vec<&Mig> = Vec::new();
        for mig in instances {
            if !firsts.iter().any(|first| first.gi == mig.gi) {
                firsts.push(mig);
            }
        }
        let taken = firsts.iter().filter_map(|mig| mig.slices());
        let taken: u32 = taken.map(|[slices, _]| slices).sum();
        // `+me.all` leaves no media engine to others.
        let decoders: u32 = firsts.iter().map(|mig| mig.decoders).sum();
        let most_decoders = self.profiles.iter().map(|profile| profile.decoders).max()?;
        let alike = instances.iter().filter(|mig| mig.profile == profile.name);
        let room = u32::try_from(alike.count()).is_ok_and(|alike| alike < profile.most)
            && taken + profile.slices <= self.slices()
            && decoders + profile.decoders <= most_decoders;
        place.filter(|_| room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_follows_the_drivers_ids_and_refuses_what_does_not_fit() {
        let model = Model::find("a100").unwrap();
        let mut gpu = model.gpu("node", 0);
        model.slice(&mut gpu, &["3g.40gb", "3g.40gb"]).unwrap();
        assert_eq!(gpu.mig.iter().map(|mig| mig.gi).collect::<Vec<_>>(), [1, 2]);
        let first = gpu.mig.clone();
        model.slice(&mut gpu, &["3g.40gb", "3g.40gb"]).unwrap();
        assert_eq!(gpu.mig, first, "an identical cut has identical UUIDs");
        assert!(model.slice(&mut gpu, &["4g.40gb", "4g.40gb"]).is_err());
        assert!(
            model
                .slice(&mut gpu, &["5g.50gb"])
                .unwrap_err()
                .contains("3g.40gb")
        );
        assert_eq!(gpu.mig, first, "a refused cut changes nothing");
    }

    #[test]
    fn compute_instances_share_a_gpu_instance_and_places_do_not_overlap() {
        let model = Model::find("h100").unwrap();
        let mut gpu = model.gpu("node", 0);
        let layout = ["1c.3g.40gb", "2c.3g.40gb", "1c.3g.40gb", "1g.10gb+me"];
        model.slice(&mut gpu, &layout).unwrap_err();
        let layout = ["1c.3g.40gb", "2c.3g.40gb", "1c.3g.40gb"];
        model.slice(&mut gpu, &layout).unwrap();
        let places: Vec<_> = gpu
            .mig
            .iter()
            .map(|mig| (mig.gi, mig.ci, mig.placement))
            .collect();
        let first = Some([4, 4]);
        assert_eq!(places, [(1, 0, first), (1, 1, first), (2, 0, Some([0, 4]))]);
        model
            .slice(&mut gpu, &["3g.40gb", "1g.20gb", "1g.10gb+me", "1g.10gb"])
            .unwrap();
        let starts: Vec<_> = gpu
            .mig
            .iter()
            .map(|mig| mig.placement.unwrap()[0])
            .collect();
        assert_eq!(starts, [4, 0, 2, 3]);
        let twice = model.slice(&mut gpu, &["1g.10gb+me", "1g.10gb+me"]);
        assert!(twice.is_err(), "one GPU has one set of media engines");
    }

    #[test]
    fn a_profile_of_the_scenarios_own_is_one_of_the_gpu() {
        let mut gpu = Model::find("a100").unwrap().gpu("node", 0);
        Model::find("a100")
            .unwrap()
            .slice(&mut gpu, &["1g.10gb", "1g.10gb"])
            .unwrap();
        gpu.mig[1].profile = "1g.24gb+me.all".to_owned();
        let profiles = profiles_of(&gpu);
        let numbers: Vec<u32> = profiles.iter().map(|profile| profile.number).collect();
        assert_eq!(numbers, [0, 7, 9, 1, 2, 3, 4, 16]);
        assert_eq!(
            (profiles[7].name.as_str(), profiles[7].id),
            ("1g.24gb+me.all", 100)
        );
    }
}
