//! Why a lease is not granted, in figures. Computed only for a denial, so it may look at everything.

use crate::explain::Denied;
use crate::explanation::{Change, Explanation, Holding, MOST_NAMED, Rule};
use crate::id::{QuotaId, TenantName};
use crate::lease::{Lease, LeaseTerms};
use crate::limit::Limit;
use crate::quota::Quota;
use crate::state::{Group, State};

use super::total_limit;

pub(super) fn denied(because: Explanation) -> Denied {
    Denied::Lease {
        because: Box::new(because),
    }
}

impl State {
    /// A rule, with what a tenant may have and has in a group.
    pub(in crate::decide) fn account(
        &self,
        rule: Rule,
        text: impl Into<String>,
        tenant: &TenantName,
        group: &Group,
    ) -> Explanation {
        let quotas = self.quotas_in(tenant, group);
        let granting: Vec<&Quota> = quotas.filter(|quota| quota.in_force()).collect();
        let limit = total_limit(&granting).and_then(|limit| u32::try_from(limit).ok());
        let demand = self.demand(tenant, group);
        let own = self.own_holdings(tenant, group);
        Explanation {
            limit: Some(limit.map_or(Limit::Unlimited, Limit::Finite)),
            used: Some(demand.used()),
            leased: Some(demand.leased()),
            observed: Some(demand.observed),
            soonest: own.iter().filter_map(|holding| holding.until).min(),
            own,
            ..Explanation::new(rule, text)
        }
    }

    pub(super) fn frozen(&self, tenant: &TenantName, group: &Group, asked: Option<u64>) -> Denied {
        let text = format!("tenant {tenant} is frozen; nothing new is granted to it");
        denied(Explanation {
            asked,
            admit: Some(Change::AskOperator),
            ..self.account(Rule::Frozen, text, tenant, group)
        })
    }

    /// No quota of the tenant grants anything of this group.
    pub(super) fn no_quota(&self, terms: &LeaseTerms, group: &Group, idle: &[&Quota]) -> Denied {
        let used = self.demand(&terms.tenant, group).used();
        let asked = u64::from(terms.count);
        let limit = used.saturating_add(asked);
        let because = idle.iter().map(|quota| {
            let (rule, state) = match quota.expired {
                true => (Rule::QuotaEnded, "has ended"),
                false => (Rule::QuotaInactive, "is not active"),
            };
            let (source, id) = (quota.key.source.as_str(), quota.id.0);
            Explanation {
                limit: Some(quota.limit),
                admit: self.back_in_force(quota, limit),
                ..Explanation::new(rule, format!("the {source} quota {id} {state}"))
            }
        });
        let mut changes = idle
            .iter()
            .filter_map(|quota| self.back_in_force(quota, limit));
        let further = Change::RaiseLimit { quota: None, limit };
        let text = format!(
            "tenant {} has no {} quota of {} in {} that grants anything",
            terms.tenant, terms.quota_type, terms.gpu_model, terms.region
        );
        denied(Explanation {
            asked: Some(asked),
            admit: changes.next().or(Some(further)),
            because: because.collect(),
            ..self.account(Rule::NoQuota, text, &terms.tenant, group)
        })
    }

    // A limit that is enough already stays. Of one that has ended and is not active there is no single change.
    fn back_in_force(&self, quota: &Quota, least: u64) -> Option<Change> {
        let limit = match quota.limit {
            Limit::Finite(limit) => u64::from(limit).max(least),
            Limit::Unlimited => least,
        };
        match (quota.expired, quota.switched_off) {
            (true, false) => Some(Change::ExtendQuota {
                quota: quota.id,
                limit,
            }),
            (false, true) => Some(Change::ActivateQuota {
                quota: quota.id,
                limit,
            })
            .filter(|_| self.may_bind(quota)),
            (true, true) | (false, false) => None,
        }
    }

    /// The quotas that fit have too little room.
    pub(super) fn over_quota(
        &self,
        terms: &LeaseTerms,
        group: &Group,
        quotas: &[&Quota],
    ) -> Denied {
        let used = self.demand(&terms.tenant, group).used();
        let asked = u64::from(terms.count);
        let limit = total_limit(quotas).unwrap_or(u64::MAX);
        let room = limit.saturating_sub(used);
        let missing = used.saturating_add(asked).saturating_sub(limit);
        let admit = if room > 0 {
            Change::AskFor { count: room }
        } else {
            match self.room_from(&terms.tenant, group, limit, asked) {
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
        let text =
            format!("{used} of {limit} are used and {asked} are asked for, {missing} too many");
        denied(Explanation {
            asked: Some(asked),
            admit: Some(admit),
            because: because.collect(),
            ..self.account(Rule::OverQuota, text, &terms.tenant, group)
        })
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
                seat: None,
                count: 1,
                since: held.or(lease.map(|lease| lease.granted_at)),
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
            seat: None,
            count: lease.unplaced(),
            since: Some(lease.granted_at),
            until: lease.ends_at(),
        }));
        own.sort_by_key(|holding| (holding.until.is_none(), holding.until, holding.since));
        own.truncate(MOST_NAMED);
        own
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
