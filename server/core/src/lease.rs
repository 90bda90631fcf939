//! Leases: devices promised to a tenant for a time.

mod make;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::device::DeviceKey;
use crate::id::{
    DisplayName, Epoch, GpuModel, LabelName, LeaseId, NodeName, ProjectId, Region, Seq, TenantName,
    Timestamp,
};
use crate::mutant::{Mutant, planted};
use crate::profile::CanonicalModel;
use crate::quota::{QuotaSource, QuotaType};
use crate::state::Group;

pub use make::LeasedMake;

/// Devices of one lease at most.
pub const MOST_LEASED: u32 = 4096;
/// Labels of one lease at most.
pub const MOST_LABELS: usize = 32;
/// Labels whose names begin so are not the caller's: servers write them.
pub const OWN_LABELS: &str = "gpuquota/";
/// Ended leases that are still shown; the journal has them all.
pub const MOST_ENDED: usize = 10_000;

/// Whether a lease names its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeasePlacement {
    /// Devices are chosen and are the tenant's alone.
    Devices,
    /// A number only, checked against limits; another system chooses the devices.
    CountOnly,
}

impl LeasePlacement {
    /// The word of the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::CountOnly => "count_only",
        }
    }
}

impl std::str::FromStr for LeasePlacement {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "devices" => Ok(Self::Devices),
            "count_only" => Ok(Self::CountOnly),
            _ => Err(()),
        }
    }
}

/// What was asked for, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseTerms {
    /// Whose it is.
    pub tenant: TenantName,
    /// Where.
    pub region: Region,
    /// Which model, as the caller spelled it.
    pub gpu_model: GpuModel,
    /// Quotas of which type it is charged to.
    #[serde(rename = "type")]
    pub quota_type: QuotaType,
    /// Devices, 1..=[`MOST_LEASED`].
    pub count: u32,
    /// Whether it names them.
    pub placement: LeasePlacement,
    /// For which project of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
    /// Logical CPUs that go with it on each of its nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<u32>,
    /// Main memory that goes with it on each of its nodes, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// The caller's own words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<LabelName, DisplayName>,
}

/// Why a lease is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Given back.
    Released,
    /// An administrator took it away at once.
    Forced,
    /// Its time ran out.
    Expired,
    /// Its quota became too small for it, or its node went to another tenant, and the notice ran out.
    Drained,
    /// Its node was retired.
    NodeRetired,
    /// Its device was taken from its node.
    DeviceMoved,
}

impl EndReason {
    /// The word of the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Forced => "forced",
            Self::Expired => "expired",
            Self::Drained => "drained",
            Self::NodeRetired => "node_retired",
            Self::DeviceMoved => "device_moved",
        }
    }
}

/// Why a device of an ended lease was never seen free of the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unconfirmed {
    /// At the deadline the tenant, or somebody unknown, still held it.
    StillHeld,
    /// At the deadline it was known to be free of the tenant, but no reading had shown it after the lease was to end.
    NeverConfirmed,
    /// At the deadline the device could not be read.
    Unreadable,
    /// Nobody waited for it.
    Forced,
    /// Its node was retired.
    NodeRetired,
    /// It was taken from its node.
    DeviceMoved,
}

/// Where a lease stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeasePhase {
    /// It counts.
    Active,
    /// It is to end, and is charged until its devices are seen free of the tenant.
    Releasing {
        /// Since when.
        since: Timestamp,
        /// The row that says so; only what is read after that counts. States of earlier versions do not have it, and
        /// their rows are older than any that an agent is told of since.
        #[serde(default)]
        since_row: Seq,
        /// Why.
        reason: EndReason,
        /// When waiting ends, unless a node is not heard.
        deadline: Timestamp,
        /// Devices that are still waited for.
        waiting: BTreeSet<DeviceKey>,
        /// Devices that are waited for no more although they were not seen free, and why.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        unconfirmed: BTreeMap<DeviceKey, Unconfirmed>,
    },
    /// It is charged no more.
    Ended {
        /// Since when.
        at: Timestamp,
        /// Why.
        reason: EndReason,
        /// Devices that were never seen free, and why the lease ended nevertheless.
        unconfirmed: BTreeMap<DeviceKey, Unconfirmed>,
    },
}

/// Devices promised to a tenant for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Our number.
    pub id: LeaseId,
    /// What was asked for.
    pub terms: LeaseTerms,
    /// The model it is charged as, whatever its spelling.
    pub model: CanonicalModel,
    /// Source of the quota that had room first when it was granted.
    pub source: QuotaSource,
    /// Its devices and where they were when it was granted; none for a count.
    pub devices: BTreeMap<DeviceKey, NodeName>,
    /// What they were called; none where an earlier version granted it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub makes: Vec<LeasedMake>,
    /// Fencing epoch.
    pub epoch: Epoch,
    /// When it was granted.
    pub granted_at: Timestamp,
    /// From then on it is to end; `None`: it lasts until it is given back.
    pub expires_at: Option<Timestamp>,
    /// From then on it is to end, because a node of it serves another tenant alone by now; `None`: none does, or its tenant
    /// was not told to leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave_by: Option<Timestamp>,
    /// Where it stands.
    pub phase: LeasePhase,
    /// The journal's row that changed it last: its generation.
    #[serde(default)]
    pub changed: Seq,
}

impl Lease {
    /// What it is a lease of.
    #[must_use]
    pub fn group(&self) -> Group {
        Group {
            region: self.terms.region.clone(),
            quota_type: self.terms.quota_type,
            model: self.model.clone(),
        }
    }

    /// Devices that nobody else may be given because of it.
    pub fn occupied(&self) -> impl Iterator<Item = (&DeviceKey, &NodeName)> {
        self.devices.iter().filter(|(key, _)| match &self.phase {
            LeasePhase::Active => true,
            LeasePhase::Releasing { waiting, .. } => {
                waiting.contains(key) && !planted(Mutant::GrantWhileReleasing)
            }
            LeasePhase::Ended { .. } => false,
        })
    }

    /// Devices that it is charged for without naming them.
    #[must_use]
    pub fn unplaced(&self) -> u64 {
        match (&self.phase, self.terms.placement) {
            (LeasePhase::Active, LeasePlacement::CountOnly) => u64::from(self.terms.count),
            // Nothing can be seen of a count, so it ends when it is given back.
            (
                LeasePhase::Releasing { .. } | LeasePhase::Ended { .. },
                LeasePlacement::CountOnly,
            )
            | (_, LeasePlacement::Devices) => 0,
        }
    }

    /// When it ends by itself, or begins to; `None`: not before somebody ends it.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        match &self.phase {
            LeasePhase::Active => self.expires_at.into_iter().chain(self.leave_by).min(),
            LeasePhase::Releasing { deadline, .. } => Some(*deadline),
            LeasePhase::Ended { .. } => None,
        }
    }

    /// Whether it is charged.
    #[must_use]
    pub fn live(&self) -> bool {
        match self.phase {
            LeasePhase::Active | LeasePhase::Releasing { .. } => true,
            LeasePhase::Ended { .. } => false,
        }
    }

    /// Whether it may be used.
    #[must_use]
    pub fn active(&self) -> bool {
        match self.phase {
            LeasePhase::Active => true,
            LeasePhase::Releasing { .. } | LeasePhase::Ended { .. } => false,
        }
    }

    /// The word of the wire for where it stands.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self.phase {
            LeasePhase::Active => "active",
            LeasePhase::Releasing { .. } => "releasing",
            LeasePhase::Ended { .. } => "ended",
        }
    }

    /// As it is once it is to end.
    #[must_use]
    pub(crate) fn releasing(
        &self,
        since: Timestamp,
        since_row: Seq,
        reason: EndReason,
        deadline: Timestamp,
    ) -> Self {
        Self {
            phase: LeasePhase::Releasing {
                since,
                since_row,
                reason,
                deadline,
                waiting: self.devices.keys().cloned().collect(),
                unconfirmed: BTreeMap::new(),
            },
            ..self.clone()
        }
    }

    /// As it is once it is charged no more.
    #[must_use]
    pub(crate) fn ended(
        &self,
        at: Timestamp,
        reason: EndReason,
        unconfirmed: &BTreeMap<DeviceKey, Unconfirmed>,
    ) -> Self {
        let mut all = match &self.phase {
            LeasePhase::Releasing { unconfirmed, .. } => unconfirmed.clone(),
            LeasePhase::Active | LeasePhase::Ended { .. } => BTreeMap::new(),
        };
        all.extend(unconfirmed.iter().map(|(key, why)| (key.clone(), *why)));
        Self {
            phase: LeasePhase::Ended {
                at,
                reason,
                unconfirmed: all,
            },
            ..self.clone()
        }
    }

    /// What one of its devices was called when it was granted; `None` where an earlier version granted it.
    #[must_use]
    pub fn make_of(&self, key: &DeviceKey) -> Option<&LeasedMake> {
        let has = |make: &&LeasedMake| make.devices.is_empty() || make.devices.contains(key);
        self.makes.iter().find(has)
    }

    /// Its nodes.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<&NodeName> {
        self.devices.values().collect()
    }
}
