//! Nodes that are no more, and GPUs that leave their node. What is leased there ends with a word of why, because nobody
//! will ever see it free.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::Decision;
use crate::device::{DeviceKey, GpuUuid};
use crate::event::Event;
use crate::explain::Denied;
use crate::id::{LeaseId, NodeName, Timestamp};
use crate::lease::{EndReason, Lease, LeasePhase, Unconfirmed};
use crate::node::NodeState;
use crate::state::State;

use super::directory::unknown;
use super::done;

impl State {
    pub(super) fn decide_retire(
        &self,
        name: &NodeName,
        forced: bool,
        now: Timestamp,
    ) -> Result<Decision, Denied> {
        let node = self
            .node(name)
            .ok_or_else(|| unknown("node", name.as_str()))?;
        if node.state == NodeState::Up && !forced {
            return Err(Denied::NodeHeard { node: name.clone() });
        }
        let leases: Vec<&Lease> = self.leases_at(name).collect();
        check_leases(&leases, forced)?;
        let here = |_: &DeviceKey, at: &NodeName| at == name;
        let mut events = Vec::new();
        for lease in leases {
            events.extend(self.cut_lease(
                lease,
                here,
                (EndReason::NodeRetired, Unconfirmed::NodeRetired),
                now,
            ));
        }
        events.push(Event::NodeRetired {
            node: name.clone(),
            barred: true,
        });
        Ok(done(events))
    }

    pub(super) fn decide_forget_gpu(
        &self,
        gpu: &GpuUuid,
        forced: bool,
        now: Timestamp,
    ) -> Result<Decision, Denied> {
        let of_gpu = self
            .devices()
            .filter(|(_, device)| device.report.gpu() == Some(gpu.as_str()));
        let mut by_node: BTreeMap<&NodeName, BTreeSet<DeviceKey>> = BTreeMap::new();
        for (key, device) in of_gpu {
            by_node.entry(&device.node).or_default().insert(key.clone());
        }
        if by_node.is_empty() {
            return Err(unknown("GPU", gpu.as_str()));
        }
        let mut events = Vec::new();
        for (name, devices) in by_node {
            let heard = self.node(name).map(|node| node.state) == Some(NodeState::Up);
            if heard && !forced {
                return Err(Denied::NodeHeard { node: name.clone() });
            }
            let leases = devices.iter().filter_map(|key| self.lease_on(key));
            let ids: BTreeSet<LeaseId> = leases.map(|lease| lease.id).collect();
            let leases: Vec<&Lease> = ids.into_iter().filter_map(|id| self.lease(id)).collect();
            check_leases(&leases, forced)?;
            for lease in leases {
                events.extend(self.cut_lease(
                    lease,
                    |key, _| devices.contains(key),
                    (EndReason::DeviceMoved, Unconfirmed::DeviceMoved),
                    now,
                ));
            }
            events.push(Event::DevicesForgotten {
                node: name.clone(),
                devices,
            });
        }
        Ok(done(events))
    }

    // Ends a lease that loses devices for good; those elsewhere are waited for as after any release.
    fn cut_lease(
        &self,
        lease: &Lease,
        lost: impl Fn(&DeviceKey, &NodeName) -> bool,
        (reason, why): (EndReason, Unconfirmed),
        now: Timestamp,
    ) -> Vec<Event> {
        let occupied = lease.occupied();
        let (gone, kept): (Vec<_>, Vec<_>) = occupied.partition(|(key, node)| lost(key, node));
        let unconfirmed: BTreeMap<DeviceKey, Unconfirmed> =
            gone.iter().map(|(key, _)| ((*key).clone(), why)).collect();
        let (reason, begins) = match &lease.phase {
            LeasePhase::Active => (reason, true),
            LeasePhase::Releasing { reason, .. } | LeasePhase::Ended { reason, .. } => {
                (*reason, false)
            }
        };
        if kept.is_empty() {
            return vec![Event::LeaseEnded {
                lease: lease.id,
                reason,
                unconfirmed,
            }];
        }
        let releasing = begins.then(|| self.ending(lease, reason, now));
        let freed = Event::LeaseFreed {
            lease: lease.id,
            devices: unconfirmed.keys().cloned().collect(),
            unconfirmed,
        };
        releasing.into_iter().chain([freed]).collect()
    }
}

fn check_leases(leases: &[&Lease], forced: bool) -> Result<(), Denied> {
    if leases.is_empty() || forced {
        return Ok(());
    }
    Err(Denied::Leased {
        leases: leases.iter().map(|lease| lease.id).collect(),
    })
}
