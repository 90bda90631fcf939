//! The model catalogue: which hardware or vGPU type is which `gpu_model`, and which other names mean the same.
//!
//! Without an entry the agent's word counts: `nvidia.com/gpu`, `nvidia.com/mig-PROFILE`, the vGPU type's name.

use std::collections::BTreeSet;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::device::{DeviceKind, DeviceReport};
use crate::id::{GpuModel, HardwareName};
use crate::profile::{CanonicalModel, implied_type};
use crate::quota::QuotaType;

/// Names in one entry at most.
pub const MOST_NAMES: usize = 256;

/// One `gpu_model` of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    /// What quotas call it.
    pub gpu_model: GpuModel,
    /// Type of a quota for it that does not say its own (dialects D1.6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_type: Option<QuotaType>,
    /// Other names for it in quotas.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub aliases: BTreeSet<GpuModel>,
    /// Products or vGPU types, as NVML names them, that are this model.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hardware: BTreeSet<HardwareName>,
    /// MIG profile that is this model, on `hardware` or, where that is empty, anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<GpuModel>,
}

impl ModelEntry {
    /// What in this entry `other` claims too; `None` when both can stand.
    #[must_use]
    pub fn clash(&self, other: &Self) -> Option<String> {
        let names = |entry: &Self| -> BTreeSet<CanonicalModel> {
            let own = std::iter::once(&entry.gpu_model);
            own.chain(&entry.aliases).map(CanonicalModel::of).collect()
        };
        if !names(self).is_disjoint(&names(other)) {
            return Some("a name".into());
        }
        let profile = |entry: &Self| entry.profile.as_ref().map(CanonicalModel::of);
        if profile(self) != profile(other) {
            return None;
        }
        let both_anywhere =
            self.profile.is_some() && self.hardware.is_empty() && other.hardware.is_empty();
        let shared = self.hardware.intersection(&other.hardware).next();
        match (shared, both_anywhere) {
            (Some(hardware), _) => Some(format!("the hardware {hardware}")),
            (None, true) => Some("the MIG profile".into()),
            (None, false) => None,
        }
    }

    fn fits(&self, report: &DeviceReport) -> bool {
        let named = self
            .hardware
            .iter()
            .any(|hardware| hardware.as_str() == report.model);
        match (&self.profile, &report.profile) {
            (Some(wanted), Some(profile)) => {
                let same = GpuModel::new(profile)
                    .is_ok_and(|it| CanonicalModel::of(&it) == CanonicalModel::of(wanted));
                same && (named || self.hardware.is_empty())
            }
            (None, _) => named && report.key.kind() != DeviceKind::Mig,
            (Some(_), None) => false,
        }
    }
}

/// All entries, with their names looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    entries: OrdMap<GpuModel, ModelEntry>,
    names: OrdMap<CanonicalModel, GpuModel>,
}

impl Catalogue {
    /// From the ledger's rows.
    #[must_use]
    pub(crate) fn of(entries: &OrdMap<GpuModel, ModelEntry>) -> Self {
        let mut names = OrdMap::new();
        for entry in entries.values() {
            names.insert(
                CanonicalModel::of(&entry.gpu_model),
                entry.gpu_model.clone(),
            );
            for alias in &entry.aliases {
                names.insert(CanonicalModel::of(alias), entry.gpu_model.clone());
            }
        }
        Self {
            entries: entries.clone(),
            names,
        }
    }

    /// The entry that a name means.
    #[must_use]
    pub fn entry(&self, model: &GpuModel) -> Option<&ModelEntry> {
        self.entries
            .get(self.names.get(&CanonicalModel::of(model))?)
    }

    /// The model that a quota's name means.
    #[must_use]
    pub fn canonical(&self, model: &GpuModel) -> CanonicalModel {
        let entry = self.entry(model);
        CanonicalModel::of(entry.map_or(model, |entry| &entry.gpu_model))
    }

    /// The model that a device is: what the catalogue says of its hardware, else what its agent calls it.
    #[must_use]
    pub fn of_device(&self, report: &DeviceReport) -> CanonicalModel {
        let fitting = |entry: &&ModelEntry| entry.fits(report);
        // An entry that names the hardware says more than one for a profile anywhere.
        let entry = self
            .entries
            .values()
            .filter(fitting)
            .min_by_key(|entry| entry.hardware.is_empty());
        match entry {
            Some(entry) => CanonicalModel::of(&entry.gpu_model),
            None => self.canonical(&report.gpu_model),
        }
    }

    /// Type of a quota for this model that does not say its own.
    #[must_use]
    pub fn implied_type(&self, model: &GpuModel) -> QuotaType {
        let said = self.entry(model).and_then(|entry| entry.quota_type);
        said.unwrap_or_else(|| implied_type(model))
    }
}
