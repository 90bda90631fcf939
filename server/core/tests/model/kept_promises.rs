//! What each row may do to leases, counted from the rows of the state alone: neither the ledger's indexes nor the naive
//! telling are asked.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::device::{DeviceHealth, DeviceKey};
use gpuquota_core::event::Event;
use gpuquota_core::id::{Epoch, LeaseId, NodeName, Timestamp};
use gpuquota_core::lease::{Lease, LeasePhase, LeasePlacement, LeaseTerms};
use gpuquota_core::limit::Limit;
use gpuquota_core::node::NodeState;
use gpuquota_core::quota::QuotaType;
use gpuquota_core::{Command, State};

/// What leases were so far.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    epoch: Epoch,
    numbers: BTreeSet<LeaseId>,
}

impl Witness {
    /// Judges the events of one row.
    pub(crate) fn judge(
        &mut self,
        before: &State,
        after: &State,
        command: &Command,
        events: &[Event],
        now: Timestamp,
    ) {
        for event in events {
            match event {
                Event::LeaseGranted {
                    lease,
                    terms,
                    devices,
                    epoch,
                    ..
                } => {
                    assert!(*epoch > self.epoch, "fencing epochs grow");
                    self.epoch = *epoch;
                    assert!(self.numbers.insert(*lease), "{lease:?} twice");
                    borne(before, terms);
                    given(before, terms, devices);
                }
                Event::LeaseFreed {
                    lease,
                    devices,
                    unconfirmed: _,
                } => {
                    seen_free(before, after, command, *lease, devices);
                }
                Event::LeaseEnded {
                    lease, unconfirmed, ..
                } if unconfirmed.is_empty() => {
                    let old = before.lease(*lease).unwrap();
                    let waited: BTreeSet<DeviceKey> = kept(old).keys().cloned().collect();
                    if !waited.is_empty() {
                        seen_free(before, after, command, *lease, &waited);
                    }
                }
                Event::LeaseRenewed { lease, expires_at } => {
                    let Command::RenewLease { ttl_ms, .. } = command else {
                        unreachable!("{command:?} renewed {lease:?}");
                    };
                    let asked = ttl_ms.map(|ttl| now.after(ttl));
                    assert_eq!(
                        *expires_at, asked,
                        "no renewed lease outlives what was asked"
                    );
                }
                _ => {}
            }
        }
        let mut given: BTreeMap<DeviceKey, LeaseId> = BTreeMap::new();
        for lease in after.leases() {
            for key in kept(lease).into_keys() {
                let other = given.insert(key, lease.id);
                assert_eq!(other, None, "a device in two live leases");
            }
        }
    }
}

// Devices that a lease keeps from others.
fn kept(lease: &Lease) -> BTreeMap<DeviceKey, NodeName> {
    let mut devices = lease.devices.clone();
    match &lease.phase {
        LeasePhase::Active => {}
        LeasePhase::Releasing { waiting, .. } => devices.retain(|key, _| waiting.contains(key)),
        LeasePhase::Ended { .. } => devices.clear(),
    }
    devices
}

// used + asked <= what the quotas that fit grant.
fn borne(state: &State, terms: &LeaseTerms) {
    let tenant = &terms.tenant;
    let model = state.catalogue().canonical(&terms.gpu_model);
    let granting = state.quotas().filter(|quota| {
        quota.key.tenant == *tenant
            && quota.key.region == terms.region
            && quota.key.quota_type == terms.quota_type
            && quota.model == model
            && quota.in_force()
    });
    let mut limit = 0;
    for quota in granting {
        match quota.limit {
            Limit::Unlimited => return,
            Limit::Finite(more) => limit += u64::from(more),
        }
    }
    let leases = || state.leases().filter(|lease| lease.terms.tenant == *tenant);
    let leased: BTreeMap<DeviceKey, NodeName> = leases().flat_map(kept).collect();
    let own_type = |key: &DeviceKey, node: &NodeName| {
        let dedicated = state.quotas().any(|quota| {
            quota.key.tenant == *tenant
                && quota.in_force()
                && quota.nodes.contains(node)
                && quota.model == model
        });
        match key {
            _ if dedicated => QuotaType::Dedicated,
            DeviceKey::Gpu(_) => QuotaType::Flexible,
            DeviceKey::Mig { .. } => QuotaType::Mig,
            DeviceKey::Vgpu(_) => QuotaType::Vgpu,
        }
    };
    let (mut union, mut bare) = (0, 0);
    for (key, device) in state.devices() {
        let held = device.holders.contains_key(tenant) && !device.report.partitioned;
        let here = state.node(&device.node).unwrap().region == terms.region
            && device.canonical == model
            && own_type(key, &device.node) == terms.quota_type;
        union += u64::from(here && (held || leased.contains_key(key)));
        bare += u64::from(here && held && !leased.contains_key(key));
    }
    for (key, node) in leased.iter().filter(|(key, _)| state.device(key).is_none()) {
        let lease = leases()
            .find(|lease| kept(lease).contains_key(key))
            .unwrap();
        let here = lease.model == model && lease.terms.region == terms.region;
        union += u64::from(here && own_type(key, node) == terms.quota_type);
    }
    let counts = leases().filter(|lease| {
        lease.phase == LeasePhase::Active
            && lease.terms.placement == LeasePlacement::CountOnly
            && lease.terms.region == terms.region
            && lease.terms.quota_type == terms.quota_type
            && lease.model == model
    });
    let number: u64 = counts.map(|lease| u64::from(lease.terms.count)).sum();
    let used = union + number.saturating_sub(bare);
    let asked = u64::from(terms.count);
    assert!(used + asked <= limit, "{used} + {asked} of {limit}");
}

// Nobody is on the devices, nobody has them, and their nodes are heard and serve the tenant.
fn given(state: &State, terms: &LeaseTerms, devices: &BTreeMap<DeviceKey, NodeName>) {
    let placed = terms.placement == LeasePlacement::Devices;
    let count = if placed { terms.count as usize } else { 0 };
    assert_eq!(devices.len(), count);
    for (key, name) in devices {
        let device = state.device(key).unwrap();
        let node = state.node(name).unwrap();
        assert_eq!((&device.node, node.state), (name, NodeState::Up));
        assert!(node.settled, "{name} has not said what is so now");
        assert_eq!(node.region, terms.region);
        assert!(device.holders.is_empty() && !device.report.unattributed);
        assert!(device.report.health == DeviceHealth::Ok && !device.report.partitioned);
        assert_eq!(
            device.canonical,
            state.catalogue().canonical(&terms.gpu_model)
        );
        assert!(state.leases().all(|lease| !kept(lease).contains_key(key)));
        let bound = state.bound_tenant(name);
        assert!(bound.is_none_or(|bound| *bound == terms.tenant));
    }
}

// A reading after the end of the lease showed each of the devices free of its tenant.
fn seen_free(
    before: &State,
    after: &State,
    command: &Command,
    lease: LeaseId,
    devices: &BTreeSet<DeviceKey>,
) {
    let lease = before.lease(lease).unwrap();
    let LeasePhase::Releasing { since_row, .. } = lease.phase else {
        unreachable!("{lease:?} was not to end");
    };
    let (node, read_after) = match command {
        Command::Report(report) => (&report.node, report.read_after),
        Command::Agree {
            node, read_after, ..
        } => (node, *read_after),
        other => unreachable!("{other:?} read no device"),
    };
    let read_after = read_after.unwrap_or_else(|| unreachable!("nobody knows when {devices:?}"));
    assert!(read_after >= since_row, "a reading from before the end");
    for key in devices {
        assert_eq!(lease.devices.get(key), Some(node), "of another node");
        let Some(device) = after.device(key) else {
            continue;
        };
        assert_eq!(&device.node, node, "{key} is elsewhere");
        assert!(
            !device.holders.contains_key(&lease.terms.tenant),
            "{key} is held"
        );
        assert!(device.report.health == DeviceHealth::Ok && !device.report.unattributed);
    }
}
