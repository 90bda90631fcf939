//! What the operator declares: tenants, regions, groups, hosts, models, counters.

use crate::catalogue::{MOST_NAMES, ModelEntry};
use crate::command::{Decision, DeclareNode, SetCounter, SetTenant};
use crate::event::Event;
use crate::explain::Denied;
use crate::id::{GpuModel, HostResourceName, LARGEST_NUMBER, ProjectId, TenantName, TenantNumber};
use crate::limit::Limit;
use crate::pool::{CardLimitKey, CounterSet, HostLimitKey, HostResource};
use crate::state::State;
use crate::tenant::{MOST_PROJECTS, TenantProfile};

use super::done;
use super::quota::over_host_limit;

/// Counters of one project at most.
const MOST_COUNTERS: usize = 256;

/// Portals take numbers up to 2^31, so an incarnation has fewer of them than of other ids.
const NUMBERS_OF_AN_INCARNATION: u32 = 1_000_000;

impl State {
    pub(super) fn decide_declare_node(&self, declared: &DeclareNode) -> Decision {
        let DeclareNode {
            node,
            region,
            groups,
            inventory,
        } = declared;
        let as_is = self.node(node).is_some_and(|known| {
            known.region == *region
                && groups
                    .as_ref()
                    .is_none_or(|groups| groups.iter().eq(known.declared_groups.iter()))
                && (inventory.is_none() || *inventory == known.inventory)
        });
        if as_is {
            return done(Vec::new());
        }
        done(vec![Event::NodeDeclared {
            node: node.clone(),
            region: region.clone(),
            groups: groups.clone(),
            inventory: inventory.clone(),
        }])
    }

    pub(super) fn decide_set_tenant(&self, set: &SetTenant) -> Result<Decision, Denied> {
        let old = self.tenant(&set.tenant).map(|tenant| &tenant.profile);
        let mut profile = match old {
            Some(old) => old.clone(),
            None => {
                self.check_name_is_no_project(&set.tenant)?;
                TenantProfile::new(set.tenant.clone(), self.free_number())
            }
        };
        if let Some(number) = set.number {
            if let Some(other) = self.tenant_by_number(number)
                && other.profile.tenant != set.tenant
            {
                return Err(Denied::NumberTaken {
                    number,
                    tenant: other.profile.tenant.clone(),
                });
            }
            profile.number = number;
        }
        if let Some(code) = &set.code {
            let others = self.tenants().map(|(_, tenant)| &tenant.profile);
            let mut others = others.filter(|other| other.tenant != set.tenant);
            if let Some(other) = others.find(|other| other.code.as_ref() == Some(code)) {
                return Err(Denied::CodeTaken {
                    code: code.clone(),
                    holder: format!("tenant {}", other.tenant),
                });
            }
            profile.code = Some(code.clone());
        }
        if let Some(projects) = &set.projects {
            if projects.len() > MOST_PROJECTS {
                return Err(too_many("projects", MOST_PROJECTS));
            }
            for project in projects {
                if let Some(owner) = self.tenant_of_project(project)
                    && owner.profile.tenant != set.tenant
                {
                    return Err(Denied::ProjectTaken {
                        project: project.clone(),
                        tenant: owner.profile.tenant.clone(),
                    });
                }
            }
            profile.projects = projects.clone();
        }
        profile.display_name = set.display_name.clone().or(profile.display_name);
        profile.frozen = set.frozen.unwrap_or(profile.frozen);
        profile.confined = set.confined.unwrap_or(profile.confined);
        profile.lease_mode = set.lease_mode.unwrap_or(profile.lease_mode);
        profile.enforcement = set.enforcement.clone().unwrap_or(profile.enforcement);
        Ok(done(changed(old, &profile, Event::TenantSet)))
    }

    /// A new tenant must not have the name of another's project: a path would mean both.
    pub(super) fn check_name_is_no_project(&self, tenant: &TenantName) -> Result<(), Denied> {
        let Ok(project) = ProjectId::new(tenant.as_str()) else {
            return Ok(());
        };
        match self.tenant_of_project(&project) {
            Some(owner) if owner.profile.tenant != *tenant => Err(Denied::ProjectTaken {
                project,
                tenant: owner.profile.tenant.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// The number of a tenant that nobody numbered.
    pub(crate) fn free_number(&self) -> TenantNumber {
        let first = u32::try_from(self.rows.tenants.len() + 1).unwrap_or(LARGEST_NUMBER);
        // Portals know the numbers of an earlier incarnation, also those that a restored journal has lost.
        let skipped = self
            .incarnation()
            .0
            .saturating_mul(NUMBERS_OF_AN_INCARNATION);
        let first = first.saturating_add(skipped).min(LARGEST_NUMBER);
        let mut numbers = (first..=LARGEST_NUMBER).chain(1..first).map(TenantNumber);
        let free = numbers.find(|number| !self.index.numbers.contains_key(number));
        free.unwrap_or(TenantNumber(LARGEST_NUMBER))
    }

    pub(super) fn decide_set_card_limit(
        &self,
        key: &CardLimitKey,
        cards: Option<u32>,
    ) -> Result<Decision, Denied> {
        if let (Some(tenant), Some(_)) = (&key.tenant, cards) {
            self.known_tenant(tenant)?;
        }
        if self.rows.card_limits.get(key).copied() == cards {
            return Ok(done(Vec::new()));
        }
        Ok(done(vec![Event::CardLimitSet {
            key: key.clone(),
            cards,
        }]))
    }

    pub(super) fn decide_set_host_resource(
        &self,
        resource: &HostResource,
    ) -> Result<Decision, Denied> {
        if resource.groups.len() > MOST_NAMES {
            return Err(too_many("groups of a host resource", MOST_NAMES));
        }
        let old = self.rows.host_resources.get(&resource.resource);
        Ok(done(changed(old, resource, Event::HostResourceSet)))
    }

    pub(super) fn decide_remove_host_resource(
        &self,
        resource: &HostResourceName,
    ) -> Result<Decision, Denied> {
        if !self.rows.host_resources.contains_key(resource) {
            return Err(unknown("host resource", resource.as_str()));
        }
        Ok(done(vec![Event::HostResourceRemoved {
            resource: resource.clone(),
        }]))
    }

    pub(super) fn decide_set_host_limit(
        &self,
        key: &HostLimitKey,
        limit: Option<Limit>,
    ) -> Result<Decision, Denied> {
        self.known_tenant(&key.tenant)?;
        let Some(resource) = self.rows.host_resources.get(&key.resource) else {
            return Err(unknown("host resource", key.resource.as_str()));
        };
        if let Some(limit) = limit {
            let bound = self.bound_nodes(&key.tenant);
            let bound = bound.iter().filter(|node| self.is_host(node, resource));
            let bound = bound.count() as u64;
            let now = self.host_limit(&key.tenant, &key.resource);
            // More than before can be nobody's loss, even while it is less than what is bound.
            if !limit.admits(bound, 0) && !limit.at_least(now) {
                return Err(over_host_limit(&key.resource, limit, bound, bound));
            }
        }
        let old = self.rows.host_limits.get(&key.tenant);
        if old.and_then(|limits| limits.get(&key.resource)).copied() == limit {
            return Ok(done(Vec::new()));
        }
        Ok(done(vec![Event::HostLimitSet {
            key: key.clone(),
            limit,
        }]))
    }

    pub(super) fn decide_set_model(&self, entry: &ModelEntry) -> Result<Decision, Denied> {
        if entry.aliases.len() > MOST_NAMES || entry.hardware.len() > MOST_NAMES {
            return Err(too_many("names of a model", MOST_NAMES));
        }
        let mut others = self.models().filter(|o| o.gpu_model != entry.gpu_model);
        if let Some((other, what)) = others.find_map(|o| entry.clash(o).map(|what| (o, what))) {
            return Err(Denied::ModelClash {
                gpu_model: entry.gpu_model.clone(),
                what,
                other: other.gpu_model.clone(),
            });
        }
        let old = self.rows.models.get(&entry.gpu_model);
        Ok(done(changed(old, entry, Event::ModelSet)))
    }

    pub(super) fn decide_remove_model(&self, model: &GpuModel) -> Result<Decision, Denied> {
        if !self.rows.models.contains_key(model) {
            return Err(unknown("model", model.as_str()));
        }
        Ok(done(vec![Event::ModelRemoved {
            gpu_model: model.clone(),
        }]))
    }

    pub(super) fn decide_set_counter(&self, set: &SetCounter) -> Result<Decision, Denied> {
        let SetCounter {
            project,
            site,
            kind,
            counter,
        } = set;
        if self.tenant_of_project(project).is_none() {
            return Err(unknown("project", project.as_str()));
        }
        let allowed = match kind.as_str() {
            "gpu_instances" => Some("set quotas instead"),
            "deh" => Some("set host limits instead"),
            // By contract there may be a bound; what is used the nodes say.
            "cores" | "Memory" if counter.as_ref().is_some_and(|c| c.used.is_some()) => {
                Some("only its quota can be set")
            }
            _ => None,
        };
        if let Some(allowed) = allowed {
            return Err(Denied::CountedHere {
                kind: kind.clone(),
                allowed: allowed.to_owned(),
            });
        }
        let known = self.rows.counters.get(project);
        let old = known.and_then(|known| known.0.get(&(site.clone(), kind.clone())));
        if old == counter.as_ref() {
            return Ok(done(Vec::new()));
        }
        let count = known.map_or(0, |known| known.0.len());
        if old.is_none() && count >= MOST_COUNTERS {
            return Err(too_many("counters of a project", MOST_COUNTERS));
        }
        Ok(done(vec![Event::CounterSet(CounterSet {
            project: project.clone(),
            site: site.clone(),
            kind: kind.clone(),
            counter: counter.clone(),
        })]))
    }

    pub(super) fn known_tenant(&self, tenant: &TenantName) -> Result<&TenantProfile, Denied> {
        let known = self.tenant(tenant).map(|known| &known.profile);
        known.ok_or_else(|| unknown("tenant", tenant.as_str()))
    }
}

/// The event, unless it is so already.
pub(super) fn changed<T: Clone + PartialEq>(
    old: Option<&T>,
    new: &T,
    event: fn(T) -> Event,
) -> Vec<Event> {
    if old == Some(new) {
        return Vec::new();
    }
    vec![event(new.clone())]
}

pub(super) fn unknown(what: &str, name: &str) -> Denied {
    Denied::Unknown {
        what: what.to_owned(),
        name: name.to_owned(),
    }
}

pub(super) fn too_many(what: &str, most: usize) -> Denied {
    Denied::TooMany {
        what: what.to_owned(),
        most,
    }
}
