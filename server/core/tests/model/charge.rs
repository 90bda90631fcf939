//! What a tenant uses, told as naively as possible: device by device, each time looking at every quota and lease.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::device::DeviceKey;
use gpuquota_core::id::{GpuModel, NodeName, QuotaId, Region, TenantName, Timestamp};
use gpuquota_core::limit::Limit;
use gpuquota_core::quota::{QuotaSource, QuotaType};
use gpuquota_core::settings::LeaseMode;

use crate::laying;
use crate::promised::Promise;
use crate::reference::{Charged, Entitled, Naive};

/// What the same quotas are about: region, type, model.
pub(crate) type Kin = (Region, QuotaType, String);

/// A device that a tenant holds or leases.
struct Unit {
    key: DeviceKey,
    node: NodeName,
    region: Region,
    model: String,
    leased: bool,
    observed: bool,
    since: Timestamp,
}

// One device, or one of a number.
struct Thing<'a> {
    fitting: Vec<&'a Entitled>,
    kin: Kin,
    leased: bool,
    unit: Option<Unit>,
}

/// What a tenant uses of one kin, by sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) leased: BTreeSet<DeviceKey>,
    pub(crate) observed: BTreeSet<DeviceKey>,
    pub(crate) number: u64,
}

impl Counted {
    pub(crate) fn used(&self) -> u64 {
        let union = self.leased.union(&self.observed).count() as u64;
        let bare = self.observed.difference(&self.leased).count() as u64;
        union + self.number.saturating_sub(bare)
    }
}

impl Naive {
    pub(crate) fn charge(&self, tenant: &TenantName, now: Timestamp) -> Charged {
        let mut charged = self.lay(tenant, now);
        charged.over.clear();
        charged
    }

    /// The same with the kin of what nothing bears.
    pub(crate) fn lay(&self, tenant: &TenantName, now: Timestamp) -> Charged {
        let mine: Vec<&Entitled> = self.quotas.iter().filter(|q| q.tenant == *tenant).collect();
        let mut charged = Charged::default();
        for quota in &mine {
            for column in [
                &mut charged.used,
                &mut charged.leased,
                &mut charged.observed,
            ] {
                column.insert(quota.id, 0);
            }
        }
        let mut numbers: BTreeMap<Kin, u64> = BTreeMap::new();
        for promise in self.promises.iter().filter(|it| it.tenant == *tenant) {
            *numbers.entry(kin_asked(promise)).or_default() += promise.number();
        }
        let mut things: Vec<Thing<'_>> = Vec::new();
        for unit in self.units(tenant) {
            let kin = self.kin(tenant, &unit, now);
            let covering = numbers.get_mut(&kin).filter(|left| **left > 0);
            let covered = covering
                .filter(|_| !unit.leased)
                .map(|left| *left -= 1)
                .is_some();
            things.push(Thing {
                fitting: self.fitting(&mine, &unit, now),
                kin,
                leased: unit.leased || covered,
                unit: Some(unit),
            });
        }
        for (kin, left) in numbers {
            let mut fitting = mine.clone();
            fitting.retain(|q| kin == (q.region.clone(), q.quota_type, meaning(&q.model)));
            things.extend((0..left).map(|_| Thing {
                fitting: fitting.clone(),
                kin: kin.clone(),
                leased: true,
                unit: None,
            }));
        }
        let rooms = mine.iter().map(|quota| match quota.limit {
            _ if quota.over(now) => (quota.id, 0),
            Limit::Unlimited => (quota.id, u64::MAX),
            Limit::Finite(limit) => (quota.id, limit.into()),
        });
        let in_order = |thing: &Thing<'_>| {
            let mut fitting = thing.fitting.clone();
            fitting.sort_by(|a, b| self.filled(a, b));
            fitting.iter().map(|quota| quota.id).collect()
        };
        let fitting: Vec<Vec<QuotaId>> = things.iter().map(in_order).collect();
        let places = laying::lay(&fitting, rooms.collect());
        for (thing, best) in things.into_iter().zip(places) {
            let last = self.last(&thing.fitting, now);
            let observed = thing.unit.as_ref().is_some_and(|unit| unit.observed);
            if let Some(quota) = best.or(last) {
                *charged.used.entry(quota).or_default() += 1;
                *charged.leased.entry(quota).or_default() += u64::from(thing.leased);
                *charged.observed.entry(quota).or_default() += u64::from(observed);
            }
            if best.is_none() {
                charged.excess += 1;
                charged.over.insert(thing.kin);
            }
            let Some(unit) = thing.unit.filter(|unit| unit.observed) else {
                continue;
            };
            let mut violate = |class| {
                let seen = (class, unit.node.clone(), unit.key.clone());
                charged.violations.insert(seen);
            };
            let kept = self.kept_for(&unit.key).map(|promise| &promise.tenant);
            if self.bound(&unit.node, now).is_some_and(|t| t != tenant)
                || kept.is_some_and(|t| t != tenant)
                || self.kept_on(tenant, now) && self.bound(&unit.node, now) != Some(tenant)
            {
                violate("foreign");
            }
            let mode = self.known(tenant).and_then(|known| known.mode);
            let required = mode.unwrap_or(self.settings.lease_mode) == LeaseMode::Required;
            match (best, last) {
                (None, None) => violate("squatter"),
                (None, Some(_)) => violate("over_quota"),
                (Some(_), _) if !thing.leased && required => violate("squatter"),
                (Some(_), _) => {}
            }
        }
        self.crowd(tenant, &mut charged);
        charged
    }

    // Leased cards of a node come first, then the longest held.
    fn crowd(&self, tenant: &TenantName, charged: &mut Charged) {
        let gpu = |unit: &Unit| {
            let mut devices = self.devices.iter();
            let device = devices.find(|held| held.report.key == unit.key)?;
            device.report.gpu().map(str::to_owned)
        };
        let (leased, held): (Vec<_>, Vec<_>) =
            self.units(tenant).into_iter().partition(|it| it.leased);
        let mut cards: BTreeMap<NodeName, Vec<String>> = BTreeMap::new();
        for unit in leased.iter().chain(&held) {
            let Some(gpu) = gpu(unit) else { continue };
            let here = cards.entry(unit.node.clone()).or_default();
            if !here.contains(&gpu) {
                here.push(gpu.clone());
            }
            let place = here.iter().position(|card| *card == gpu).unwrap();
            let most = self.most_cards(tenant, &unit.node);
            if unit.observed && most.is_some_and(|most| place >= most as usize) {
                let seen = ("over_node_limit", unit.node.clone(), unit.key.clone());
                charged.violations.insert(seen);
            }
        }
    }

    /// What a tenant uses of one kin.
    pub(crate) fn count(&self, tenant: &TenantName, kin: &Kin, now: Timestamp) -> Counted {
        let mut counted = Counted::default();
        for unit in self.units(tenant) {
            if self.kin(tenant, &unit, now) != *kin {
                continue;
            }
            if unit.leased {
                counted.leased.insert(unit.key.clone());
            }
            if unit.observed {
                counted.observed.insert(unit.key);
            }
        }
        let mine = self.promises.iter().filter(|it| it.tenant == *tenant);
        let mine = mine.filter(|it| kin_asked(it) == *kin);
        counted.number = mine.map(Promise::number).sum();
        counted
    }

    /// Every kin in which a tenant uses something.
    pub(crate) fn kins(&self, tenant: &TenantName, now: Timestamp) -> BTreeSet<Kin> {
        let units = self.units(tenant);
        let mut kins: BTreeSet<Kin> = units.iter().map(|u| self.kin(tenant, u, now)).collect();
        let mine = self.promises.iter().filter(|it| it.tenant == *tenant);
        kins.extend(mine.filter(|it| it.number() > 0).map(kin_asked));
        kins
    }

    /// Every kin in which a lease counts.
    pub(crate) fn kin_of(&self, promise: &Promise, now: Timestamp) -> BTreeSet<Kin> {
        if promise.devices.is_empty() {
            return [kin_asked(promise)].into();
        }
        let units = self.units(&promise.tenant).into_iter();
        let own = units.filter(|unit| promise.keeps(&unit.key));
        own.map(|unit| self.kin(&promise.tenant, &unit, now))
            .collect()
    }

    // Longest held or leased first.
    fn units(&self, tenant: &TenantName) -> Vec<Unit> {
        let mut units = Vec::new();
        for held in &self.devices {
            let key = &held.report.key;
            let lease = self.kept_for(key).filter(|it| it.tenant == *tenant);
            let since = held.since.get(tenant).copied();
            let since = since.filter(|_| !held.report.partitioned);
            let leased = lease.map(|it| it.granted);
            let first = since.into_iter().chain(leased).min();
            let host = self.hosts.iter().find(|host| host.name == held.node);
            if let (Some(first), Some(host)) = (first, host) {
                units.push(Unit {
                    key: key.clone(),
                    node: held.node.clone(),
                    region: host.region.clone(),
                    model: meaning(&held.report.gpu_model),
                    leased: lease.is_some(),
                    observed: since.is_some(),
                    since: first,
                });
            }
        }
        for promise in self.promises.iter().filter(|it| it.tenant == *tenant) {
            for (key, node) in promise.devices.iter().filter(|(key, _)| promise.keeps(key)) {
                if self.devices.iter().all(|held| held.report.key != *key) {
                    units.push(Unit {
                        key: key.clone(),
                        node: node.clone(),
                        region: promise.region.clone(),
                        model: meaning(&promise.model),
                        leased: true,
                        observed: false,
                        since: promise.granted,
                    });
                }
            }
        }
        units.sort_by(|a, b| (a.since, &a.key).cmp(&(b.since, &b.key)));
        units
    }

    fn kin(&self, tenant: &TenantName, unit: &Unit, now: Timestamp) -> Kin {
        let quota_type = match self.dedicated(tenant, &unit.node, &unit.model, now) {
            true => QuotaType::Dedicated,
            false => own_type(&unit.key),
        };
        (unit.region.clone(), quota_type, unit.model.clone())
    }

    /// Whether a node serves this tenant with devices of this model.
    pub(crate) fn dedicated(
        &self,
        tenant: &TenantName,
        node: &NodeName,
        model: &str,
        now: Timestamp,
    ) -> bool {
        self.quotas.iter().any(|q| {
            q.tenant == *tenant
                && q.nodes.contains(node)
                && !q.over(now)
                && meaning(&q.model) == model
        })
    }

    /// Whether a tenant is granted nothing outside its dedicated nodes.
    pub(crate) fn kept_on(&self, tenant: &TenantName, now: Timestamp) -> bool {
        let mut own = self.quotas.iter().filter(|q| q.tenant == *tenant);
        self.known(tenant).is_some_and(|known| known.confined)
            && own.any(|q| !q.nodes.is_empty() && !q.over(now))
    }

    // The quota on which what is over stays.
    fn last(&self, fitting: &[&Entitled], now: Timestamp) -> Option<QuotaId> {
        let later = |a: &&&Entitled, b: &&&Entitled| {
            let ended = b.over(now).cmp(&a.over(now));
            ended.then_with(|| self.filled(a, b))
        };
        fitting.iter().max_by(later).map(|quota| quota.id)
    }

    fn fitting<'a>(&self, mine: &[&'a Entitled], unit: &Unit, now: Timestamp) -> Vec<&'a Entitled> {
        let (mut bound, mut ended, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        for quota in mine {
            if meaning(&quota.model) != unit.model {
                continue;
            }
            if quota.quota_type == QuotaType::Dedicated {
                match (quota.nodes.contains(&unit.node), quota.over(now)) {
                    (true, false) => bound.push(*quota),
                    (true, true) => ended.push(*quota),
                    (false, _) => {}
                }
            } else if quota.quota_type == own_type(&unit.key) && quota.region == unit.region {
                plain.push(*quota);
            }
        }
        if !bound.is_empty() {
            bound.extend(ended);
            return bound;
        }
        if plain.is_empty() { ended } else { plain }
    }

    // The source that the settings name first, then the sooner end, no end last, then the older quota.
    pub(crate) fn filled(&self, a: &Entitled, b: &Entitled) -> Ordering {
        let second = |source: QuotaSource| source != self.settings.consume_first;
        match (a.end, b.end) {
            _ if second(a.source) != second(b.source) => second(a.source).cmp(&second(b.source)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(x), Some(y)) if x != y => x.cmp(&y),
            _ => a.id.cmp(&b.id),
        }
    }
}

/// What a lease counts in while it names no devices.
pub(crate) fn kin_asked(promise: &Promise) -> Kin {
    let model = meaning(&promise.model);
    (promise.region.clone(), promise.quota_type, model)
}

fn own_type(key: &DeviceKey) -> QuotaType {
    match key {
        DeviceKey::Gpu(_) => QuotaType::Flexible,
        DeviceKey::Mig { .. } => QuotaType::Mig,
        DeviceKey::Vgpu(_) => QuotaType::Vgpu,
    }
}

/// The spellings that the histories use.
pub(crate) fn meaning(model: &GpuModel) -> String {
    let plain = match model.as_str() {
        "nvidia.com/mig-1g.10gb" | "nvidia.com/mig-1c10g" | "1g.10gb" => "1g.10gb",
        "nvidia.com/mig-1g.10gb.me" | "1g.10gb+me" => "1g.10gb+me",
        other => other,
    };
    plain.to_owned()
}
