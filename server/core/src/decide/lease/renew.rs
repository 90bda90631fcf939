//! Renewing a lease is granting anew for a later time what it has: to its tenant as it is now, within its quotas, on nodes
//! that serve it. It may always end sooner.

use std::collections::BTreeSet;

use crate::command::Decision;
use crate::decide::unchanged;
use crate::event::Event;
use crate::explain::Denied;
use crate::explanation::{Change, Explanation, MOST_NAMED, Rule};
use crate::id::{LeaseId, NodeName, Seq, TenantName, Timestamp};
use crate::lease::Lease;
use crate::quota::QuotaType;
use crate::state::{Group, State};
use crate::usage::usage;

use super::answered;
use super::why::denied;

impl State {
    pub(in crate::decide) fn decide_renew_lease(
        &self,
        id: LeaseId,
        ttl_ms: Option<u64>,
        expected: Option<Seq>,
        now: Timestamp,
    ) -> Result<Decision, Denied> {
        let lease = self.known_lease(id)?;
        unchanged("lease", expected, lease.changed)?;
        if !lease.active() {
            return Err(Denied::LeaseOver {
                lease: id,
                state: lease.state().to_owned(),
                because: Some(Box::new(Explanation {
                    admit: Some(Change::AskFor {
                        count: lease.terms.count.into(),
                    }),
                    ..Explanation::new(
                        Rule::LeaseOver,
                        format!("lease {} is {}; ask for a new one", id.0, lease.state()),
                    )
                })),
            });
        }
        let expires_at = ttl_ms.map(|ttl| now.after(ttl));
        if lease.expires_at == expires_at {
            return Ok(answered(Vec::new(), lease.clone()));
        }
        let later = match (lease.expires_at, expires_at) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(old), Some(new)) => new > old,
        };
        if later {
            self.check_longer(lease)?;
        }
        let renewed = Lease {
            expires_at,
            changed: self.rows.seq.next(),
            ..lease.clone()
        };
        let event = Event::LeaseRenewed {
            lease: id,
            expires_at,
        };
        Ok(answered(vec![event], renewed))
    }

    fn check_longer(&self, lease: &Lease) -> Result<(), Denied> {
        let tenant = &lease.terms.tenant;
        // Where its devices count now, which need not be where they were asked for.
        let groups = self.groups_of_lease(lease);
        let outside = |group: &Group| group.quota_type != QuotaType::Dedicated;
        let counts_in = groups.first().cloned().unwrap_or_else(|| lease.group());
        self.check_tenant(&lease.terms, &counts_in, groups.iter().any(outside))?;
        let usage = usage(self, tenant);
        if usage.excess() > 0
            && let Some(group) = groups.into_iter().find(|group| usage.over(group) > 0)
        {
            return Err(self.not_kept(tenant, &group, usage.over(&group)));
        }
        let rules = [Rule::NodeDedicated, Rule::NodeGroup, Rule::NodeLimit];
        rules
            .into_iter()
            .try_for_each(|rule| self.check_still_served(lease, rule))
    }

    // What becomes of a node while a lease is there does not take its devices. It keeps them until its end, no longer.
    fn check_still_served(&self, lease: &Lease, rule: Rule) -> Result<(), Denied> {
        let tenant = &lease.terms.tenant;
        let kept_off = |node: &NodeName| match rule {
            Rule::NodeDedicated => self.bound_tenant(node).is_some_and(|to| to != tenant),
            Rule::NodeGroup => self.closed_to(tenant, node),
            _ => {
                let cards = || u32::try_from(self.cards_of(tenant, node).len());
                let limit = self.card_limit_on(tenant, node);
                limit.is_some_and(|limit| cards().map_or(true, |cards| cards > limit))
            }
        };
        let mut bound: BTreeSet<&TenantName> = BTreeSet::new();
        let mut nodes: BTreeSet<&NodeName> = BTreeSet::new();
        let mut devices: u64 = 0;
        for node in lease.devices.values() {
            if nodes.contains(node) || kept_off(node) {
                bound.extend(self.bound_tenant(node).filter(|to| *to != tenant));
                nodes.insert(node);
                devices += 1;
            }
        }
        if devices == 0 {
            return Ok(());
        }
        let by_now = match rule {
            Rule::NodeDedicated => "on nodes that serve another tenant alone by now",
            Rule::NodeGroup => "in resource groups that are closed to this tenant by now",
            _ => "on nodes where the tenant has more cards than it may by now",
        };
        let count = u64::from(lease.terms.count);
        let text = format!(
            "{devices} of its {count} devices are {by_now}; it stays until its end, so ask for a new lease \
             elsewhere and move before that"
        );
        Err(denied(Explanation {
            asked: Some(count),
            others: Some(devices),
            tenants: bound.into_iter().take(MOST_NAMED).cloned().collect(),
            nodes: nodes.into_iter().take(MOST_NAMED).cloned().collect(),
            soonest: lease.ends_at(),
            admit: Some(Change::LeaseElsewhere { count }),
            ..self.account(rule, text, tenant, &lease.group())
        }))
    }

    // A lease that its quotas do not bear any more.
    fn not_kept(&self, tenant: &TenantName, group: &Group, over: u64) -> Denied {
        let used = self.demand(tenant, group).used();
        let text =
            format!("{used} are used, {over} more than quotas bear; give {over} back to renew");
        denied(Explanation {
            admit: Some(Change::GiveBack { count: over }),
            ..self.account(Rule::OverQuota, text, tenant, group)
        })
    }
}
