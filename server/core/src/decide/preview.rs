//! What a change to a quota would do: whom it would hit, why, and by when.

use std::collections::{BTreeMap, BTreeSet};

use super::directory::unknown;
use crate::command::{Command, Decision, OnExcess, Outcome, ReleaseQuota, SetQuota, SwitchQuota};
use crate::event::Event;
use crate::explain::Denied;
use crate::id::{LeaseId, TenantName, Timestamp};
use crate::plan::{Cause, Change, Displaced, Drain, Due, GroupPlan, Plan, Target, deadline};
use crate::quota::Quota;
use crate::state::{Group, State};

/// What a change to a quota would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// Who would have to go: by the change itself, or, where that hits nobody, when the quota ends.
    pub plan: Plan,
    /// Who else would have to go when the quota ends; `None` where `plan` says all.
    pub at_end: Option<Plan>,
    /// Others on the nodes of the quota.
    pub others: Vec<Displaced>,
    /// Why the change as it was asked for would be refused for what is in use; `None`: it would be taken.
    pub refused: Option<Denied>,
}

impl State {
    /// What a change to a quota would do, whatever is in use; any other command has no plan.
    ///
    /// # Errors
    /// When it would be refused for anything else than what is in use.
    pub fn preview(&self, command: &Command, now: Timestamp) -> Result<Preview, Denied> {
        let now = now.max(self.rows.at);
        let (tenant, taken, ends) = match command {
            Command::SetQuota(set) => {
                let taken = SetQuota {
                    on_excess: OnExcess::Drain,
                    ..set.clone()
                };
                let ends = set.expires_at.filter(|end| *end > now);
                (&set.name.tenant, Command::SetQuota(taken), ends)
            }
            Command::ReleaseQuota(release) => {
                let taken = ReleaseQuota {
                    forced: true,
                    ..release.clone()
                };
                let tenant = &release.name.tenant;
                (tenant, Command::ReleaseQuota(taken), None)
            }
            Command::SwitchQuota(switch) => {
                let known = self.quota(switch.quota).ok_or(Denied::NoSuchQuota)?;
                let taken = SwitchQuota {
                    on_excess: OnExcess::Drain,
                    ..*switch
                };
                let ends = known.expires_at.filter(|_| switch.active);
                let ends = ends.filter(|end| *end > now);
                (&known.key.tenant, Command::SwitchQuota(taken), ends)
            }
            _ => return Err(unknown("plan", "of such a command")),
        };
        let swept = self.decide(&Command::Sweep, now)?;
        let mut state = self.clone();
        state.fold_in(&swept.events, now);
        let refused = state.decide(command, now).err();
        let decision = state.decide(&taken, now)?;
        let mut after = state.clone();
        after.fold_in(&decision.events, now);
        let plan = state.plan_of(&after, tenant, &decision);
        let (plan, at_end) = match ends {
            Some(end) => after.with_end(end, plan),
            None => (plan, None),
        };
        let others = match decision.outcome {
            Outcome::Quota(quota) => after.quota(quota),
            _ => None,
        };
        let others = others.filter(|quota| quota.in_force());
        let others = others.map(|quota| after.others_on(tenant, &quota.nodes));
        Ok(Preview {
            plan,
            at_end,
            others: others.unwrap_or_default(),
            refused,
        })
    }

    // What a decision does to those who hold and lease something now.
    fn plan_of(&self, after: &Self, tenant: &TenantName, decision: &Decision) -> Plan {
        let change = Change {
            state: self,
            tenant,
            before: self.quotas_of(tenant).collect(),
            after: after.quotas_of(tenant).collect(),
            gone: BTreeSet::new(),
        };
        let begun = decision.events.iter().filter_map(|event| match event {
            Event::DrainBegun {
                tenant: whose,
                group,
                cause,
                deadline,
            } if whose == tenant => Some((
                group.clone(),
                Due {
                    deadline: *deadline,
                    cause: *cause,
                },
            )),
            _ => None,
        });
        let begun: BTreeMap<Group, Due> = begun.collect();
        let mut drains = after.drains_ahead(tenant);
        drains.extend(begun.clone());
        Plan {
            tenant: tenant.clone(),
            due: begun.into_values().min(),
            groups: change.plans(&change.groups(), &drains),
        }
    }

    // A plan and that of the end of the quota: one of both where the end comes first, or alone hits anybody.
    fn with_end(&self, end: Timestamp, plan: Plan) -> (Plan, Option<Plan>) {
        let mut at_end = self.plan_at(end, &plan.tenant, &plan);
        let open = |group: &GroupPlan| group.due.is_some_and(|due| due.deadline >= end);
        let overtaken = plan.groups.iter().any(open);
        match (at_end.due, plan.due) {
            (_, _) if overtaken => {}
            (Some(_), None) => {}
            (Some(_), Some(_)) => return (plan, Some(at_end)),
            (None, _) => return (plan, None),
        }
        for group in &mut at_end.groups {
            let mut now = plan.groups.iter().filter(|now| now.group == group.group);
            group.limit_before = now
                .next()
                .map_or(group.limit_before, |now| now.limit_before);
        }
        let dues = at_end.groups.iter().filter_map(|group| group.due);
        at_end.due = at_end.due.or(dues.min());
        (at_end, None)
    }

    // What a coming end does, with what is gone by then by an earlier plan.
    fn plan_at(&self, end: Timestamp, tenant: &TenantName, earlier: &Plan) -> Plan {
        let quotas = |ended: &dyn Fn(Timestamp) -> bool| -> Vec<Quota> {
            let quotas = self.quotas_of(tenant).cloned();
            quotas
                .map(|quota| Quota {
                    expired: quota.expired || quota.expires_at.is_some_and(ended),
                    ..quota
                })
                .collect()
        };
        let (before, after) = (quotas(&|at| at < end), quotas(&|at| at <= end));
        let change = Change {
            state: self,
            tenant,
            before: before.iter().collect(),
            after: after.iter().collect(),
            gone: ended_before(end, earlier),
        };
        let mut groups = change.groups();
        groups.extend(earlier.groups.iter().map(|plan| plan.group.clone()));
        let due = Due {
            deadline: deadline(self, Cause::Expiry, end),
            cause: Cause::Expiry,
        };
        let mut drains = self.drains_ahead(tenant);
        drains.retain(|_, due| due.deadline >= end);
        let worse = groups.iter().filter(|group| change.worse_by(group, end));
        let worse: Vec<Group> = worse.cloned().collect();
        let begins = !worse.is_empty();
        drains.extend(worse.into_iter().map(|group| (group, due)));
        Plan {
            tenant: tenant.clone(),
            due: begins.then_some(due),
            groups: change.plans(&groups, &drains),
        }
    }

    // Drains of the tenant that have not ended leases yet.
    fn drains_ahead(&self, tenant: &TenantName) -> BTreeMap<Group, Due> {
        let drains = self.drains_of(tenant);
        let drains = drains.filter(|(_, drain)| drain.enforced_at.is_none());
        drains
            .map(|(group, drain)| (group.clone(), Drain::due(drain)))
            .collect()
    }
}

fn ended_before(end: Timestamp, plan: &Plan) -> BTreeSet<LeaseId> {
    let groups = plan.groups.iter();
    let groups = groups.filter(|group| group.due.is_some_and(|due| due.deadline < end));
    let victims = groups.flat_map(|group| &group.victims);
    victims
        .filter_map(|victim| match victim.what {
            Target::Lease { lease, .. } => Some(lease),
            Target::Device { .. } => None,
        })
        .collect()
}
