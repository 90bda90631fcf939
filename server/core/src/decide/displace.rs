//! Binding nodes on which others have leases: those leases are named, or have the notice to leave, and may stay when the
//! nodes serve their tenants again.

use std::collections::BTreeSet;

use crate::command::OnExcess;
use crate::event::Event;
use crate::explain::Denied;
use crate::explanation::{Explanation, MOST_NAMED, Rule};
use crate::id::{LeaseId, NodeName, TenantName, Timestamp};
use crate::lease::Lease;
use crate::plan::{Activity, Cause, Displaced, Target, activity, deadline};
use crate::state::State;

impl State {
    /// What becomes of the leases of others when these nodes are bound to a tenant.
    pub(super) fn displaced(
        &self,
        tenant: &TenantName,
        nodes: &BTreeSet<NodeName>,
        on_excess: OnExcess,
        now: Timestamp,
    ) -> Result<Vec<Event>, Denied> {
        match on_excess {
            OnExcess::Deny => {
                let new = nodes.iter();
                let new = new.filter(|node| self.bound_tenant(node) != Some(tenant));
                let leases = self.leases_of_others(tenant, new);
                match leases.is_empty() {
                    true => Ok(Vec::new()),
                    false => Err(self.leased_by_others(&leases)),
                }
            }
            OnExcess::Drain => {
                let leave_by = deadline(self, Cause::Shrink, now);
                let leases = self.leases_of_others(tenant, nodes.iter());
                let stay = leases.into_iter().filter_map(|lease| self.lease(lease));
                let stay = stay.filter(|lease| lease.leave_by.is_none());
                let stay = stay.filter(|lease| lease.ends_at().is_none_or(|end| end > leave_by));
                Ok(stay
                    .map(|lease| Event::LeaseToLeave {
                        lease: lease.id,
                        leave_by: Some(leave_by),
                    })
                    .collect())
            }
        }
    }

    fn leases_of_others<'a>(
        &self,
        tenant: &TenantName,
        nodes: impl Iterator<Item = &'a NodeName>,
    ) -> BTreeSet<LeaseId> {
        let leases = nodes.flat_map(|node| self.leases_at(node));
        leases
            .filter(|lease| lease.active() && lease.terms.tenant != *tenant)
            .map(|lease| lease.id)
            .collect()
    }

    fn leased_by_others(&self, leases: &BTreeSet<LeaseId>) -> Denied {
        let known: Vec<&Lease> = leases.iter().filter_map(|id| self.lease(*id)).collect();
        let tenants: BTreeSet<&TenantName> = known.iter().map(|it| &it.terms.tenant).collect();
        let nodes: BTreeSet<&NodeName> = known.iter().flat_map(|lease| lease.nodes()).collect();
        let named: Vec<String> = leases.iter().map(|id| id.0.to_string()).collect();
        let more = match named.len() > MOST_NAMED {
            true => ", …",
            false => "",
        };
        let named = named[..named.len().min(MOST_NAMED)].join(", ");
        Denied::LeasedByOthers {
            because: Box::new(Explanation {
                others: Some(
                    known
                        .iter()
                        .fold(0, |sum, it| sum + u64::from(it.terms.count)),
                ),
                tenants: tenants.into_iter().take(MOST_NAMED).cloned().collect(),
                nodes: nodes.into_iter().take(MOST_NAMED).cloned().collect(),
                soonest: known.iter().filter_map(|lease| lease.ends_at()).min(),
                ..Explanation::new(
                    Rule::DeviceLeased,
                    format!(
                        "others have {} leases on these nodes ({named}{more}); wait for their end, or set on_excess to \
                         drain to give them the notice to leave; dry_run shows them",
                        leases.len()
                    ),
                )
            }),
        }
    }

    /// Leases that may stay after these events, because no node of theirs serves another tenant alone any more.
    pub(super) fn let_stay(&self, events: &[Event], now: Timestamp) -> Vec<Event> {
        let quotas = events.iter().filter_map(|event| match event {
            Event::QuotaSet { quota, .. }
            | Event::QuotaExpired { quota }
            | Event::QuotaSwitched { quota, .. }
            | Event::QuotaReleased { quota, .. } => self.quota(*quota),
            _ => None,
        });
        let nodes = quotas.flat_map(|quota| &quota.nodes);
        let leases = nodes.flat_map(|node| self.leases_at(node));
        let leases = leases.filter(|lease| lease.leave_by.is_some() && lease.active());
        let leases: BTreeSet<LeaseId> = leases.map(|lease| lease.id).collect();
        if leases.is_empty() {
            return Vec::new();
        }
        let mut after = self.clone();
        after.fold_in(events, now.max(self.rows.at));
        let stays = leases.into_iter().filter(|id| {
            after.lease(*id).is_some_and(|lease| {
                let tenant = Some(&lease.terms.tenant);
                let mut bound = lease
                    .nodes()
                    .into_iter()
                    .map(|node| after.bound_tenant(node));
                lease.active() && bound.all(|bound| bound.is_none() || bound == tenant)
            })
        });
        stays
            .map(|lease| Event::LeaseToLeave {
                lease,
                leave_by: None,
            })
            .collect()
    }

    /// Who else is on nodes of a tenant.
    pub(super) fn others_on(
        &self,
        tenant: &TenantName,
        nodes: &BTreeSet<NodeName>,
    ) -> Vec<Displaced> {
        let leases = self.leases_of_others(tenant, nodes.iter());
        let leases = leases.into_iter().filter_map(|id| self.lease(id));
        let leases = leases.map(|lease| Displaced {
            tenant: lease.terms.tenant.clone(),
            what: Target::Lease {
                lease: lease.id,
                devices: lease.devices.clone(),
            },
            activity: activity(self, lease),
            since: lease.granted_at,
            until: lease.ends_at(),
        });
        let mut others: Vec<Displaced> = leases.collect();
        for node in nodes {
            let keys = self.node(node).into_iter().flat_map(|node| &node.devices);
            for device in keys.filter_map(|key| self.device(key)) {
                let key = &device.report.key;
                let lessee = self.lease_on(key).map(|lease| &lease.terms.tenant);
                let holders = device.holders.iter();
                let holders = holders.filter(|(who, _)| *who != tenant && Some(*who) != lessee);
                others.extend(holders.map(|(who, since)| Displaced {
                    tenant: who.clone(),
                    what: Target::Device {
                        device: key.clone(),
                        node: node.clone(),
                    },
                    activity: Activity::InUse,
                    since: *since,
                    until: None,
                }));
            }
        }
        others
    }
}
