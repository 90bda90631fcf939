//! Licence quotas: how many licences of a software product a tenant may use, and seats.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::id::{
    Code, DisplayName, HardwareName, LicenceQuotaId, ProductId, SeatId, Seq, TenantName, Timestamp,
};

/// Seats of one tenant at most, whatever its quotas grant.
pub const MOST_SEATS: usize = 10_000;

/// vGPU types of one product at most.
pub const MOST_TYPES: usize = 256;

/// A software product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// Its number in portals.
    pub id: ProductId,
    /// Its name for people.
    pub name: DisplayName,
    /// Its code in portals.
    pub code: Code,
    /// vGPU types whose instances use a licence of it; `*` at one end stands for anything.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub vgpu_types: BTreeSet<HardwareName>,
}

impl Product {
    /// Whether an instance of this vGPU type needs a licence of it.
    #[must_use]
    pub fn licenses(&self, vgpu_type: &str) -> bool {
        self.vgpu_types.iter().any(|pattern| {
            let pattern = pattern.as_str();
            match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
                (Some(end), _) => vgpu_type.ends_with(end),
                (None, Some(start)) => vgpu_type.starts_with(start),
                (None, None) => vgpu_type == pattern,
            }
        })
    }
}

/// What a licence quota entitles to; the body of its event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LicenceTerms {
    /// Our number of the quota.
    pub quota: LicenceQuotaId,
    /// Whose.
    pub tenant: TenantName,
    /// Of what.
    pub product: ProductId,
    /// How many licences, 0..=2147483647.
    pub max: u32,
    /// From then on it grants nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Switched on; a quota that is not grants nothing.
    pub is_active: bool,
}

/// A licence quota.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicenceQuota {
    /// What it entitles to.
    pub terms: LicenceTerms,
    /// Its end has been reached.
    pub expired: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// The journal's row that changed it last: its generation.
    pub changed: Seq,
}

impl LicenceQuota {
    /// Licences that it lets the tenant use now.
    #[must_use]
    pub fn grants(&self) -> u32 {
        if self.counts() { self.terms.max } else { 0 }
    }

    /// It is switched on and has not ended.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.terms.is_active && !self.expired
    }
}

/// A licence that somebody checked out, until it is given back or ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seat {
    /// Our number.
    pub seat: SeatId,
    /// Against whose quota.
    pub tenant: TenantName,
    /// Of what.
    pub product: ProductId,
    /// Who has it: a user, a host, a job, as the caller names it.
    pub owner: DisplayName,
    /// When it ends unless it is renewed.
    pub expires_at: Timestamp,
}
