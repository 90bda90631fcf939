//! Why no device is given although the quota has room: what stands in the way of each that is there.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::RequestLease;
use crate::explain::Denied;
use crate::explanation::{Change, Explanation, MOST_NAMED, Rule};
use crate::id::{NodeName, TenantName, Timestamp};
use crate::lease::{Lease, LeaseTerms};
use crate::limit::Limit;
use crate::placement::NoPlace;
use crate::quota::QuotaType;
use crate::state::{Group, State};

use super::why::denied;

impl State {
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
        let mut serving: BTreeSet<&NodeName> = BTreeSet::new();
        let mut open_nodes: BTreeSet<&NodeName> = BTreeSet::new();
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
                let of_node = self.obstacle(request, terms, name, node);
                // Room on a node may come back with the end of a lease there.
                if of_node.is_none_or(|rule| rule == Rule::NodeRoom) {
                    serving.insert(name);
                }
                let rule = match of_node {
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
                    open_nodes.insert(name);
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
                let lease = lease.filter(|_| rule == Rule::DeviceLeased);
                obstacle.ends.extend(lease.and_then(Lease::ends_at));
            }
        }
        let soonest = obstacles.values().flat_map(|it| it.ends.first()).min();
        let soonest = soonest.copied();
        let theirs = [Rule::NodeDedicated, Rule::DeviceLeased, Rule::DeviceHeld];
        let others = obstacles
            .iter()
            .filter(|(rule, _)| theirs.contains(rule))
            .map(|(_, obstacle)| obstacle.devices - obstacle.own)
            .sum();
        let mut because: Vec<Explanation> = obstacles
            .into_iter()
            .map(|(rule, obstacle)| obstacle.explain(rule))
            .collect();
        because.extend(self.too_scattered(terms, none, open, &open_nodes));
        if all == 0 {
            because.push(self.no_slice(terms, group));
        }
        let most = none.within_most_nodes;
        let admit = match most {
            1.. => Change::AskFor {
                count: u64::from(most),
            },
            0 => match self.devices_from(request, terms, group, &serving) {
                Some(at) => Change::WaitUntil { at },
                None => Change::AskOperator,
            },
        };
        let text = format!(
            "the quota has room, but of {all} devices of {} in {} {} can be given, and {} are asked for",
            terms.gpu_model, terms.region, most, terms.count
        );
        denied(Explanation {
            asked: Some(u64::from(terms.count)),
            others: Some(others),
            soonest,
            admit: Some(admit),
            because,
            ..self.account(Rule::NoDevice, text, &terms.tenant, group)
        })
    }

    // Devices that are free, but not where or not as many in one place as is asked. `open` are free, also where a bound of
    // cards offers only some of them.
    fn too_scattered(
        &self,
        terms: &LeaseTerms,
        none: &NoPlace,
        open: u32,
        nodes: &BTreeSet<&NodeName>,
    ) -> Vec<Explanation> {
        let admit = Some(match none.within_most_nodes {
            0 => Change::AskOperator,
            count => Change::AskFor {
                count: count.into(),
            },
        });
        let mut because = Vec::new();
        if none.admitted < open {
            because.push(Explanation {
                asked: Some(u64::from(terms.count)),
                admit: admit.clone(),
                because: self.at_their_limit(terms, nodes),
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
                admit,
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

    // What the tenant may have and has on each node that bounds it, the fullest first.
    fn at_their_limit(&self, terms: &LeaseTerms, nodes: &BTreeSet<&NodeName>) -> Vec<Explanation> {
        let bounded = nodes.iter().filter_map(|name| {
            let limit = self.card_limit_on(&terms.tenant, name)?;
            let cards = self.cards_of(&terms.tenant, name).len() as u64;
            Some((u64::from(limit).saturating_sub(cards), *name, limit, cards))
        });
        let mut bounded: Vec<(u64, &NodeName, u32, u64)> = bounded.collect();
        bounded.sort_unstable();
        let nodes = bounded.into_iter().take(MOST_NAMED);
        let nodes = nodes.map(|(room, name, limit, cards)| Explanation {
            limit: Some(Limit::Finite(limit)),
            used: Some(cards),
            nodes: vec![name.clone()],
            admit: Some(match room {
                0 if cards > 0 => Change::GiveBack { count: 1 },
                0 => Change::AskOperator,
                count => Change::AskFor { count },
            }),
            ..Explanation::new(
                Rule::NodeLimit,
                format!(
                    "on one node the tenant has {cards} of the {limit} cards that it may have there"
                ),
            )
        });
        nodes.collect()
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
