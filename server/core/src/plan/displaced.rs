//! Others on nodes that are to serve one tenant alone.

use super::{Activity, Target};
use crate::id::{TenantName, Timestamp};

/// A lease of another tenant, or a device that one holds without a lease, on nodes that are to be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Displaced {
    /// Whose; for administrators only.
    pub tenant: TenantName,
    /// What.
    pub what: Target,
    /// Whether it is used.
    pub activity: Activity,
    /// Granted, or held, since.
    pub since: Timestamp,
    /// From then on the lease is to end; `None` for what is held without one, which the ledger cannot end.
    pub until: Option<Timestamp>,
}
