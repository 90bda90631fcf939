//! Leases told naively: one list, searched from end to end, and what each command makes of it.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::command::SetTenant;
use gpuquota_core::device::{DeviceHealth, DeviceKey};
use gpuquota_core::id::{Epoch, GpuModel, LeaseId, NodeName, Region, Seq, TenantName, Timestamp};
use gpuquota_core::lease::{EndReason, LeasePhase, LeasePlacement, Unconfirmed};
use gpuquota_core::node::NodeState;
use gpuquota_core::quota::{QuotaSource, QuotaType};
use gpuquota_core::{Command, Outcome, State};

use crate::charge::Kin;
use crate::reference::{Naive, Said};

/// A lease as the naive telling keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) id: LeaseId,
    pub(crate) tenant: TenantName,
    pub(crate) region: Region,
    pub(crate) model: GpuModel,
    pub(crate) quota_type: QuotaType,
    pub(crate) count: u32,
    pub(crate) placement: LeasePlacement,
    pub(crate) source: QuotaSource,
    pub(crate) devices: BTreeMap<DeviceKey, NodeName>,
    pub(crate) epoch: Epoch,
    pub(crate) granted: Timestamp,
    pub(crate) end: Option<Timestamp>,
    pub(crate) phase: LeasePhase,
}

impl Promise {
    /// Devices that are kept for it.
    pub(crate) fn keeps(&self, key: &DeviceKey) -> bool {
        let waits = match &self.phase {
            LeasePhase::Active => true,
            LeasePhase::Releasing { waiting, .. } => waiting.contains(key),
            LeasePhase::Ended { .. } => false,
        };
        waits && self.devices.contains_key(key)
    }

    /// What it counts without naming it.
    pub(crate) fn number(&self) -> u64 {
        let counts =
            self.placement == LeasePlacement::CountOnly && self.phase == LeasePhase::Active;
        if counts { self.count.into() } else { 0 }
    }

    fn kept(&self) -> BTreeMap<DeviceKey, NodeName> {
        let all = self.devices.iter().filter(|(key, _)| self.keeps(key));
        all.map(|(key, node)| (key.clone(), node.clone())).collect()
    }
}

/// What was said of a tenant.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) name: TenantName,
    pub(crate) frozen: bool,
    pub(crate) confined: bool,
    pub(crate) mode: Option<gpuquota_core::settings::LeaseMode>,
}

impl Naive {
    /// Whether others have leases on nodes that are not the tenant's yet.
    pub(crate) fn others_lease(
        &self,
        tenant: &TenantName,
        nodes: &BTreeSet<NodeName>,
        now: Timestamp,
    ) -> bool {
        let new = |node: &NodeName| nodes.contains(node) && self.bound(node, now) != Some(tenant);
        let mut theirs = self.promises.iter().filter(|it| it.tenant != *tenant);
        theirs.any(|it| it.phase == LeasePhase::Active && it.devices.values().any(new))
    }

    pub(crate) fn known(&self, tenant: &TenantName) -> Option<&Known> {
        self.tenants.iter().find(|known| known.name == *tenant)
    }

    pub(crate) fn know(&mut self, tenant: &TenantName) -> &mut Known {
        let at = self.tenants.iter().position(|known| known.name == *tenant);
        let at = at.unwrap_or_else(|| {
            self.tenants.push(Known {
                name: tenant.clone(),
                frozen: false,
                confined: false,
                mode: None,
            });
            self.tenants.len() - 1
        });
        &mut self.tenants[at]
    }

    /// A quota that was taken by force takes leases with it (dialects D1.4). Which of them is the plan's to say; here it
    /// is checked that there was an excess, and that nobody else's were taken.
    pub(crate) fn revoked_as_in(&mut self, state: &State, tenant: &TenantName, now: Timestamp) {
        let over = self.charge(tenant, now).excess;
        for promise in &mut self.promises {
            let lease = state.lease(promise.id);
            let Some(lease) = lease.filter(|_| promise.phase == LeasePhase::Active) else {
                continue;
            };
            if !lease.active() {
                assert!(over > 0, "{lease:?} is revoked without an excess");
                assert_eq!(lease.terms.tenant, *tenant, "{lease:?}");
                promise.phase = lease.phase.clone();
            }
        }
    }

    /// The lease that keeps a device.
    pub(crate) fn kept_for(&self, key: &DeviceKey) -> Option<&Promise> {
        self.promises.iter().find(|promise| promise.keeps(key))
    }

    pub(crate) fn obey_of_leases(&mut self, command: &Command, now: Timestamp) -> Said {
        match command {
            Command::SetSettings(settings) => self.settings = settings.clone(),
            Command::SetTenant(SetTenant {
                tenant,
                frozen,
                confined,
                lease_mode,
                ..
            }) => {
                let known = self.know(tenant);
                known.frozen = frozen.unwrap_or(known.frozen);
                known.confined = confined.unwrap_or(known.confined);
                known.mode = lease_mode.unwrap_or(known.mode);
            }
            Command::SetCardLimit(key, cards) => {
                let stranger = key.tenant.as_ref().filter(|it| self.known(it).is_none());
                if stranger.is_some() && cards.is_some() {
                    return Err("unknown".into());
                }
                self.cards.retain(|(tenant, _)| *tenant != key.tenant);
                self.cards
                    .extend(cards.map(|cards| (key.tenant.clone(), cards)));
            }
            Command::RenewLease { lease, ttl_ms, .. } => return self.renew(*lease, *ttl_ms, now),
            Command::ReleaseLease { lease, forced, .. } => {
                return self.give_back(*lease, *forced, now);
            }
            Command::Agree {
                node,
                session,
                read_after,
            } => {
                let host = self.in_session(node, *session)?;
                host.settled |= host.state == NodeState::Up;
                self.read(node, *read_after, now);
            }
            other => unreachable!("{other:?} stands in no history of this model"),
        }
        Ok(Outcome::Done)
    }

    fn at_of(&self, lease: LeaseId) -> Result<usize, String> {
        let at = self.promises.iter().position(|it| it.id == lease);
        at.ok_or_else(|| "unknown".to_owned())
    }

    fn renew(&mut self, lease: LeaseId, ttl_ms: Option<u64>, now: Timestamp) -> Said {
        let at = self.at_of(lease)?;
        let promise = &self.promises[at];
        if promise.phase != LeasePhase::Active {
            return Err("lease_over".into());
        }
        let end = ttl_ms.map(|ttl| later(now, ttl));
        let longer = promise
            .end
            .is_some_and(|old| end.is_none_or(|end| end > old));
        if longer {
            self.may_last(promise, now)?;
        }
        self.promises[at].end = end;
        Ok(Outcome::Done)
    }

    fn may_last(&self, promise: &Promise, now: Timestamp) -> Result<(), String> {
        if self.known(&promise.tenant).is_some_and(|it| it.frozen) {
            return Err("lease: frozen".into());
        }
        let mine = self.kin_of(promise, now);
        let outside = |kin: &Kin| kin.1 != QuotaType::Dedicated;
        if self.kept_on(&promise.tenant, now) && mine.iter().any(outside) {
            return Err("lease: confined".into());
        }
        let over = self.lay(&promise.tenant, now).over;
        if mine.iter().any(|kin| over.contains(kin)) {
            return Err("lease: over_quota".into());
        }
        let mut nodes = promise.devices.values();
        let others = nodes.any(|node| {
            let bound = self.bound(node, now);
            bound.is_some_and(|bound| *bound != promise.tenant)
        });
        if others {
            return Err("lease: node_dedicated".into());
        }
        let mut nodes = promise.devices.values();
        match nodes.any(|node| self.crowded(&promise.tenant, node)) {
            true => Err("lease: node_limit".into()),
            false => Ok(()),
        }
    }

    fn give_back(&mut self, lease: LeaseId, forced: bool, now: Timestamp) -> Said {
        let at = self.at_of(lease)?;
        let phase = self.promises[at].phase.clone();
        match (phase, forced) {
            (LeasePhase::Active, false) => self.begin_to_end(at, EndReason::Released, now),
            (LeasePhase::Active, true) => self.end(at, EndReason::Forced, Unconfirmed::Forced, now),
            (LeasePhase::Releasing { reason, .. }, true) => {
                self.end(at, reason, Unconfirmed::Forced, now);
            }
            _ => {}
        }
        Ok(Outcome::Done)
    }

    fn begin_to_end(&mut self, at: usize, reason: EndReason, now: Timestamp) {
        let deadline = later(now, self.settings.confirm_within_ms);
        let since_row = self.row;
        let promise = &mut self.promises[at];
        let waiting: BTreeSet<DeviceKey> = promise.devices.keys().cloned().collect();
        promise.phase = if waiting.is_empty() {
            LeasePhase::Ended {
                at: now,
                reason,
                unconfirmed: BTreeMap::new(),
            }
        } else {
            LeasePhase::Releasing {
                since: now,
                since_row,
                reason,
                deadline,
                unconfirmed: BTreeMap::new(),
                waiting,
            }
        };
    }

    fn end(&mut self, at: usize, reason: EndReason, why: Unconfirmed, now: Timestamp) {
        let kept = self.promises[at].kept();
        self.promises[at].phase = LeasePhase::Ended {
            at: now,
            reason,
            unconfirmed: kept.into_keys().map(|key| (key, why)).collect(),
        };
    }

    /// What time alone does.
    pub(crate) fn pass(&mut self, now: Timestamp) {
        for at in 0..self.promises.len() {
            let promise = &self.promises[at];
            match promise.phase.clone() {
                LeasePhase::Active if promise.end.is_some_and(|end| end <= now) => {
                    self.begin_to_end(at, EndReason::Expired, now);
                }
                LeasePhase::Releasing {
                    reason, deadline, ..
                } if deadline <= now => self.wait_no_longer(at, reason, now),
                _ => {}
            }
        }
    }

    fn wait_no_longer(&mut self, at: usize, reason: EndReason, now: Timestamp) {
        let kept = self.promises[at].kept();
        let heard = |name: &NodeName| {
            let mut hosts = self.hosts.iter();
            hosts.any(|host| host.name == *name && host.state == NodeState::Up)
        };
        let mut nodes: BTreeSet<&NodeName> = kept.values().collect();
        let here = self.devices.iter();
        nodes.extend(
            here.filter(|held| kept.contains_key(&held.report.key))
                .map(|held| &held.node),
        );
        if !nodes.into_iter().all(heard) {
            let next = later(now, self.settings.confirm_within_ms);
            if let LeasePhase::Releasing { deadline, .. } = &mut self.promises[at].phase {
                *deadline = next;
            }
            return;
        }
        let tenant = &self.promises[at].tenant;
        let why = |key: &DeviceKey| {
            let mut devices = self.devices.iter().map(|it| &it.report);
            let read = devices.find(|it| it.key == *key && it.health == DeviceHealth::Ok);
            match read.map(|it| it.unattributed || it.tenants.contains(tenant)) {
                Some(true) => Unconfirmed::StillHeld,
                Some(false) => Unconfirmed::NeverConfirmed,
                None => Unconfirmed::Unreadable,
            }
        };
        let unconfirmed = kept.keys().map(|key| (key.clone(), why(key))).collect();
        self.promises[at].phase = LeasePhase::Ended {
            at: now,
            reason,
            unconfirmed,
        };
    }

    /// A node that was not heard is heard: the time before does not count for what waits for it.
    pub(crate) fn heard_again(&mut self, node: &NodeName, now: Timestamp) {
        let next = later(now, self.settings.confirm_within_ms);
        for promise in &mut self.promises {
            let here = promise.kept().values().any(|it| it == node);
            if let LeasePhase::Releasing { deadline, .. } = &mut promise.phase
                && here
            {
                *deadline = next.max(*deadline);
            }
        }
    }

    /// The node was read: devices of leases that are to end may be seen free, if that was after they were.
    pub(crate) fn read(&mut self, node: &NodeName, read_after: Option<Seq>, now: Timestamp) {
        let Some(read_after) = read_after else { return };
        let devices = self.devices.clone();
        for promise in &mut self.promises {
            let kept = promise.kept();
            let LeasePhase::Releasing {
                since_row,
                reason,
                waiting,
                ..
            } = &mut promise.phase
            else {
                continue;
            };
            if read_after < *since_row {
                continue;
            }
            for (key, _) in kept.iter().filter(|(_, at)| *at == node) {
                let seen = devices.iter().find(|held| held.report.key == *key);
                let free = seen.is_none_or(|held| {
                    held.node == *node
                        && held.report.health == DeviceHealth::Ok
                        && !held.report.unattributed
                        && !held.report.tenants.contains(&promise.tenant)
                });
                if free {
                    waiting.remove(key);
                }
            }
            if waiting.is_empty() {
                promise.phase = LeasePhase::Ended {
                    at: now,
                    reason: *reason,
                    unconfirmed: BTreeMap::new(),
                };
            }
        }
    }
}

pub(crate) fn later(now: Timestamp, ms: u64) -> Timestamp {
    Timestamp(now.0 + i64::try_from(ms).unwrap())
}
