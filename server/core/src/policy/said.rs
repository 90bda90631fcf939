//! What a policy says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::device::DeviceKey;
use crate::enforcement::{Mode, SaidBy};
use crate::id::{Epoch, LeaseId, QuotaId, TenantName, Timestamp};
use crate::usage::ViolationClass;

/// What the ledger says of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePolicy {
    /// Devices that only some may hold, by device.
    pub rules: Vec<DeviceRule>,
    /// Cards of the node that a tenant may hold at most, by tenant.
    pub cards: BTreeMap<TenantName, u32>,
    /// Active leases with devices of the node.
    pub grants: Vec<Grant>,
    /// Holders that the ledger does not justify, by tenant, device and class.
    pub verdicts: Vec<Verdict>,
    /// Of what agents deny to tenants here, what stays denied: the tenant might not hold it.
    pub denials: BTreeSet<(TenantName, DeviceKey)>,
    /// What to do about processes of nobody.
    pub unattributed: Ladder,
    /// How far to go about them when nothing lowers it for a while: what is denied stays as long as this says so.
    pub unattributed_chosen: Mode,
    /// What to do about a tenant that a rule keeps off, before a verdict comes.
    pub others: Ladder,
    /// How long it holds without being sent again, milliseconds.
    pub valid_for_ms: u64,
    /// When time alone may make another of it; who compares what two say leaves it out.
    pub until: Option<Timestamp>,
}

/// Only these tenants may hold this device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Which.
    pub device: DeviceKey,
    /// Who; nobody where it is empty.
    pub only: BTreeSet<TenantName>,
    /// What anyone else is.
    pub otherwise: ViolationClass,
}

/// An active lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Which.
    pub lease: LeaseId,
    /// Its fencing epoch.
    pub epoch: Epoch,
    /// Whose.
    pub tenant: TenantName,
    /// Its devices on the node.
    pub devices: Vec<DeviceKey>,
    /// When it is to end.
    pub ends_at: Option<Timestamp>,
}

/// How far to go, and how slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ladder {
    /// How far.
    pub mode: Mode,
    /// To the first step above warn, milliseconds.
    pub grace_ms: u64,
    /// From SIGTERM to SIGKILL, milliseconds.
    pub term_grace_ms: u64,
}

/// A holder that the ledger does not justify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Who.
    pub tenant: TenantName,
    /// On what.
    pub device: DeviceKey,
    /// Why.
    pub class: ViolationClass,
    /// How far to go now.
    pub ladder: Ladder,
    /// Why no further.
    pub held: Option<Held>,
    /// The quota that the device counts against.
    pub quota: Option<QuotaId>,
    /// Who said how far to go.
    pub said_by: SaidBy,
}

/// Why a step goes no further than it would otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The node has not said yet what is on it.
    Unsettled,
    /// The device does not answer; who is on it is what was last known.
    Unreadable,
    /// A lease of it is still active.
    Leased(LeaseId),
    /// A notice to leave runs.
    Notice,
    /// A maintenance window is open.
    Window,
    /// Too much at once: it waits for a person.
    Person,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsettled => f.write_str("the node has not said yet what is on it"),
            Self::Unreadable => f.write_str("the device does not answer"),
            Self::Leased(lease) => write!(f, "lease {} of it is still active", lease.0),
            Self::Notice => f.write_str("a notice to leave still runs"),
            Self::Window => f.write_str("a maintenance window is open"),
            Self::Person => {
                f.write_str("too much would happen at once; an admin must confirm the enforcement")
            }
        }
    }
}

impl Held {
    pub(super) fn most(self) -> Mode {
        match self {
            Self::Unsettled => Mode::Observe,
            Self::Unreadable | Self::Leased(_) | Self::Notice | Self::Window | Self::Person => {
                Mode::Warn
            }
        }
    }
}
