//! Why a lease is not granted, in figures. Computed only for a denial, so it may look at everything.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::RequestLease;
use crate::explain::Denied;
use crate::explanation::{Change, Explanation, Holding, MOST_NAMED, Rule};
use crate::id::{NodeName, QuotaId, TenantName, Timestamp};
use crate::lease::{Lease, LeaseTerms};
use crate::limit::Limit;
use crate::placement::NoPlace;
use crate::quota::{Quota, QuotaType};
use crate::state::{Group, State};

use super::total_limit;

pub(super) fn denied(because: Explanation) -> Denied {
    Denied::Lease {
        because: Box::new(because),
    }
}

pub(super) fn frozen(tenant: &TenantName) -> Denied {
    denied(Explanation {
        admit: Some(Change::AskOperator),
        ..Explanation::new(
            Rule::Frozen,
            format!("tenant {tenant} is frozen; nothing new is granted to it"),
        )
    })
}

impl State {
    /// No quota of the tenant grants anything of this group.
    pub(super) fn no_quota(&self, terms: &LeaseTerms, group: &Group, ended: &[&Quota]) -> Denied {
        let used = self.demand(&terms.tenant, group).used();
        let asked = u64::from(terms.count);
        let because = ended.iter().map(|quota| Explanation {
            limit: Some(quota.limit),
            admit: Some(Change::AskOperator),
            ..Explanation::new(
                Rule::QuotaEnded,
                format!(
                    "the {} quota {} has ended",
                    quota.key.source.as_str(),
                    quota.id.0
                ),
            )
        });
        denied(Explanation {
            limit: Some(Limit::Finite(0)),
            used: Some(used),
            asked: Some(asked),
            admit: Some(Change::RaiseLimit {
                quota: ended.first().map(|quota| quota.id),
                limit: used.saturating_add(asked),
            }),
            because: because.collect(),
            ..Explanation::new(
                Rule::NoQuota,
                format!(
                    "tenant {} has no {} quota of {} in {} that grants anything",
                    terms.tenant, terms.quota_type, terms.gpu_model, terms.region
                ),
            )
        })
    }

    /// The quotas that fit have too little room.
    pub(super) fn over_quota(
        &self,
        terms: &LeaseTerms,
        group: &Group,
        quotas: &[&Quota],
    ) -> Denied {
        let demand = self.demand(&terms.tenant, group);
        let (used, asked) = (demand.used(), u64::from(terms.count));
        let limit = total_limit(quotas).unwrap_or(u64::MAX);
        let room = limit.saturating_sub(used);
        let own = self.own_holdings(&terms.tenant, group);
        let soonest = own.iter().filter_map(|holding| holding.until).min();
        let missing = used.saturating_add(asked).saturating_sub(limit);
        let admit = if room > 0 {
            Change::AskFor { count: room }
        } else {
            match soonest {
                Some(at) => Change::WaitUntil { at },
                None => raise(quotas, missing),
            }
        };
        let because = quotas.iter().map(|quota| Explanation {
            limit: Some(quota.limit),
            admit: Some(raise(&[*quota], missing)),
            ..Explanation::new(
                Rule::OverQuota,
                format!(
                    "the {} quota {} grants {} in all",
                    quota.key.source.as_str(),
                    quota.id.0,
                    quota.limit
                ),
            )
        });
        denied(Explanation {
            limit: Some(u32::try_from(limit).map_or(Limit::Unlimited, Limit::Finite)),
            used: Some(used),
            leased: Some(demand.leased()),
            observed: Some(demand.observed),
            asked: Some(asked),
            own,
            soonest,
            admit: Some(admit),
            because: because.collect(),
            ..Explanation::new(
                Rule::OverQuota,
                format!("{used} of {limit} are used and {asked} are asked for, {missing} too many"),
            )
        })
    }

    /// The quota has room, but no devices can be given: what stands in the way of each that is there.
    pub(super) fn no_device(
        &self,
        request: &RequestLease,
        terms: &LeaseTerms,
        group: &Group,
        none: &NoPlace,
    ) -> Denied {
        let mut obstacles: BTreeMap<Rule, Obstacle> = BTreeMap::new();
        let (mut all, mut open) = (0, 0);
        for (name, node) in self.nodes().filter(|(_, node)| node.region == group.region) {
            let devices = node
                .devices
                .iter()
                .filter_map(|key| Some((key, self.device(key)?)));
            let devices = devices.filter(|(_, device)| {
                device.canonical == group.model && !device.report.partitioned
            });
            for (key, device) in devices {
                all += 1;
                let lease = self
                    .lease_on(key)
                    .or_else(|| self.lease_beside(key, device));
                let rule = match self.obstacle(request, terms, name, node) {
                    Some(rule) => Some(rule),
                    None if lease.is_some() => Some(Rule::DeviceLeased),
                    None if !device.holders.is_empty()
                        || device.report.unattributed
                        || self.held_beside(key) =>
                    {
                        Some(Rule::DeviceHeld)
                    }
                    None if !self.is_free(key, device) => Some(Rule::DeviceUnreadable),
                    None if self.group_of(&terms.tenant, device) != *group => {
                        Some(Rule::NodeDedicated)
                    }
                    None => None,
                };
                let Some(rule) = rule else {
                    open += 1;
                    continue;
                };
                let obstacle = obstacles.entry(rule).or_default();
                obstacle.devices += 1;
                obstacle.nodes.insert(name.clone());
                let bound = self
                    .bound_tenant(name)
                    .filter(|_| rule == Rule::NodeDedicated);
                let lessee = lease.map(|lease| &lease.terms.tenant);
                let lessee = lessee.filter(|_| rule == Rule::DeviceLeased);
                let holders = device.holders.keys().filter(|_| rule == Rule::DeviceHeld);
                let whose: Vec<&TenantName> =
                    bound.into_iter().chain(lessee).chain(holders).collect();
                let own = whose.contains(&&terms.tenant);
                obstacle.own += u64::from(own);
                let others = whose.into_iter().filter(|whose| **whose != terms.tenant);
                obstacle.tenants.extend(others.cloned());
                if let Some(lease) = lease {
                    obstacle.ends.extend(lease.ends_at());
                }
            }
        }
        let soonest = obstacles.values().flat_map(|it| it.ends.first()).min();
        let soonest = soonest.copied();
        let mut because: Vec<Explanation> = obstacles
            .into_iter()
            .map(|(rule, obstacle)| obstacle.explain(rule))
            .collect();
        because.extend(self.too_scattered(terms, none, open));
        if all == 0 {
            because.push(self.no_slice(terms, group));
        }
        let most = none.within_most_nodes;
        let admit = match (most, soonest) {
            (1.., _) => Change::AskFor {
                count: u64::from(most),
            },
            (0, Some(at)) => Change::WaitUntil { at },
            (0, None) => Change::AskOperator,
        };
        let demand = self.demand(&terms.tenant, group);
        denied(Explanation {
            used: Some(demand.used()),
            leased: Some(demand.leased()),
            observed: Some(demand.observed),
            asked: Some(u64::from(terms.count)),
            soonest,
            admit: Some(admit),
            because,
            ..Explanation::new(
                Rule::NoDevice,
                format!(
                    "the quota has room, but of {all} devices of {} in {} {} can be given, and {} are asked for",
                    terms.gpu_model, terms.region, most, terms.count
                ),
            )
        })
    }

    // Devices that are free, but not where or not as many in one place as is asked. `open` are free, also where a bound of
    // cards offers only some of them.
    fn too_scattered(&self, terms: &LeaseTerms, none: &NoPlace, open: u32) -> Vec<Explanation> {
        let mut because = Vec::new();
        if none.admitted < open {
            because.push(Explanation {
                asked: Some(u64::from(terms.count)),
                ..Explanation::new(
                    Rule::NodeLimit,
                    format!(
                        "of {} free devices {} are within what the tenant may have on each node",
                        open, none.admitted
                    ),
                )
            });
        }
        if none.within_most_nodes < none.admitted.min(terms.count) {
            because.push(Explanation {
                asked: Some(u64::from(terms.count)),
                ..Explanation::new(
                    Rule::TooFewNodes,
                    format!(
                        "{} fit on so few nodes, and {} on one; allow more nodes",
                        none.within_most_nodes, none.most_on_one_node
                    ),
                )
            });
        }
        because
    }

    // Nothing of this model is there at all. A slice may be made by laying out MIG anew, a model may be a spelling.
    fn no_slice(&self, terms: &LeaseTerms, group: &Group) -> Explanation {
        let other = |quota_type: QuotaType| {
            let nodes = self.nodes().filter(|(_, node)| node.region == group.region);
            let keys = nodes.flat_map(|(_, node)| &node.devices);
            let devices = keys.filter_map(|key| self.device(key));
            devices
                .filter(|device| !device.report.partitioned)
                .filter(|device| crate::state::type_of(device.report.key.kind()) == quota_type)
                .count()
        };
        match terms.quota_type {
            QuotaType::Mig | QuotaType::Vgpu => Explanation {
                admit: Some(Change::AskOperator),
                ..Explanation::new(
                    Rule::NoSlice,
                    format!(
                        "no GPU in {} has a {} instance: there are {} {} instances of other models and {} whole GPUs; \
                         a GPU must be laid out for it",
                        terms.region,
                        terms.gpu_model,
                        other(terms.quota_type),
                        terms.quota_type,
                        other(QuotaType::Flexible)
                    ),
                )
            },
            QuotaType::Flexible | QuotaType::Dedicated => Explanation {
                admit: Some(Change::AskOperator),
                ..Explanation::new(
                    Rule::UnknownModel,
                    format!(
                        "no node in {} has a device that is {}; see the model catalogue for what devices are called",
                        terms.region, terms.gpu_model
                    ),
                )
            },
        }
    }

    // What the tenant has in the group, soonest end first.
    pub(super) fn own_holdings(&self, tenant: &TenantName, group: &Group) -> Vec<Holding> {
        let mut own: Vec<Holding> = Vec::new();
        for (key, charge) in self.charges(tenant) {
            if charge.group != *group {
                continue;
            }
            let device = self.device(key);
            let lease = self.lease_on(key).filter(|_| charge.leased);
            let held = device
                .and_then(|device| device.holders.get(tenant))
                .copied();
            own.push(Holding {
                device: Some(key.clone()),
                node: device.map(|device| device.node.clone()),
                lease: lease.map(|lease| lease.id),
                count: 1,
                since: held
                    .or(lease.map(|lease| lease.granted_at))
                    .unwrap_or_default(),
                until: lease.and_then(Lease::ends_at),
            });
        }
        let counts = self.leases_of(tenant).filter(|lease| {
            lease.unplaced() > 0
                && lease.model == group.model
                && lease.terms.region == group.region
                && lease.terms.quota_type == group.quota_type
        });
        own.extend(counts.map(|lease| Holding {
            device: None,
            node: None,
            lease: Some(lease.id),
            count: lease.unplaced(),
            since: lease.granted_at,
            until: lease.ends_at(),
        }));
        own.sort_by_key(|holding| (holding.until.is_none(), holding.until, holding.since));
        own.truncate(MOST_NAMED);
        own
    }
}

#[derive(Default)]
struct Obstacle {
    devices: u64,
    own: u64,
    nodes: BTreeSet<NodeName>,
    tenants: BTreeSet<TenantName>,
    ends: BTreeSet<Timestamp>,
}

impl Obstacle {
    fn explain(self, rule: Rule) -> Explanation {
        let count = self.devices;
        let text = match rule {
            Rule::NodeSilent => format!("{count} are on nodes that are not heard"),
            Rule::NodeUnsettled => format!("{count} are on nodes that have not yet spoken"),
            Rule::NodeDedicated => format!("{count} are on nodes that serve one tenant alone"),
            Rule::NodeGroup => format!("{count} are in resource groups closed to this tenant"),
            Rule::NodeNotNamed => format!("{count} are on nodes that the request does not name"),
            Rule::NodeRoom => {
                format!("{count} are on nodes with too few CPUs or too little memory, or not known")
            }
            Rule::DeviceLeased => format!("{count} are leased"),
            Rule::DeviceHeld => format!("{count} are held, by processes without a lease of them"),
            _ => format!("{count} cannot be read now"),
        };
        Explanation {
            others: Some(count - self.own),
            tenants: self.tenants.into_iter().take(MOST_NAMED).collect(),
            nodes: self.nodes.into_iter().take(MOST_NAMED).collect(),
            soonest: self.ends.first().copied(),
            ..Explanation::new(rule, text)
        }
    }
}

fn raise(quotas: &[&Quota], by: u64) -> Change {
    let last: Option<(QuotaId, u64)> = quotas.iter().rev().find_map(|quota| match quota.limit {
        Limit::Finite(limit) => Some((quota.id, u64::from(limit))),
        Limit::Unlimited => None,
    });
    Change::RaiseLimit {
        quota: last.map(|(quota, _)| quota),
        limit: last.map_or(0, |(_, limit)| limit).saturating_add(by),
    }
}
