//! Quotas: which one a caller means, and when it may change.

use std::collections::BTreeSet;

use crate::command::{Decision, OnExcess, Outcome, QuotaName, ReleaseQuota, SetQuota};
use crate::event::Event;
use crate::explain::Denied;
use crate::explanation::{Change, Explanation, Rule};
use crate::id::{HostResourceName, NodeName, QuotaId, Timestamp};
use crate::limit::Limit;
use crate::quota::{Quota, QuotaKey, QuotaType};
use crate::state::State;
use crate::tenant::TenantProfile;
use crate::usage::{usage, usage_with};

use super::done;

impl State {
    pub(super) fn decide_set_quota(
        &self,
        set: &SetQuota,
        now: Timestamp,
    ) -> Result<Decision, Denied> {
        let name = &set.name;
        let key = self.key_of(name, set.nodes.is_some())?;
        let old = self.by_key(&key);
        let nodes = self.nodes_of(set, &key)?;
        // Out of force it binds nothing; it is asked when it is put back.
        let switched_off = old.is_some_and(|old| old.switched_off);
        if !switched_off {
            self.check_bindings(&key, &nodes)?;
            self.check_host_limits(old, &key, &nodes)?;
        }
        let reference = name.reference.or(old.and_then(|old| old.reference));
        let id = old.map_or(QuotaId(self.rows.next_quota), |old| old.id);
        let outcome = Outcome::Quota(id);
        // An end in the past is always taken (D0.6): what it leaves unjustified is not the doing of limit or nodes.
        let ended = set.expires_at.is_some_and(|end| end <= now);
        let displaced = match ended || switched_off {
            true => Vec::new(),
            false => self.displaced(&key.tenant, &nodes, set.on_excess, now)?,
        };
        let unchanged = old.is_some_and(|old| {
            old.limit == set.limit
                && old.expires_at == set.expires_at
                && old.reference == reference
                && old.nodes == nodes
        });
        if unchanged {
            return Ok(Decision {
                events: displaced,
                outcome,
            });
        }
        let judged = Quota {
            id,
            key: key.clone(),
            model: self.catalogue().canonical(&key.gpu_model),
            limit: set.limit,
            expires_at: old
                .filter(|_| ended)
                .map_or(set.expires_at, |old| old.expires_at),
            expired: ended && old.is_none_or(|old| old.expired),
            switched_off,
            reference,
            nodes: nodes.clone(),
            noticed: None,
            enforcement: None,
            created_at: now,
            updated_at: now,
        };
        let deny = match set.on_excess {
            OnExcess::Deny => true,
            OnExcess::Drain => false,
        };
        if deny && old.is_none_or(|old| may_take_away(old, &judged)) {
            self.check_excess(old, &judged)?;
        }
        let mut events = Vec::new();
        if !self.rows.tenants.contains_key(&key.tenant) {
            self.check_name_is_no_project(&key.tenant)?;
            events.push(Event::TenantSet(TenantProfile::new(
                key.tenant.clone(),
                self.free_number(),
            )));
        }
        events.push(Event::QuotaSet {
            quota: id,
            key,
            limit: set.limit,
            expires_at: set.expires_at,
            reference,
            nodes,
        });
        events.extend(displaced);
        Ok(Decision { events, outcome })
    }

    pub(super) fn decide_release_quota(&self, release: &ReleaseQuota) -> Result<Decision, Denied> {
        let named = self
            .key_of(&release.name, false)
            .map(|key| self.by_key(&key));
        let quota = match named {
            Ok(Some(quota)) => quota,
            Ok(None) if release.must_exist => return Err(Denied::NoSuchQuota),
            Err(denied) if release.must_exist => return Err(denied),
            Ok(None) | Err(_) => return Ok(done(Vec::new())),
        };
        // Never the quota that happens to bear these fields: a repeated release by id would take the wrong one.
        if release.name.reference.is_some() && release.name.reference != quota.reference {
            return if release.must_exist {
                Err(Denied::NoSuchQuota)
            } else {
                Ok(done(Vec::new()))
            };
        }
        let used = usage(self, &quota.key.tenant).of(quota.id);
        if used > 0 && !release.forced {
            let text =
                format!("{used} are charged to this quota; give them back, or force the release");
            let because = Explanation {
                asked: Some(0),
                admit: Some(Change::GiveBack { count: used }),
                ..self.account(Rule::InUse, text, &quota.key.tenant, &quota.group())
            };
            return Err(Denied::InUse {
                quota: quota.id,
                used,
                because: Some(Box::new(because)),
            });
        }
        Ok(done(vec![Event::QuotaReleased {
            quota: quota.id,
            forced: release.forced,
        }]))
    }

    fn key_of(&self, name: &QuotaName, names_nodes: bool) -> Result<QuotaKey, Denied> {
        let known = name
            .reference
            .and_then(|reference| self.by_reference(&name.tenant, reference));
        let quota_type = match (names_nodes, name.quota_type, known) {
            (true, Some(QuotaType::Dedicated) | None, _) => QuotaType::Dedicated,
            (true, Some(_), _) => return Err(Denied::NodesWithoutDedicated),
            (false, Some(quota_type), _) => quota_type,
            (false, None, Some(known)) => known.key.quota_type,
            (false, None, None) => self.catalogue().implied_type(&name.gpu_model),
        };
        let key = QuotaKey {
            tenant: name.tenant.clone(),
            region: name.region.clone(),
            source: name.source,
            quota_type,
            gpu_model: name.gpu_model.clone(),
        };
        match (known, name.reference) {
            (Some(known), Some(reference)) if known.key != key => Err(Denied::ReferenceTaken {
                reference,
                key: known.key.clone(),
            }),
            _ => Ok(key),
        }
    }

    // A dedicated quota keeps its nodes when a later call names it by its id alone.
    fn nodes_of(&self, set: &SetQuota, key: &QuotaKey) -> Result<BTreeSet<NodeName>, Denied> {
        if key.quota_type != QuotaType::Dedicated {
            return Ok(BTreeSet::new());
        }
        let nodes = match &set.nodes {
            Some(nodes) => nodes.clone(),
            None => set
                .name
                .reference
                .and_then(|reference| self.by_reference(&key.tenant, reference))
                .map(|quota| quota.nodes.clone())
                .unwrap_or_default(),
        };
        if nodes.is_empty() {
            return Err(Denied::DedicatedWithoutNodes);
        }
        Ok(nodes)
    }

    pub(super) fn check_bindings(
        &self,
        key: &QuotaKey,
        nodes: &BTreeSet<NodeName>,
    ) -> Result<(), Denied> {
        for node in nodes {
            if let Some(bound) = self.bound_tenant(node)
                && *bound != key.tenant
            {
                return Err(Denied::NodeBound {
                    node: node.clone(),
                    tenant: bound.clone(),
                    because: Some(Box::new(Explanation {
                        tenants: vec![bound.clone()],
                        nodes: vec![node.clone()],
                        admit: Some(Change::AskOperator),
                        ..Explanation::new(
                            Rule::NodeDedicated,
                            format!(
                                "node {node} serves another tenant alone; take it from that quota first, or name another"
                            ),
                        )
                    })),
                });
            }
        }
        Ok(())
    }

    // A kind of which no host is added may stay over its limit.
    pub(super) fn check_host_limits(
        &self,
        old: Option<&Quota>,
        key: &QuotaKey,
        nodes: &BTreeSet<NodeName>,
    ) -> Result<(), Denied> {
        if nodes.is_empty() {
            return Ok(());
        }
        let bound = self.bound_nodes(&key.tenant);
        let others = self.quotas_of(&key.tenant);
        let others =
            others.filter(|quota| quota.in_force() && old.is_none_or(|old| old.id != quota.id));
        let mut after: BTreeSet<&NodeName> = others.flat_map(|quota| &quota.nodes).collect();
        after.extend(nodes);
        for resource in self.host_resources() {
            let hosts = |nodes: &BTreeSet<&NodeName>| {
                nodes
                    .iter()
                    .filter(|node| self.is_host(node, resource))
                    .count() as u64
            };
            let (before, asked) = (hosts(&bound), hosts(&after));
            let limit = self.host_limit(&key.tenant, &resource.resource);
            if asked > before && !limit.admits(asked, 0) {
                return Err(over_host_limit(&resource.resource, limit, before, asked));
            }
        }
        Ok(())
    }

    // Only what this change would leave unjustified counts: a tenant that is over already may still be given more.
    pub(super) fn check_excess(&self, old: Option<&Quota>, new: &Quota) -> Result<(), Denied> {
        if old.is_none() && new.nodes.is_empty() {
            // A further quota of the region takes nothing from others; one with nodes takes what is held there.
            return Ok(());
        }
        let tenant = &new.key.tenant;
        let others = self.quotas_of(tenant).filter(|quota| quota.id != new.id);
        let quotas: Vec<&Quota> = others.chain([new]).collect();
        let before = usage(self, tenant);
        let after = usage_with(self, tenant, &quotas);
        let excess = after.excess().saturating_sub(before.excess());
        if excess == 0 {
            return Ok(());
        }
        let asked = match new.switched_off {
            true => Limit::Finite(0),
            false => new.limit,
        };
        let asked_for = match asked {
            Limit::Finite(limit) => Some(u64::from(limit)),
            Limit::Unlimited => None,
        };
        let because = Explanation {
            asked: asked_for,
            admit: Some(self.accepted(new, &quotas, before.excess(), excess)),
            ..self.account(
                Rule::BelowUse,
                format!("{excess} of what is held or leased would be justified by no quota"),
                tenant,
                &new.group(),
            )
        };
        Err(Denied::BelowUse {
            quota: new.id,
            asked: asked.to_string(),
            limit: old.unwrap_or(new).limit.to_string(),
            used: old.map_or(&after, |_| &before).of(new.id),
            excess,
            because: Some(Box::new(because)),
        })
    }

    // Each more that the quota grants justifies one more device, or none ever; so there is one limit to try.
    fn accepted(&self, new: &Quota, quotas: &[&Quota], before: u64, excess: u64) -> Change {
        let give_back = Change::GiveBack { count: excess };
        let Limit::Finite(asked) = new.limit else {
            return give_back;
        };
        let least = u64::from(asked).saturating_add(excess);
        let Ok(limit) = u32::try_from(least) else {
            return give_back;
        };
        let larger = Quota {
            limit: Limit::Finite(limit),
            ..new.clone()
        };
        let others = quotas.iter().copied().filter(|quota| quota.id != new.id);
        let quotas: Vec<&Quota> = others.chain([&larger]).collect();
        if usage_with(self, &new.key.tenant, &quotas).excess() > before {
            return give_back;
        }
        Change::SetLimit {
            quota: new.id,
            limit: least,
        }
    }
}

/// More hosts of a kind than the tenant may have; `used` are bound to it.
pub(super) fn over_host_limit(
    resource: &HostResourceName,
    limit: Limit,
    used: u64,
    asked: u64,
) -> Denied {
    let text = format!("{asked} hosts of {resource} would be bound, and {limit} may be");
    Denied::HostLimit {
        resource: resource.clone(),
        limit: limit.to_string(),
        asked,
        because: Some(Box::new(Explanation {
            limit: Some(limit),
            used: Some(used),
            asked: Some(asked),
            admit: Some(Change::SetHostLimit {
                resource: resource.clone(),
                limit: asked,
            }),
            ..Explanation::new(Rule::HostLimit, text)
        })),
    }
}

// More of the same can leave nothing unjustified, and the check costs a look at all that the tenant holds.
fn may_take_away(old: &Quota, new: &Quota) -> bool {
    !new.limit.at_least(old.limit) || old.in_force() != new.in_force() || old.nodes != new.nodes
}
