//! Leases: no device is granted twice, fencing epochs only grow, and a device is free again only when its node said so or
//! the ledger wrote down why not.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::device::{DeviceHealth, DeviceKey};
use gpuquota_core::event::Event;
use gpuquota_core::id::LeaseId;
use gpuquota_core::lease::{LeasePlacement, LeaseTerms, Unconfirmed};

use super::super::Rule;
use super::super::fold::Durable;
use super::Broken;
use super::devices::Devices;

/// A lease that is charged.
pub(super) struct Live {
    pub(super) terms: LeaseTerms,
    /// Devices that nobody else may be given.
    pub(super) devices: BTreeSet<DeviceKey>,
    releasing: bool,
}

impl Live {
    /// Devices that it is charged for without naming them.
    pub(super) fn unplaced(&self) -> u64 {
        match self.terms.placement {
            LeasePlacement::CountOnly => self.terms.count.into(),
            LeasePlacement::Devices => 0,
        }
    }
}

#[derive(Default)]
pub(super) struct Leases {
    pub(super) live: BTreeMap<LeaseId, Live>,
    given_out: BTreeSet<LeaseId>,
    epoch: u64,
}

impl Leases {
    /// `devices` is what was known before this event.
    pub(super) fn take(
        &mut self,
        event: &Event,
        row: &Durable,
        devices: &Devices,
        broken: &mut Broken,
    ) {
        match event {
            Event::LeaseGranted {
                lease,
                terms,
                devices: given,
                epoch,
                expires_at,
                ..
            } => {
                if epoch.0 <= self.epoch {
                    let text = format!("epoch {} comes after {}", epoch.0, self.epoch);
                    broken.add(Rule::Bank, text);
                }
                self.epoch = epoch.0;
                if !self.given_out.insert(*lease) {
                    broken.add(Rule::Bank, format!("lease {} is granted twice", lease.0));
                }
                if expires_at.is_some_and(|end| end.0 <= row.at) {
                    broken.add(Rule::Bank, format!("lease {} ends at once", lease.0));
                }
                for key in given.keys() {
                    self.judge_device(*lease, key, devices, broken);
                }
                let live = Live {
                    terms: terms.clone(),
                    devices: given.keys().cloned().collect(),
                    releasing: false,
                };
                self.live.insert(*lease, live);
            }
            Event::LeaseReleasing { lease, .. } => {
                if let Some(live) = self.live.get_mut(lease) {
                    live.releasing = true;
                }
            }
            Event::LeaseRenewed { lease, .. } => {
                let over = self.live.get(lease).is_none_or(|live| live.releasing);
                if over {
                    let text = format!("lease {} is renewed after its end", lease.0);
                    broken.add(Rule::Bank, text);
                }
            }
            Event::LeaseFreed {
                lease,
                devices: freed,
                unconfirmed,
            } => {
                self.confirmed(*lease, freed, unconfirmed, devices, broken);
                if let Some(live) = self.live.get_mut(lease) {
                    live.devices.retain(|key| !freed.contains(key));
                }
            }
            Event::LeaseEnded {
                lease, unconfirmed, ..
            } => {
                let live = self.live.get(lease);
                let left = live.map_or_else(BTreeSet::new, |live| live.devices.clone());
                self.confirmed(*lease, &left, unconfirmed, devices, broken);
                if self.live.remove(lease).is_none() {
                    broken.add(Rule::Bank, format!("lease {} ends twice", lease.0));
                }
            }
            _ => {}
        }
    }

    fn judge_device(
        &self,
        lease: LeaseId,
        key: &DeviceKey,
        devices: &Devices,
        broken: &mut Broken,
    ) {
        let mut live = self.live.iter();
        let other = live.find(|(_, live)| live.devices.contains(key));
        if let Some((other, _)) = other {
            let text = format!("lease {} is given {key}, which {} has", lease.0, other.0);
            broken.add(Rule::Bank, text);
        }
        let free = devices.report(key).is_some_and(|report| {
            report.health == DeviceHealth::Ok && report.tenants.is_empty() && !report.partitioned
        });
        if !free {
            let text = format!("lease {} is given {key}, which is not free", lease.0);
            broken.add(Rule::Bank, text);
        }
    }

    // What is freed without a word of why was last seen without the tenant.
    fn confirmed(
        &self,
        lease: LeaseId,
        freed: &BTreeSet<DeviceKey>,
        unconfirmed: &BTreeMap<DeviceKey, Unconfirmed>,
        devices: &Devices,
        broken: &mut Broken,
    ) {
        let Some(live) = self.live.get(&lease) else {
            return;
        };
        let unseen = freed.iter().filter(|key| !unconfirmed.contains_key(*key));
        for key in unseen {
            let held = devices.report(key).is_some_and(|report| {
                report.health != DeviceHealth::Ok || report.tenants.contains(&live.terms.tenant)
            });
            if held || !live.releasing {
                let text = format!("lease {} ends, and {key} was not seen free", lease.0);
                broken.add(Rule::Bank, text);
            }
        }
    }
}
