//! Model names: one device must match a quota however the operator spelled its MIG profile.
//!
//! `1g.10gb`, `nvidia.com/mig-1g.10gb`, `mig-1g.10gb.me`, `1g.10gb+me` and the loose `mig-1c10g` are read into the same
//! canonical text; what is no profile stays as written. An unreadable MIG name therefore matches no device: it admits
//! nothing and is still shown.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::GpuModel;
use crate::quota::QuotaType;

const RESOURCE_DOMAIN: &str = "nvidia.com/";
const FULL_GPU: &str = "nvidia.com/gpu";

/// Two spellings of the same model are equal here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CanonicalModel(String);

impl CanonicalModel {
    /// The text that all spellings of it are read into.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The model that a spelling means.
    #[must_use]
    pub fn of(model: &GpuModel) -> Self {
        let text = model.as_str();
        let bare = text.strip_prefix(RESOURCE_DOMAIN).unwrap_or(text);
        let profile = bare.strip_prefix("mig-").unwrap_or(bare);
        match MigProfile::parse(profile) {
            Some(profile) => Self(format!("mig-{profile}")),
            None => Self(text.to_owned()),
        }
    }
}

/// The quota type that a model name alone implies (dialects D1.6).
#[must_use]
pub fn implied_type(model: &GpuModel) -> QuotaType {
    let text = model.as_str();
    if text == FULL_GPU {
        QuotaType::Flexible
    } else if text.starts_with("nvidia.com/mig-") {
        QuotaType::Mig
    } else {
        QuotaType::Vgpu
    }
}

/// `[Nc.]Ng.Mgb[+attribute]`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MigProfile {
    compute: Option<u32>,
    slices: u32,
    memory_gb: u32,
    attribute: Option<String>,
}

impl MigProfile {
    fn parse(text: &str) -> Option<Self> {
        if let Some(loose) = Self::parse_loose(text) {
            return Some(loose);
        }
        let (body, attribute) = match text.split_once('+') {
            Some((body, attribute)) => (body, Some(attribute)),
            None => match text.find("gb.") {
                // The device plugin writes `.` where NVML writes `+`.
                Some(at) => (text.get(..at + 2)?, Some(text.get(at + 3..)?)),
                None => (text, None),
            },
        };
        let attribute = match attribute {
            None => None,
            Some(name @ ("me" | "me.all" | "gfx")) => Some(name.to_owned()),
            Some(_) => return None,
        };
        let mut parts = body.split('.');
        let mut part = parts.next()?;
        let compute = match part.strip_suffix('c') {
            Some(number) => {
                part = parts.next()?;
                Some(count(number)?)
            }
            None => None,
        };
        let slices = count(part.strip_suffix('g')?)?;
        let memory_gb = count(parts.next()?.strip_suffix("gb")?)?;
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            // A compute instance of all slices is the plain profile.
            compute: compute.filter(|compute| *compute != slices),
            slices,
            memory_gb,
            attribute,
        })
    }

    // `1c10g`: compute slices and gigabytes, as some portals write it.
    fn parse_loose(text: &str) -> Option<Self> {
        let (slices, memory) = text.split_once('c')?;
        Some(Self {
            compute: None,
            slices: count(slices)?,
            memory_gb: count(memory.strip_suffix('g')?)?,
            attribute: None,
        })
    }
}

impl fmt::Display for MigProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(compute) = self.compute {
            write!(f, "{compute}c.")?;
        }
        write!(f, "{}g.{}gb", self.slices, self.memory_gb)?;
        match &self.attribute {
            Some(attribute) => write!(f, "+{attribute}"),
            None => Ok(()),
        }
    }
}

fn count(text: &str) -> Option<u32> {
    (1..=3).contains(&text.len()).then_some(())?;
    text.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
    text.parse().ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> CanonicalModel {
        CanonicalModel::of(&GpuModel::new(text).unwrap())
    }

    #[test]
    fn spellings_of_one_profile_agree() {
        for text in [
            "1g.10gb",
            "mig-1g.10gb",
            "nvidia.com/mig-1g.10gb",
            "nvidia.com/mig-1c10g",
            "1c.1g.10gb",
        ] {
            assert_eq!(canonical(text), canonical("1g.10gb"), "{text}");
        }
        assert_eq!(
            canonical("nvidia.com/mig-1g.10gb.me"),
            canonical("1g.10gb+me")
        );
        assert_eq!(canonical("1g.10gb+me.all"), canonical("mig-1g.10gb.me.all"));
        for other in [
            "2g.10gb",
            "1g.20gb",
            "1g.10gb+me",
            "1c.2g.20gb",
            "1g.10gb+xx",
            "nvidia.com/mig-1g",
        ] {
            assert_ne!(canonical(other), canonical("1g.10gb"), "{other}");
        }
        assert_ne!(canonical("nvidia.com/gpu"), canonical("gpu"));
    }

    #[test]
    fn the_type_follows_from_the_name() {
        let implied = |text| implied_type(&GpuModel::new(text).unwrap());
        assert_eq!(implied("nvidia.com/gpu"), QuotaType::Flexible);
        assert_eq!(implied("nvidia.com/mig-1c10g"), QuotaType::Mig);
        assert_eq!(implied("tyui-3"), QuotaType::Vgpu);
    }

    proptest! {
        #[test]
        fn any_text_has_a_stable_canonical_form(text in "[0-9cg.b+me/-]{1,24}|\\PC{1,20}") {
            if let Ok(model) = GpuModel::new(&text) {
                let once = CanonicalModel::of(&model);
                if let Ok(again) = GpuModel::new(&once.0) {
                    prop_assert_eq!(CanonicalModel::of(&again), once);
                }
            }
        }
    }
}
