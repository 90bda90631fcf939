//! Where nodes belong: regions and their sites, resource groups, kinds of dedicated hosts; and how much of a node one
//! tenant may have.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::enforcement::Enforcement;
use crate::id::{
    DisplayName, GroupName, HardwareName, HostResourceName, ProjectId, Region, ResourceKind,
    SiteId, TenantName,
};
use crate::limit::Limit;
use crate::settings::LeaseMode;

/// A region that the operator described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionProfile {
    /// Its name.
    pub region: Region,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<DisplayName>,
    /// The site it is part of; a region without one is part of the central site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteId>,
    /// Whether leases are needed there; `None`: the settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_mode: Option<LeaseMode>,
    /// What agents do there about what the ledger does not justify; `None`: the settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
}

/// A resource group that the operator described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceGroup {
    /// Its name.
    pub group: GroupName,
    /// Longest run of a job, seconds; `None` is unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_time_s: Option<u64>,
    /// Who may use it; `None` is everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<BTreeSet<TenantName>>,
}

/// Make of an accelerator card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// NVIDIA.
    Gpu,
    /// Hygon.
    Dcu,
    /// Cambricon.
    Mlu,
}

impl Accelerator {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Gpu, Self::Dcu, Self::Mlu];

    /// The word of the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Dcu => "dcu",
            Self::Mlu => "mlu",
        }
    }
}

impl std::str::FromStr for Accelerator {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|accelerator| text.eq_ignore_ascii_case(accelerator.as_str()))
            .ok_or(())
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which per-node card limit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardLimitKey {
    /// On nodes of which group.
    pub group: GroupName,
    /// For whom; `None` is everybody without a limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantName>,
    /// Of which cards.
    pub accelerator: Accelerator,
}

/// A kind of dedicated host: nodes of these resource groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostResource {
    /// What the portal calls it.
    pub resource: HostResourceName,
    /// Groups whose nodes are such hosts.
    pub groups: BTreeSet<GroupName>,
}

/// How many hosts of a kind may be bound to a tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostLimitKey {
    /// Whose.
    pub tenant: TenantName,
    /// Of which kind.
    pub resource: HostResourceName,
}

/// What the operator says is in a node, shown until its agent says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// Logical CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<u32>,
    /// Main memory, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Product of its GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_product: Option<HardwareName>,
    /// How many GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
}

/// Another system said what it counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CounterSet {
    /// Whose.
    pub project: ProjectId,
    /// At which site; `None` is the central one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteId>,
    /// Of what.
    pub kind: ResourceKind,
    /// The figures; `None` forgets them.
    pub counter: Option<Counter>,
}

/// A project's resource that its own system counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counter {
    /// What it may use; `None` when its system did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Limit>,
    /// What it uses; `None` when its system did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u32>,
    /// Unit of both, e.g. `GB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<DisplayName>,
}
