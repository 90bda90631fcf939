//! Ghosts: devices that are leased and that nothing runs on, the opposite of a squatter.

use crate::device::DeviceKey;
use crate::id::{NodeName, Timestamp};
use crate::lease::Lease;
use crate::state::State;

/// A leased device that has stood idle for longer than the settings allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ghost<'a> {
    /// Its lease.
    pub lease: &'a Lease,
    /// What stands idle.
    pub device: &'a DeviceKey,
    /// Where.
    pub node: &'a NodeName,
    /// Since when it has been leased and idle.
    pub since: Timestamp,
}

/// All of them at `now`, by lease. What is not known is no ghost: the device of a node that is not heard or has not settled, one that cannot
/// be read, one that somebody unknown holds.
pub fn ghosts(state: &State, now: Timestamp) -> impl Iterator<Item = Ghost<'_>> {
    let latest = now.before(state.settings().ghost_after_ms);
    let active = state.live_leases().filter(|lease| lease.active());
    let devices = active.flat_map(|lease| lease.occupied().map(move |(key, _)| (lease, key)));
    devices.filter_map(move |(lease, key)| {
        let device = state.device(key)?;
        let told = state.node(&device.node)?.told();
        let readable = device.report.readable();
        let since = device.idle_since?.max(lease.granted_at);
        let idle = told && readable && !device.report.unattributed && since < latest;
        idle.then_some(Ghost {
            lease,
            device: key,
            node: &device.node,
            since,
        })
    })
}
