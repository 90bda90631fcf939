//! Tenants: who is limited, and how portals name and number them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::enforcement::Enforcement;
use crate::id::{Code, DisplayName, ProjectId, TenantName, TenantNumber, Timestamp};
use crate::settings::LeaseMode;

/// Projects of one tenant at most.
pub const MOST_PROJECTS: usize = 1024;

/// What the operator says of a tenant; the whole of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantProfile {
    /// Its name.
    pub tenant: TenantName,
    /// Its number in portals.
    pub number: TenantNumber,
    /// Its name for people; its own name when nobody gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<DisplayName>,
    /// Its code in portals; its own name when nobody gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Its projects; each belongs to one tenant.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub projects: BTreeSet<ProjectId>,
    /// Nothing new is granted to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
    /// While it has dedicated nodes it is granted nothing elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confined: bool,
    /// Whether it needs leases; `None`: its region says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_mode: Option<LeaseMode>,
    /// What agents do about what it holds beyond its right; `None`: its region says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
}

impl TenantProfile {
    /// A tenant of whom nobody said anything but its name.
    #[must_use]
    pub fn new(tenant: TenantName, number: TenantNumber) -> Self {
        Self {
            tenant,
            number,
            display_name: None,
            code: None,
            projects: BTreeSet::new(),
            frozen: false,
            confined: false,
            lease_mode: None,
            enforcement: None,
        }
    }

    /// Its name for people.
    #[must_use]
    pub fn display_name(&self) -> &str {
        self.display_name
            .as_ref()
            .map_or(self.tenant.as_str(), DisplayName::as_str)
    }

    /// Its code in portals.
    #[must_use]
    pub fn code(&self) -> &str {
        self.code
            .as_ref()
            .map_or(self.tenant.as_str(), Code::as_str)
    }
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Order of creation: 1, 2, 3, …
    pub order: u64,
    /// What the operator says of it.
    pub profile: TenantProfile,
    /// When it became known.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}
