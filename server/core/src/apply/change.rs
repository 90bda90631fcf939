//! Which figures an event may change. It is noted before the event is applied: what ends is still there then.

use crate::device::{DeviceKind, DeviceReport};
use crate::event::Event;
use crate::id::{QuotaId, Seq};
use crate::state::State;

impl State {
    pub(crate) fn note_change(&mut self, seq: Seq, event: &Event) {
        self.note_generation(seq, event);
        self.note_judged(seq, event);
        match event {
            Event::TenantCreated { tenant } => self.changes.tenant(tenant, seq),
            Event::TenantSet(profile) => {
                self.changes.tenant(&profile.tenant, seq);
                self.changes.licences(seq);
            }
            Event::QuotaSet { key, .. } => self.changes.tenant(&key.tenant, seq),
            Event::QuotaExpired { quota }
            | Event::QuotaSwitched { quota, .. }
            | Event::QuotaReleased { quota, .. }
            | Event::QuotaNoticed { quota, .. }
            | Event::QuotaEnforcementSet { quota, .. } => {
                self.note_quota(seq, *quota);
            }
            Event::DrainBegun { tenant, .. }
            | Event::DrainEnforced { tenant, .. }
            | Event::DrainEnded { tenant, .. } => self.changes.tenant(tenant, seq),
            // A region may take devices from one quota to another, a name in the catalogue too.
            Event::NodeDeclared { .. } => {
                self.changes.nodes(seq);
                self.changes.all_tenants(seq);
            }
            Event::ModelSet(_) | Event::ModelRemoved { .. } => self.changes.all_tenants(seq),
            // What is charged to whom may change with them, and it is rare.
            Event::NodeRetired { .. } | Event::DevicesForgotten { .. } => {
                self.changes.nodes(seq);
                self.changes.all_tenants(seq);
                self.changes.licences(seq);
                self.changes.bans(seq);
            }
            Event::SessionOpened { .. } | Event::NodeSilent { .. } | Event::NodeHeard { .. } => {
                self.changes.nodes(seq);
            }
            Event::NodeReported {
                node,
                full,
                facts,
                devices,
                gone,
                ..
            } => {
                let known = self.rows.nodes.get(node);
                let first = known.is_some_and(|node| node.observed_at.is_none());
                let ended = match known.filter(|_| *full) {
                    Some(node) => node.devices.iter().cloned().collect(),
                    None => gone.clone(),
                };
                if !*full && self.may_change_groups(devices, gone) {
                    self.changes.rules(seq);
                }
                if first || *full || facts.is_some() || self.may_change_groups(devices, gone) {
                    self.changes.nodes(seq);
                }
                self.note_devices(seq, devices);
                for key in &ended {
                    let ended = self
                        .rows
                        .devices
                        .get(key)
                        .map(|device| device.report.clone());
                    self.note_devices(seq, ended.as_slice());
                }
            }
            Event::SettingsSet(_) => self.changes.all_tenants(seq),
            Event::LeaseGranted { terms, .. } => self.changes.tenant(&terms.tenant, seq),
            Event::LeaseRenewed { lease, .. }
            | Event::LeaseToLeave { lease, .. }
            | Event::LeaseReleasing { lease, .. }
            | Event::LeaseFreed { lease, .. }
            | Event::LeaseWaiting { lease, .. }
            | Event::LeaseEnded { lease, .. } => {
                if let Some(lease) = self.rows.leases.get(lease) {
                    self.changes.tenant(&lease.terms.tenant, seq);
                }
            }
            Event::ProductSet(_)
            | Event::ProductRemoved { .. }
            | Event::LicenceQuotaSet(_)
            | Event::LicenceQuotaExpired { .. }
            | Event::SeatSet(_)
            | Event::SeatReleased { .. }
            | Event::SeatExpired { .. } => self.changes.licences(seq),
            // What is used stays, what is justified may not.
            Event::RegionSet(_) | Event::GroupRemoved { .. } | Event::CardLimitSet { .. } => {
                self.changes.rules(seq);
            }
            Event::Banned(_) => self.changes.bans(seq),
            // Nobody keeps figures that depend on these.
            Event::StepsBegun(_)
            | Event::StepsHeld(_)
            | Event::StepsConfirmed(_)
            | Event::StepEnded(_)
            | Event::GroupSet(_)
            | Event::HostResourceSet(_)
            | Event::HostResourceRemoved { .. }
            | Event::HostLimitSet { .. }
            | Event::CounterSet(_)
            | Event::TokenRevoked { .. }
            | Event::JoinTokenMade(_)
            | Event::NodeCertified(_)
            | Event::Unbanned(_)
            | Event::NodeSettled { .. }
            | Event::SnapshotTaken { .. }
            | Event::HourClosed { .. }
            | Event::UsageStored { .. }
            | Event::Archived(_)
            | Event::Restored { .. } => {}
        }
    }

    fn note_quota(&mut self, seq: Seq, quota: QuotaId) {
        if let Some(quota) = self.rows.quotas.get(&quota) {
            self.changes.tenant(&quota.key.tenant, seq);
        }
    }

    // Those who held it, those who hold it now and whose lease it is. Whom the ledger does not know has no figures that could be kept, and
    // agents may name anybody.
    fn note_devices(&mut self, seq: Seq, reports: &[DeviceReport]) {
        for report in reports {
            let old = self.rows.devices.get(&report.key);
            let before = old.into_iter().flat_map(|device| device.holders.keys());
            let lease = self.lease_on(&report.key);
            let lessee = lease.map(|lease| &lease.terms.tenant).cloned();
            for tenant in before.chain(&report.tenants).chain(&lessee) {
                if self.rows.tenants.contains_key(tenant) {
                    self.changes.tenant(tenant, seq);
                }
            }
            if report.key.kind() == DeviceKind::Vgpu {
                self.changes.licences(seq);
            }
        }
    }
}
