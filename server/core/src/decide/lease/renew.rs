//! Renewing a lease is granting anew for a later time what it has: its quotas must bear it, and its nodes must serve its
//! tenant.

use std::collections::BTreeSet;

use crate::command::Decision;
use crate::decide::unchanged;
use crate::event::Event;
use crate::explain::Denied;
use crate::explanation::{Change, Explanation, MOST_NAMED, Rule};
use crate::id::{LeaseId, NodeName, Seq, TenantName, Timestamp};
use crate::lease::Lease;
use crate::state::{Group, State};
use crate::usage::usage;

use super::answered;
use super::why::denied;

impl State {
    /// What the quotas do not bear any more, or a node does not serve, is not kept longer; it may always end sooner.
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
            });
        }
        let tenant = &lease.terms.tenant;
        if self.known_tenant(tenant)?.frozen {
            let groups = self.groups_of_lease(lease);
            let group = groups.into_iter().next().unwrap_or_else(|| lease.group());
            return Err(self.frozen(tenant, &group, None));
        }
        let usage = usage(self, tenant);
        if usage.excess() > 0 {
            // Where its devices count now, which need not be where they were asked for.
            let groups = self.groups_of_lease(lease);
            if let Some(group) = groups.into_iter().find(|group| usage.over(group) > 0) {
                return Err(self.not_kept(tenant, &group, usage.over(&group)));
            }
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
            self.check_still_served(lease)?;
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

    // A node may be bound to another tenant while a lease is there. The lease keeps its devices until its end, no longer.
    fn check_still_served(&self, lease: &Lease) -> Result<(), Denied> {
        let tenant = &lease.terms.tenant;
        let mut bound: BTreeSet<&TenantName> = BTreeSet::new();
        let mut nodes: BTreeSet<&NodeName> = BTreeSet::new();
        let mut devices: u64 = 0;
        for node in lease.devices.values() {
            if let Some(other) = self.bound_tenant(node).filter(|bound| *bound != tenant) {
                bound.insert(other);
                nodes.insert(node);
                devices += 1;
            }
        }
        if devices == 0 {
            return Ok(());
        }
        let count = u64::from(lease.terms.count);
        let text = format!(
            "{devices} of its {count} devices are on nodes that serve another tenant alone by now; it stays \
             until its end, so ask for a new lease elsewhere and move before that"
        );
        Err(denied(Explanation {
            asked: Some(count),
            others: Some(devices),
            tenants: bound.into_iter().take(MOST_NAMED).cloned().collect(),
            nodes: nodes.into_iter().take(MOST_NAMED).cloned().collect(),
            soonest: lease.expires_at,
            admit: Some(Change::LeaseElsewhere { count }),
            ..self.account(Rule::NodeDedicated, text, tenant, &lease.group())
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
