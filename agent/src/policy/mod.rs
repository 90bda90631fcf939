//! What the ledger lets tenants hold on this node, as the server said it last. Pure.

mod convert;
mod held;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::observation::DeviceKey;

pub use convert::BadPolicy;
pub use held::{Held, Standing};

/// Which of two policies is the newer one: the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// How often the ledger was put back from a backup.
    pub incarnation: u64,
    /// The journal's row at which it became what it is.
    pub row: u64,
}

/// How far the agent may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Rows and metrics.
    #[default]
    Observe,
    /// And people are told.
    Warn,
    /// And new opens of the device are denied.
    Restrict,
    /// And its processes there are ended.
    Evict,
}

impl Mode {
    /// The word of configuration and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Warn => "warn",
            Self::Restrict => "restrict",
            Self::Evict => "evict",
        }
    }
}

/// How far, and how slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ladder {
    /// The highest rung.
    pub mode: Mode,
    /// From when the agent first saw it to the first step above a warning, milliseconds.
    pub grace_ms: u64,
    /// From SIGTERM to SIGKILL, milliseconds.
    pub term_grace_ms: u64,
}

/// Why the ledger does not justify a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// No quota fits, or no lease where one is required.
    Squatter,
    /// The node is dedicated to another tenant, or the device leased to one.
    Foreign,
    /// More than the quotas that fit.
    OverQuota,
    /// More cards of this node than the tenant may have.
    OverNodeLimit,
    /// Nobody that the rules know.
    Unattributed,
    /// Leased, and nothing runs there.
    Ghost,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Squatter,
        Self::Foreign,
        Self::OverQuota,
        Self::OverNodeLimit,
        Self::Unattributed,
        Self::Ghost,
    ];

    /// The word of metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Squatter => "squatter",
            Self::Foreign => "foreign",
            Self::OverQuota => "over_quota",
            Self::OverNodeLimit => "over_node_limit",
            Self::Unattributed => "unattributed",
            Self::Ghost => "ghost",
        }
    }
}

/// A tenant, or nobody that the rules know, on a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whom {
    /// The tenant; `None`: nobody that the rules know.
    pub tenant: Option<String>,
    /// What it holds.
    pub device: DeviceKey,
}

/// What the ledger says of a holder that it does not justify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why.
    pub class: Class,
    /// What may be done about it now.
    pub ladder: Ladder,
    /// Why no more; empty: nothing is held back.
    pub held: String,
}

/// Only some may hold a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Those.
    pub only: BTreeSet<String>,
    /// What anyone else is.
    pub otherwise: Class,
}

/// An active lease with devices of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Fencing epoch.
    pub epoch: u64,
    /// Whose.
    pub tenant: String,
    /// Its devices here.
    pub devices: BTreeSet<DeviceKey>,
    /// When it ends, milliseconds after the policy came; `None`: no end.
    pub ends_in_ms: Option<u64>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Which.
    pub version: Version,
    /// How long it may be followed without the server, milliseconds.
    pub valid_for_ms: u64,
    /// Devices that only some may hold.
    pub rules: BTreeMap<DeviceKey, Rule>,
    /// Cards of this node that a tenant may hold at most.
    pub cards: BTreeMap<String, u32>,
    /// Leases by number.
    pub grants: BTreeMap<u64, Grant>,
    /// Holders that are not justified; of several reasons the one that allows most.
    pub verdicts: BTreeMap<Whom, Verdict>,
    /// Whose restrictions stay.
    pub denials: BTreeSet<Whom>,
    /// What to do about processes of nobody.
    pub unattributed: Ladder,
    /// How far to go about them when nothing lowers it for a while.
    pub unattributed_chosen: Mode,
    /// About a tenant that a rule keeps off, before there is a verdict.
    pub others: Ladder,
}

impl Policy {
    /// How far to go against this holder; `None`: there is no verdict on it.
    #[must_use]
    pub fn ladder(&self, whom: &Whom) -> Option<Ladder> {
        match whom.tenant {
            None => Some(self.unattributed),
            Some(_) => self.verdicts.get(whom).map(|verdict| verdict.ladder),
        }
    }
}
