//! MIG profile names, from what NVML says of an instance. Pure.
//!
//! A name is `[Nc.]Ng.Ngb` and what sets a profile apart from others of its size: `+me`, `+me.all`, `+gfx`, `-me`. NVML writes
//! it with and without `MIG ` before it, tools also `+a,b` for two of those.

use std::fmt;

/// What `nvmlDeviceGetAttributes_v2` says of a MIG device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slices {
    /// Slices of the GPU instance.
    pub(super) gpu: u32,
    /// Slices of the compute instance.
    pub(super) compute: u32,
    /// Framebuffer of the GPU instance, MiB.
    pub(super) memory_mib: u64,
    /// Framebuffer of the whole GPU, MiB.
    pub(super) of_mib: u64,
}

/// A profile taken apart. Displayed as quotas and reports have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    /// Slices of a compute instance that does not have all of its GPU instance.
    compute: Option<u32>,
    gpu: u32,
    gigabytes: u64,
    /// `+me` and the like, each with its sign.
    extras: Vec<String>,
}

/// More of them, or longer ones, are no profile.
const EXTRAS: usize = 4;
const EXTRA_BYTES: usize = 16;

impl Profile {
    /// A name in any spelling.
    #[must_use]
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let text = text.strip_prefix("mig ").unwrap_or(&text);
        let end = text.find(['+', '-']).unwrap_or(text.len());
        let (sizes, extras) = text.split_at_checked(end)?;
        let mut parts = sizes.split('.').peekable();
        let compute = parts.peek().copied().and_then(|part| number(part, "c"));
        if compute.is_some() {
            parts.next();
        }
        let gpu = number(parts.next()?, "g")?;
        let gigabytes = number(parts.next()?, "gb")?;
        let fits = compute.is_none_or(|compute| compute <= gpu);
        if parts.next().is_some() || !fits {
            return None;
        }
        Some(Self {
            compute: compute.filter(|compute| *compute < gpu),
            gpu,
            gigabytes: u64::from(gigabytes),
            extras: split_extras(extras)?,
        })
    }

    /// By sizes. What sets it apart from others of its size cannot be known this way.
    #[must_use]
    pub(super) fn of_sizes(slices: Slices) -> Option<Self> {
        if slices.gpu == 0 {
            return None;
        }
        Some(Self {
            compute: Some(slices.compute).filter(|compute| (1..slices.gpu).contains(compute)),
            gpu: slices.gpu,
            gigabytes: gigabytes(slices.memory_mib, slices.of_mib)?,
            extras: Vec::new(),
        })
    }

    /// The profile at the end of a MIG device's name, e.g. `1g.10gb` of `NVIDIA A100-SXM4-80GB MIG 1g.10gb`.
    #[must_use]
    pub(super) fn of_device(name: &str) -> Option<Self> {
        let (_, profile) = name.rsplit_once(" MIG ")?;
        Self::parse(profile)
    }

    /// A device on a GPU instance of this profile, of which `device` says how much it has.
    #[must_use]
    pub(super) fn with_compute_of(self, device: Option<&Self>) -> Self {
        let compute = device.and_then(|device| device.compute);
        Self {
            compute: compute.filter(|compute| *compute < self.gpu),
            ..self
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(compute) = self.compute {
            write!(f, "{compute}c.")?;
        }
        write!(f, "{}g.{}gb", self.gpu, self.gigabytes)?;
        self.extras.iter().try_for_each(|extra| f.write_str(extra))
    }
}

/// As NVIDIA's tools round: to eighths of the GPU, of which the whole GB count. 40,192 of 81,920 MiB are called 40gb.
fn gigabytes(memory_mib: u64, of_mib: u64) -> Option<u64> {
    let eighths = memory_mib
        .checked_mul(8)?
        .checked_add(of_mib.checked_sub(1)?)?
        / of_mib;
    let of = of_mib.div_ceil(1024);
    let rounded = (eighths.min(8) * of + 4) / 8;
    (rounded > 0).then_some(rounded)
}

/// `3g`: 3. Neither 0 nor a sign nor a leading 0 makes a number.
fn number(part: &str, unit: &str) -> Option<u32> {
    let digits = part.strip_suffix(unit)?;
    let plain = digits.len() <= 4 && digits.bytes().all(|b| b.is_ascii_digit());
    if !plain || digits.starts_with('0') {
        return None;
    }
    digits.parse().ok()
}

/// `+me,gfx-x`: `+me`, `+gfx`, `-x`.
fn split_extras(mut text: &str) -> Option<Vec<String>> {
    let mut extras = Vec::new();
    while let Some(sign) = text.chars().next() {
        let rest = text.strip_prefix(['+', '-'])?;
        let end = rest.find(['+', '-']).unwrap_or(rest.len());
        let (names, next) = rest.split_at_checked(end)?;
        for name in names.split(',') {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'.';
            let ends = name.starts_with('.') || name.ends_with('.');
            if name.is_empty() || ends || name.len() > EXTRA_BYTES || !name.bytes().all(plain) {
                return None;
            }
            extras.push(format!("{sign}{name}"));
        }
        text = next;
    }
    (extras.len() <= EXTRAS).then_some(extras)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> Option<String> {
        Profile::parse(text).map(|profile| profile.to_string())
    }

    #[test]
    fn every_spelling_of_a_profile_is_one_name() {
        for (text, name) in [
            ("1g.10gb", Some("1g.10gb")),
            ("MIG 1g.10gb", Some("1g.10gb")),
            ("1c.2g.20gb", Some("1c.2g.20gb")),
            ("2c.2g.20gb", Some("2g.20gb")),
            ("1g.10gb+me", Some("1g.10gb+me")),
            ("MIG 1g.24gb+me.all", Some("1g.24gb+me.all")),
            ("4g.96gb+gfx", Some("4g.96gb+gfx")),
            ("2g.48gb-me", Some("2g.48gb-me")),
            ("1c.2g.48gb+ME.ALL", Some("1c.2g.48gb+me.all")),
            ("1g.24gb+me,gfx", Some("1g.24gb+me+gfx")),
            ("7g.141gb", Some("7g.141gb")),
            ("3c.2g.20gb", None),
            ("g.gb", None),
            ("0g.10gb", None),
            ("1g.010gb", None),
            ("1g.10gb+", None),
            ("1g.10gb+me,", None),
            ("1g.10gb+../x", None),
            ("1g.10gb/../x", None),
            ("1g.10gb.1", None),
            ("-me", None),
            ("", None),
        ] {
            assert_eq!(canonical(text).as_deref(), name, "{text}");
        }
    }

    #[test]
    fn devices_names_end_with_the_profile() {
        let name = |text| Profile::of_device(text).map(|profile| profile.to_string());
        for (text, profile) in [
            ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", Some("1g.10gb")),
            ("NVIDIA H100 80GB HBM3 MIG 1c.3g.40gb", Some("1c.3g.40gb")),
            ("NVIDIA A100-SXM4-40GB MIG 1g.5gb+me", Some("1g.5gb+me")),
            ("NVIDIA A100-SXM4-80GB", None),
            ("NVIDIA X MIG g.gb", None),
        ] {
            assert_eq!(name(text).as_deref(), profile, "{text}");
        }
    }

    #[test]
    fn sizes_are_rounded_as_nvidia_rounds_them() {
        let name = |gpu, compute, memory_mib, of_mib| {
            let slices = Slices {
                gpu,
                compute,
                memory_mib,
                of_mib,
            };
            Profile::of_sizes(slices).map(|profile| profile.to_string())
        };
        for (gpu, compute, memory_mib, of_mib, expected) in [
            (1, 1, 9_728, 81_920, "1g.10gb"),
            (3, 3, 40_192, 81_920, "3g.40gb"),
            (7, 7, 80_896, 81_920, "7g.80gb"),
            (2, 1, 20_096, 81_559, "1c.2g.20gb"),
            (1, 1, 4_864, 40_960, "1g.5gb"),
            (3, 3, 20_096, 40_960, "3g.20gb"),
            (1, 1, 5_952, 24_576, "1g.6gb"),
            (1, 1, 16_384, 143_771, "1g.18gb"),
        ] {
            assert_eq!(
                name(gpu, compute, memory_mib, of_mib).as_deref(),
                Some(expected)
            );
        }
        assert_eq!(name(0, 0, 9_728, 81_920), None);
        assert_eq!(name(1, 1, 0, 81_920), None);
        assert_eq!(name(1, 1, 9_728, 0), None);
        assert_eq!(name(1, 1, u64::MAX, 81_920), None);
    }

    /// What the instance is called counts, and the device says which part of it it has.
    #[test]
    fn an_instances_profile_and_a_devices_part_of_it_make_its_name() {
        let name = |instance: &str, device: &str| {
            let device = Profile::parse(device);
            let instance = Profile::parse(instance).unwrap();
            instance.with_compute_of(device.as_ref()).to_string()
        };
        assert_eq!(name("MIG 1g.10gb+me", "1g.10gb"), "1g.10gb+me");
        assert_eq!(
            name("MIG 2g.48gb+me.all", "1c.2g.48gb"),
            "1c.2g.48gb+me.all"
        );
        assert_eq!(name("MIG 2g.20gb", ""), "2g.20gb");
        assert_eq!(name("MIG 1g.20gb", "2c.3g.40gb"), "1g.20gb");
    }

    proptest! {
        /// A name is read as it is written, and reading never panics.
        #[test]
        fn names_survive_a_round_trip(
            compute in prop::option::of(1_u32..8),
            gpu in 1_u32..9,
            gigabytes in 1_u64..1000,
            extras in prop::collection::vec("[+-](me|me\\.all|gfx|x2)", 0..3),
            noise in ".{0,24}",
        ) {
            let profile = Profile {
                compute: compute.filter(|compute| *compute < gpu),
                gpu,
                gigabytes,
                extras,
            };
            let text = profile.to_string();
            prop_assert_eq!(Profile::parse(&text), Some(profile.clone()));
            let device = format!("NVIDIA X MIG {}", text.to_ascii_uppercase());
            prop_assert_eq!(Profile::of_device(&device), Some(profile));
            if let Some(name) = canonical(&noise) {
                prop_assert_eq!(canonical(&name), Some(name));
            }
        }
    }
}
