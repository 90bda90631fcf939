//! What the devices of a lease were called when it was granted, so that it is shown alike for ever.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::device::{DeviceKey, DeviceReport};

/// What devices of a lease were called when it was granted, whatever became of them since.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeasedMake {
    /// Product, or vGPU type, as NVML gave it.
    pub model: String,
    /// MIG profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Which devices; none is all of the lease, as they are where nothing is mixed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub devices: BTreeSet<DeviceKey>,
}

impl LeasedMake {
    /// What these devices are called, ascending.
    #[must_use]
    pub(crate) fn of<'a>(reports: impl Iterator<Item = &'a DeviceReport>) -> Vec<Self> {
        let mut makes: BTreeMap<(&str, Option<&str>), BTreeSet<&DeviceKey>> = BTreeMap::new();
        for report in reports {
            let make = (report.model.as_str(), report.profile.as_deref());
            makes.entry(make).or_default().insert(&report.key);
        }
        let mixed = makes.len() > 1;
        let make =
            |((model, profile), devices): ((&str, Option<&str>), BTreeSet<&DeviceKey>)| Self {
                model: model.to_owned(),
                profile: profile.map(ToOwned::to_owned),
                devices: devices.into_iter().filter(|_| mixed).cloned().collect(),
            };
        makes.into_iter().map(make).collect()
    }
}
