//! Of which nodes an event may change who may hold what. Noted before the event is applied: what ends is still there then.

use crate::device::{Device, DeviceKey};
use crate::event::Event;
use crate::id::{LeaseId, NodeName, QuotaId, Seq};
use crate::state::State;
use crate::step::{StepsConfirmed, StepsHeld};

impl State {
    pub(super) fn note_judged(&mut self, seq: Seq, event: &Event) {
        let nodes: Vec<NodeName> = match event {
            Event::SessionOpened { node, .. }
            | Event::NodeReported { node, .. }
            | Event::NodeSettled { node }
            | Event::NodeSilent { node, .. }
            | Event::NodeHeard { node }
            | Event::DevicesForgotten { node, .. }
            | Event::NodeDeclared { node, .. } => vec![node.clone()],
            Event::StepEnded(ended) => vec![ended.node.clone()],
            Event::NodeRetired { node, .. } => {
                self.changes.judged_no_more(node);
                return;
            }
            Event::QuotaSet { quota, nodes, .. } => {
                let old = self.nodes_of_quota(*quota);
                old.into_iter().chain(nodes.iter().cloned()).collect()
            }
            Event::QuotaExpired { quota }
            | Event::QuotaSwitched { quota, .. }
            | Event::QuotaReleased { quota, .. } => self.nodes_of_quota(*quota),
            Event::LeaseGranted { devices, .. } => devices.values().cloned().collect(),
            Event::LeaseRenewed { lease, .. }
            | Event::LeaseToLeave { lease, .. }
            | Event::LeaseReleasing { lease, .. }
            | Event::LeaseFreed { lease, .. }
            | Event::LeaseEnded { lease, .. } => self.nodes_of_lease(*lease),
            // Also of whom the ledger does not know: its changes are not noted.
            Event::StepsHeld(StepsHeld { tenant, .. })
            | Event::StepsConfirmed(StepsConfirmed { tenant, .. }) => {
                let node = |(_, device): (&DeviceKey, &Device)| device.node.clone();
                match tenant {
                    Some(tenant) => self.devices_of(tenant).map(node).collect(),
                    None => self.nobodys_devices().map(node).collect(),
                }
            }
            // Tenants and rules have rows of their own; of the rest nothing is judged.
            Event::TenantCreated { .. }
            | Event::TenantSet(_)
            | Event::RegionSet(_)
            | Event::GroupSet(_)
            | Event::GroupRemoved { .. }
            | Event::CardLimitSet { .. }
            | Event::HostResourceSet(_)
            | Event::HostResourceRemoved { .. }
            | Event::HostLimitSet { .. }
            | Event::ModelSet(_)
            | Event::ModelRemoved { .. }
            | Event::CounterSet(_)
            | Event::ProductSet(_)
            | Event::ProductRemoved { .. }
            | Event::LicenceQuotaSet(_)
            | Event::LicenceQuotaExpired { .. }
            | Event::SeatSet(_)
            | Event::SeatReleased { .. }
            | Event::SeatExpired { .. }
            | Event::SettingsSet(_)
            | Event::LeaseWaiting { .. }
            | Event::QuotaNoticed { .. }
            | Event::QuotaEnforcementSet { .. }
            | Event::DrainBegun { .. }
            | Event::DrainEnforced { .. }
            | Event::DrainEnded { .. }
            | Event::StepsBegun(_)
            | Event::TokenRevoked { .. }
            | Event::JoinTokenMade(_)
            | Event::NodeCertified(_)
            | Event::Banned(_)
            | Event::Unbanned(_)
            | Event::HourClosed { .. }
            | Event::UsageStored { .. }
            | Event::SnapshotTaken { .. }
            | Event::Archived(_)
            | Event::Restored { .. } => return,
        };
        for node in &nodes {
            self.changes.judged(node, seq);
        }
    }

    fn nodes_of_quota(&self, quota: QuotaId) -> Vec<NodeName> {
        let quota = self.rows.quotas.get(&quota);
        quota.map_or_else(Vec::new, |quota| quota.nodes.iter().cloned().collect())
    }

    fn nodes_of_lease(&self, lease: LeaseId) -> Vec<NodeName> {
        let lease = self.lease(lease);
        // Its devices may have come to another node since.
        lease.map_or_else(Vec::new, |lease| {
            let devices = lease.devices.keys().filter_map(|key| self.device(key));
            let now = devices.map(|device| &device.node);
            lease.nodes().into_iter().chain(now).cloned().collect()
        })
    }
}
