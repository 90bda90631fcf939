//! What the ledger says of one node: who may hold what there, what of it the ledger does not justify, and how far to go
//! about that. A pure function of the state and the time.
//!
//! It costs what the node has: its devices, the leases there, and for each tenant that holds or leases something on it
//! what the ledger finds against that tenant. The last is the same for all nodes and computed once by whoever keeps it:
//! see [`found`]. Whether a tenant is foreign on a device is looked up here, so that another tenant's lease or quota
//! changes the policy of its own nodes and nothing that is kept of other tenants.

mod kept;
mod said;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::device::{Device, DeviceKey};
use crate::enforcement::{Enforcement, Mode};
use crate::id::{NodeName, TenantName, Timestamp};
use crate::node::Node;
use crate::settings::LeaseMode;
use crate::state::{Group, State, type_of};
use crate::usage::{Violation, ViolationClass, might_hold, usage};

pub use kept::Kept;
pub use said::{DeviceRule, Grant, Held, Ladder, NodePolicy, Verdict};

/// Device rules, and grants, in one policy at most.
pub const MOST_RULES: usize = 2048;
/// Card rules in one policy at most.
pub const MOST_CARDS: usize = 1024;
/// Verdicts in one policy at most.
pub const MOST_VERDICTS: usize = 4096;
/// Tenants in one device rule at most.
pub const MOST_TENANTS: usize = 256;

/// What the ledger finds against one tenant, by node; whether it is foreign is not among it.
pub type Found = BTreeMap<NodeName, Vec<Violation>>;

/// What the ledger finds against a tenant now. It stays so while neither [`crate::Changes::of_tenant`] nor
/// [`crate::Changes::of_rules`] moves; of a tenant that the ledger does not know it must be asked anew each time.
#[must_use]
pub fn found(state: &State, tenant: &TenantName) -> Found {
    let mut found = Found::new();
    let violations = usage(state, tenant).violations;
    let kept = violations
        .into_iter()
        .filter(|it| it.class != ViolationClass::Foreign);
    for violation in kept {
        let here = found.entry(violation.node.clone()).or_default();
        here.push(violation);
    }
    found
}

/// What the ledger says of a node that it knows.
#[must_use]
pub fn policy(state: &State, node: &NodeName, now: Timestamp) -> Option<NodePolicy> {
    policy_with(state, node, now, &mut |tenant| {
        Arc::new(found(state, tenant))
    })
}

/// The same, where somebody keeps what is found.
#[must_use]
pub fn policy_with(
    state: &State,
    name: &NodeName,
    now: Timestamp,
    found: &mut dyn FnMut(&TenantName) -> Arc<Found>,
) -> Option<NodePolicy> {
    let node = state.node(name)?;
    let here = Here {
        state,
        name,
        node,
        now,
    };
    let enforcing = &state.settings().enforcing;
    let (regional, _) = state.regional_enforcement(&node.region);
    let verdicts = here.verdicts(found);
    let own = verdicts
        .iter()
        .map(|it| state.enforcement(&it.tenant, &node.region, it.quota).0);
    let windows = own.chain([regional]).flat_map(|it| &it.windows);
    let until = windows.filter_map(|window| window.edge(now)).min();
    Some(NodePolicy {
        rules: here.rules(),
        cards: here.cards(),
        grants: here.grants(),
        denials: here.denials(),
        verdicts,
        until,
        unattributed: here.unattributed(),
        unattributed_chosen: regional.mode.min(enforcing.unattributed),
        others: here.limited(Mode::Warn),
        valid_for_ms: enforcing.policy_valid_ms,
    })
}

/// Of [`policy`] what leave for steps of these tenants asks for: what the ledger finds against them on the node, and how far
/// to go about nobody's processes there. It costs what these tenants have, not what all on the node have.
pub(crate) fn judgement(
    state: &State,
    name: &NodeName,
    now: Timestamp,
    tenants: &BTreeSet<&TenantName>,
) -> Option<(Vec<Verdict>, Ladder)> {
    let node = state.node(name)?;
    let here = Here {
        state,
        name,
        node,
        now,
    };
    let present = here.tenants();
    let verdicts = present.intersection(tenants).flat_map(|tenant| {
        let mut found = |tenant: &TenantName| Arc::new(found(state, tenant));
        here.verdicts_of(tenant, &mut found)
    });
    Some((verdicts.collect(), here.unattributed()))
}

struct Here<'a> {
    state: &'a State,
    name: &'a NodeName,
    node: &'a Node,
    now: Timestamp,
}

impl<'a> Here<'a> {
    fn devices(&self) -> impl Iterator<Item = (&'a DeviceKey, &'a Device)> + use<'a> {
        let state = self.state;
        let devices = self.node.devices.iter();
        let devices = devices.filter_map(|key| Some((key, state.device(key)?)));
        devices.filter(|(_, device)| !device.report.partitioned)
    }

    // Tenants that hold or lease something here.
    fn tenants(&self) -> BTreeSet<&'a TenantName> {
        let holders = self.devices().flat_map(|(_, device)| device.holders.keys());
        let lessees = self.state.leases_at(self.name);
        holders
            .chain(lessees.map(|lease| &lease.terms.tenant))
            .collect()
    }

    fn rules(&self) -> Vec<DeviceRule> {
        let bound = self.state.bound_tenant(self.name);
        let required = self.unleased();
        let rule = |(key, device): (&DeviceKey, &Device)| {
            let lessee = self.state.lease_on(key).map(|lease| &lease.terms.tenant);
            let (only, otherwise) = match (lessee.or(bound), &required) {
                (Some(one), _) => ([one.clone()].into(), ViolationClass::Foreign),
                (None, Some((only, numbered))) if !numbered.contains(&self.group_of(device)) => {
                    (only.clone(), ViolationClass::Squatter)
                }
                (None, _) => return None,
            };
            Some(DeviceRule {
                device: key.clone(),
                only,
                otherwise,
            })
        };
        let rules = self.devices().filter_map(rule);
        rules.take(MOST_RULES).collect()
    }

    // Where leases are required: who needs none, and groups of which somebody leased a number, whom any device may serve.
    fn unleased(&self) -> Option<(BTreeSet<TenantName>, BTreeSet<Group>)> {
        let state = self.state;
        let region = state.region(&self.node.region);
        let mode = region.and_then(|region| region.lease_mode);
        if mode.unwrap_or(state.settings().lease_mode) == LeaseMode::Optional {
            return None;
        }
        let free = |mode: Option<LeaseMode>| mode == Some(LeaseMode::Optional);
        let tenants = state
            .tenants()
            .filter(|(_, it)| free(it.profile.lease_mode));
        let only: BTreeSet<TenantName> = tenants.map(|(name, _)| name.clone()).collect();
        // Too many to name: the verdicts say it.
        if only.len() > MOST_TENANTS {
            return None;
        }
        Some((only, state.numbered_groups()))
    }

    fn group_of(&self, device: &Device) -> Group {
        Group {
            region: self.node.region.clone(),
            quota_type: type_of(device.report.key.kind()),
            model: device.canonical.clone(),
        }
    }

    fn cards(&self) -> BTreeMap<TenantName, u32> {
        let limit = |tenant: &TenantName| {
            let most = self.state.card_limit_on(tenant, self.name)?;
            Some((tenant.clone(), most))
        };
        let limits = self.tenants().into_iter().filter_map(limit);
        limits.take(MOST_CARDS).collect()
    }

    fn grants(&self) -> Vec<Grant> {
        let active = self.state.leases_at(self.name).filter(|it| it.active());
        let grants = active.map(|lease| Grant {
            lease: lease.id,
            epoch: lease.epoch,
            tenant: lease.terms.tenant.clone(),
            devices: lease
                .occupied()
                .filter(|(_, node)| *node == self.name)
                .map(|(key, _)| key.clone())
                .collect(),
            ends_at: lease.ends_at(),
        });
        grants.take(MOST_RULES).collect()
    }

    // Windows and notices hold back what is not done yet; what is denied stays as long as it is not justified.
    fn denials(&self) -> BTreeSet<(TenantName, DeviceKey)> {
        let stays = |(tenant, key): &(&TenantName, &DeviceKey)| {
            // One that is away, as while a GPU is cut anew, may come back to whom it was denied. Once it is cut nobody can hold it
            // itself, and whoever has one of its parts must be able to open it.
            let here = self
                .state
                .device(key)
                .is_none_or(|device| device.node == *self.name && !device.report.partitioned);
            let region = &self.node.region;
            let (own, _) = self.state.enforcement(tenant, region, None);
            // Which quota it would be charged to next is not asked: one of them says so.
            let mut quotas = self
                .state
                .quotas_of(tenant)
                .filter(|quota| quota.key.region == *region);
            let mut by_quota = || {
                quotas.any(|quota| {
                    quota
                        .enforcement
                        .as_ref()
                        .is_some_and(|own| own.mode >= Mode::Restrict)
                })
            };
            here && (own.mode >= Mode::Restrict || by_quota())
                && !might_hold(self.state, tenant, key)
        };
        let denied = self.state.restricted(self.name).filter(stays);
        let denied = denied.map(|(tenant, key)| (tenant.clone(), key.clone()));
        denied.take(MOST_VERDICTS).collect()
    }

    fn verdicts(&self, found: &mut dyn FnMut(&TenantName) -> Arc<Found>) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for tenant in self.tenants() {
            verdicts.append(&mut self.verdicts_of(tenant, found));
        }
        // What the ladders leave alone is what may be left out.
        if verdicts.len() > MOST_VERDICTS {
            verdicts.sort_by_key(|verdict| std::cmp::Reverse(verdict.ladder.mode));
            verdicts.truncate(MOST_VERDICTS);
            verdicts.sort_by(|one, other| {
                let key = |it: &Verdict| (it.tenant.clone(), it.device.clone(), it.class);
                key(one).cmp(&key(other))
            });
        }
        verdicts
    }

    fn verdicts_of(
        &self,
        tenant: &TenantName,
        found: &mut dyn FnMut(&TenantName) -> Arc<Found>,
    ) -> Vec<Verdict> {
        let foreign = self.foreign(tenant);
        let found = found(tenant);
        let found = found.get(self.name).into_iter().flatten();
        let mut own: Vec<Verdict> = found
            .chain(&foreign)
            .map(|violation| self.verdict(tenant, violation))
            .collect();
        own.sort_by(|one, other| (&one.device, one.class).cmp(&(&other.device, other.class)));
        own
    }

    fn unattributed(&self) -> Ladder {
        let waits = self.state.hold(None).map(|_| Held::Person.most());
        let chosen = self.state.settings().enforcing.unattributed;
        self.limited(chosen.min(waits.unwrap_or(Mode::Evict)))
    }

    // For whoever is no tenant, and at most so far.
    fn limited(&self, most: Mode) -> Ladder {
        let (regional, _) = self.state.regional_enforcement(&self.node.region);
        self.ladder(regional, self.lowered(regional).0.min(most))
    }

    fn foreign(&self, tenant: &TenantName) -> Vec<Violation> {
        let others = |whose: Option<&TenantName>| whose.is_some_and(|whose| whose != tenant);
        let here =
            others(self.state.bound_tenant(self.name)) || self.state.kept_off(tenant, self.name);
        let held = self
            .devices()
            .filter(|(_, device)| device.holders.contains_key(tenant));
        let foreign = held.filter(|(key, _)| {
            let lease = self.state.lease_on(key);
            here || others(lease.map(|lease| &lease.terms.tenant))
        });
        let violation = |(key, device): (&DeviceKey, &Device)| Violation {
            class: ViolationClass::Foreign,
            node: self.name.clone(),
            device: key.clone(),
            quota: None,
            group: self.state.group_of(tenant, device),
        };
        foreign.map(violation).collect()
    }

    fn verdict(&self, tenant: &TenantName, violation: &Violation) -> Verdict {
        let region = &self.node.region;
        let (own, said_by) = self.state.enforcement(tenant, region, violation.quota);
        let held = self.held(tenant, violation, own);
        let most = held.map_or(Mode::Evict, Held::most);
        Verdict {
            tenant: tenant.clone(),
            device: violation.device.clone(),
            class: violation.class,
            ladder: self.ladder(own, own.mode.min(most)),
            held: held.filter(|_| own.mode > most),
            quota: violation.quota,
            said_by,
        }
    }

    // What lowers it most.
    fn held(&self, tenant: &TenantName, violation: &Violation, own: &Enforcement) -> Option<Held> {
        let device = self.state.device(&violation.device);
        if !self.node.told() {
            return Some(Held::Unsettled);
        }
        if device.is_none_or(|device| !device.report.readable()) {
            return Some(Held::Unreadable);
        }
        let lease = self.state.lease_on(&violation.device);
        let lease = lease.filter(|lease| lease.active() && lease.terms.tenant == *tenant);
        if let Some(lease) = lease {
            return Some(Held::Leased(lease.id));
        }
        let drain = self.state.drain(tenant, &violation.group);
        if drain.is_some_and(|drain| drain.enforced_at.is_none()) {
            return Some(Held::Notice);
        }
        if own.windows.iter().any(|window| window.open(self.now)) {
            return Some(Held::Window);
        }
        self.state.hold(Some(tenant)).map(|_| Held::Person)
    }

    // What holds for whoever is no tenant: the node itself and the windows lower it.
    fn lowered(&self, own: &Enforcement) -> (Mode, Option<Held>) {
        let held = match self.node.told() {
            false => Some(Held::Unsettled),
            true => own
                .windows
                .iter()
                .any(|window| window.open(self.now))
                .then_some(Held::Window),
        };
        (own.mode.min(held.map_or(Mode::Evict, Held::most)), held)
    }

    fn ladder(&self, own: &Enforcement, mode: Mode) -> Ladder {
        Ladder {
            mode,
            grace_ms: own.grace_ms,
            term_grace_ms: own.term_grace_ms,
        }
    }
}
