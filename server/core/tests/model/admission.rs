//! Whether a lease is granted, told by trying: every rule in the order of DESIGN, then every choice of devices there is.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::command::RequestLease;
use gpuquota_core::device::{DeviceHealth, DeviceKey};
use gpuquota_core::id::{Epoch, LeaseId, NodeName, TenantName, Timestamp};
use gpuquota_core::lease::{Lease, LeasePhase, LeasePlacement};
use gpuquota_core::limit::Limit;
use gpuquota_core::node::NodeState;
use gpuquota_core::quota::{QuotaSource, QuotaType};
use gpuquota_core::{Answer, Outcome};

use crate::charge::{Kin, meaning};
use crate::promised::{Promise, later};
use crate::reference::{Entitled, Held, Naive, Said};

impl Naive {
    /// Judges an answer: a denial must name the rule, a grant must be legal, and is taken over then.
    pub(crate) fn admit(&mut self, asked: &RequestLease, answer: &Answer, now: Timestamp) -> Said {
        let (kin, source) = self.bear(asked, now)?;
        let granted = match answer {
            Answer::Granted(Outcome::Lease(lease)) => Some(lease.as_ref()),
            _ => None,
        };
        let promise = Promise {
            id: LeaseId(self.promises.len() as u64 + 1),
            tenant: asked.tenant.clone(),
            region: asked.region.clone(),
            model: asked.gpu_model.clone(),
            quota_type: kin.1,
            count: asked.count,
            placement: asked.placement,
            source,
            devices: BTreeMap::new(),
            epoch: Epoch(self.promises.len() as u64 + 1),
            granted: now,
            end: asked.ttl_ms.map(|ttl| later(now, ttl)),
            phase: LeasePhase::Active,
        };
        if asked.placement == LeasePlacement::CountOnly {
            if kin.1 == QuotaType::Dedicated && self.too_much(&promise, now) {
                return Err("lease: over_quota".into());
            }
            self.promises.push(promise);
            return Ok(Outcome::Done);
        }
        let choices = self.choices(asked, &kin, now);
        let with = |devices: &BTreeMap<DeviceKey, NodeName>| Promise {
            devices: devices.clone(),
            ..promise.clone()
        };
        if choices.is_empty() {
            return Err("lease: no_device".into());
        }
        if kin.1 == QuotaType::Dedicated {
            let mut borne = choices.iter();
            if !borne.any(|devices| !self.too_much(&with(devices), now)) {
                return Err("lease: over_quota".into());
            }
        }
        let Some(Lease { devices, .. }) = granted else {
            return Err(format!("nothing: {:?} is a choice", choices[0]));
        };
        assert!(choices.contains(devices), "{devices:?} is no legal choice");
        let promise = with(devices);
        let too_much = kin.1 == QuotaType::Dedicated && self.too_much(&promise, now);
        assert!(!too_much, "the quotas do not bear {devices:?}");
        self.promises.push(promise);
        Ok(Outcome::Done)
    }

    // The rules before the devices: who asks, and what the quotas that fit bear.
    fn bear(&self, asked: &RequestLease, now: Timestamp) -> Result<(Kin, QuotaSource), String> {
        if asked.count == 0 {
            return Err("too_many".into());
        }
        let tenant = &asked.tenant;
        let quota_type = asked.quota_type.unwrap_or({
            match asked.gpu_model.as_str() {
                "nvidia.com/gpu" => QuotaType::Flexible,
                name if name.starts_with("nvidia.com/mig-") => QuotaType::Mig,
                _ => QuotaType::Vgpu,
            }
        });
        let Some(known) = self.known(tenant) else {
            return Err("lease: unknown_tenant".into());
        };
        if known.frozen {
            return Err("lease: frozen".into());
        }
        if quota_type != QuotaType::Dedicated && self.kept_on(tenant, now) {
            return Err("lease: confined".into());
        }
        let kin = (asked.region.clone(), quota_type, meaning(&asked.gpu_model));
        let mut fitting: Vec<&Entitled> = self.quotas.iter().collect();
        fitting.retain(|q| {
            let of = (q.region.clone(), q.quota_type, meaning(&q.model));
            q.tenant == *tenant && of == kin && !q.over(now)
        });
        fitting.sort_by(|a, b| self.filled(a, b));
        if fitting.is_empty() {
            return Err("lease: no_quota".into());
        }
        let used = self.count(tenant, &kin, now).used();
        let mut granted = 0;
        let mut first = None;
        for quota in &fitting {
            granted += match quota.limit {
                Limit::Unlimited => u64::from(u32::MAX) * 2,
                Limit::Finite(limit) => limit.into(),
            };
            if granted > used && first.is_none() {
                first = Some(quota.source);
            }
        }
        if used + u64::from(asked.count) > granted {
            return Err("lease: over_quota".into());
        }
        let first = first.unwrap_or_else(|| unreachable!("room without a quota that has it"));
        Ok((kin, first))
    }

    // Every set of devices that could be given, whatever the quotas say.
    fn choices(
        &self,
        asked: &RequestLease,
        kin: &Kin,
        now: Timestamp,
    ) -> Vec<BTreeMap<DeviceKey, NodeName>> {
        let mut free: Vec<&Held> = self.devices.iter().collect();
        free.retain(|held| self.could_serve(asked, kin, held, now));
        let all = 0..(1_u32 << free.len());
        let sized = all.filter(|set| set.count_ones() == asked.count);
        let chosen = sized.map(|set| -> Vec<&Held> {
            let at = (0..free.len()).filter(|at| set & (1 << at) != 0);
            at.map(|at| free[at]).collect()
        });
        let legal = chosen.filter(|chosen| self.within(asked, chosen));
        legal
            .map(|chosen| {
                let devices = chosen.into_iter();
                devices
                    .map(|held| (held.report.key.clone(), held.node.clone()))
                    .collect()
            })
            .collect()
    }

    fn could_serve(&self, asked: &RequestLease, kin: &Kin, held: &Held, now: Timestamp) -> bool {
        let report = &held.report;
        let Some(host) = self.hosts.iter().find(|host| host.name == held.node) else {
            return false;
        };
        let model = meaning(&report.gpu_model);
        let quota_type = match self.dedicated(&asked.tenant, &held.node, &model, now) {
            true => QuotaType::Dedicated,
            false => match report.key {
                DeviceKey::Gpu(_) => QuotaType::Flexible,
                DeviceKey::Mig { .. } => QuotaType::Mig,
                DeviceKey::Vgpu(_) => QuotaType::Vgpu,
            },
        };
        (host.region.clone(), quota_type, model) == *kin
            && host.state == NodeState::Up
            && host.settled
            && (asked.nodes.is_empty() || asked.nodes.contains(&held.node))
            && self
                .bound(&held.node, now)
                .is_none_or(|t| *t == asked.tenant)
            && report.health == DeviceHealth::Ok
            && !report.partitioned
            && !report.unattributed
            && held.since.is_empty()
            && self.kept_for(&report.key).is_none()
            && !self.shares_hardware(&report.key)
    }

    // A GPU whose slice is leased or held, a slice whose GPU is.
    fn shares_hardware(&self, key: &DeviceKey) -> bool {
        let overlaps = |other: &DeviceKey| match (key, other) {
            (DeviceKey::Gpu(gpu), DeviceKey::Mig { gpu: of, .. })
            | (DeviceKey::Mig { gpu: of, .. }, DeviceKey::Gpu(gpu)) => gpu == of,
            _ => false,
        };
        let held = self.devices.iter();
        let mut held = held.filter(|held| overlaps(&held.report.key));
        let mut leases = self.promises.iter();
        held.any(|held| !held.since.is_empty())
            || leases.any(|it| it.devices.keys().any(|key| overlaps(key) && it.keeps(key)))
    }

    // Bounds that the devices of a choice share: nodes, and cards of a tenant on each node.
    fn within(&self, asked: &RequestLease, chosen: &[&Held]) -> bool {
        let nodes: BTreeSet<&NodeName> = chosen.iter().map(|held| &held.node).collect();
        if asked
            .most_nodes
            .is_some_and(|most| nodes.len() > most as usize)
        {
            return false;
        }
        nodes.iter().all(|node| {
            let Some(most) = self.most_cards(&asked.tenant, node) else {
                return true;
            };
            let here = chosen.iter().filter(|held| held.node == **node);
            let cards: Vec<Option<&str>> = here.map(|held| held.report.gpu()).collect();
            if cards.contains(&None) {
                return false;
            }
            let had = self.had_cards(&asked.tenant, node);
            let new: BTreeSet<&str> = cards.into_iter().flatten().collect();
            let new = new.difference(&had).count();
            new == 0 || had.len() + new <= most as usize
        })
    }

    fn had_cards(&self, tenant: &TenantName, node: &NodeName) -> BTreeSet<&str> {
        let here = self.devices.iter().filter(|held| held.node == *node);
        let own = here.filter(|held| {
            let lease = self.kept_for(&held.report.key);
            held.since.contains_key(tenant) || lease.is_some_and(|it| it.tenant == *tenant)
        });
        own.filter_map(|held| held.report.gpu()).collect()
    }

    /// Whether a tenant has more cards on a node than it may.
    pub(crate) fn crowded(&self, tenant: &TenantName, node: &NodeName) -> bool {
        let most = self.most_cards(tenant, node);
        most.is_some_and(|most| self.had_cards(tenant, node).len() > most as usize)
    }

    // Nodes with full GPUs are in the group that their product names.
    pub(crate) fn most_cards(&self, tenant: &TenantName, node: &NodeName) -> Option<u32> {
        let gpu = |held: &&Held| matches!(held.report.key, DeviceKey::Gpu(_));
        let mut here = self.devices.iter().filter(|held| held.node == *node);
        here.find(gpu)?;
        let limit = |of: Option<&TenantName>| {
            let mut cards = self.cards.iter();
            cards.find(|(whose, _)| whose.as_ref() == of)
        };
        limit(Some(tenant)).or(limit(None)).map(|(_, cards)| *cards)
    }

    fn too_much(&self, promise: &Promise, now: Timestamp) -> bool {
        let mut after = self.clone();
        after.promises.push(promise.clone());
        let excess = |it: &Self| it.charge(&promise.tenant, now).excess;
        excess(&after).cmp(&excess(self)) == Ordering::Greater
    }
}
