//! Leases: what is promised to whom, checked against every limit at once. The order of the checks is the order in which
//! a denial names them: the tenant, its project, its quotas, then the devices.

mod bearing;
mod candidates;
mod confirm;
mod ends;
mod obstacles;
mod renew;
mod why;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::{Decision, Outcome, RequestLease};
use crate::device::DeviceKey;
use crate::event::Event;
use crate::explain::Denied;
use crate::explanation::{Change, Explanation, Rule};
use crate::id::{Epoch, LeaseId, NodeName, Seq, Timestamp};
use crate::lease::{
    EndReason, Lease, LeasePhase, LeasePlacement, LeaseTerms, LeasedMake, MOST_LABELS, MOST_LEASED,
    Unconfirmed,
};
use crate::mutant::{Mutant, planted};
use crate::placement::{Wish, place};
use crate::quota::{Quota, QuotaSource, QuotaType};
use crate::settings::Settings;
use crate::state::{Group, State};
use crate::usage::in_order;

use bearing::{Bearing, NotGiven};

use super::directory::{too_many, unknown};
use super::{done, unchanged};

impl State {
    pub(super) fn decide_set_settings(&self, settings: &Settings) -> Decision {
        if *self.settings() == *settings {
            return done(Vec::new());
        }
        done(vec![Event::SettingsSet(settings.clone())])
    }

    pub(super) fn decide_request_lease(
        &self,
        request: &RequestLease,
        now: Timestamp,
    ) -> Result<Decision, Denied> {
        if request.count == 0 || request.count > MOST_LEASED {
            return Err(too_many(
                "devices of a lease, which has at least one",
                MOST_LEASED as usize,
            ));
        }
        if request.labels.len() > MOST_LABELS {
            return Err(too_many("labels of a lease", MOST_LABELS));
        }
        let terms = self.terms_of(request);
        let group = Group {
            region: terms.region.clone(),
            quota_type: terms.quota_type,
            model: self.catalogue().canonical(&terms.gpu_model),
        };
        self.check_tenant(&terms, &group, terms.quota_type != QuotaType::Dedicated)?;
        let source = self.check_quotas(&terms, &group)?;
        let devices = match terms.placement {
            LeasePlacement::CountOnly => {
                self.check_number(&terms, &group)?;
                BTreeMap::new()
            }
            LeasePlacement::Devices => self.choose_devices(request, &terms, &group)?,
        };
        let reports = devices.keys().filter_map(|key| self.device(key));
        let makes = LeasedMake::of(reports.map(|device| &device.report));
        let lease = Lease {
            id: LeaseId(self.rows.next_lease.max(1)),
            terms: terms.clone(),
            model: group.model,
            source,
            devices: devices.clone(),
            makes: makes.clone(),
            epoch: Epoch(self.rows.last_epoch.0 + 1),
            granted_at: now,
            expires_at: request.ttl_ms.map(|ttl| now.after(ttl)),
            leave_by: None,
            phase: LeasePhase::Active,
            changed: self.rows.seq.next(),
        };
        let granted = Event::LeaseGranted {
            lease: lease.id,
            terms,
            source,
            devices,
            makes,
            epoch: lease.epoch,
            expires_at: lease.expires_at,
        };
        Ok(answered(vec![granted], lease))
    }

    // Dedicated quotas need not be about the same nodes, so their sum says too little of a number too.
    fn check_number(&self, terms: &LeaseTerms, group: &Group) -> Result<(), Denied> {
        if terms.quota_type != QuotaType::Dedicated {
            return Ok(());
        }
        // What is held without a lease is charged already, and covers a number.
        let demand = self.demand(&terms.tenant, group);
        let covered = demand.bare().saturating_sub(demand.unplaced);
        let asked = u64::from(terms.count).saturating_sub(covered);
        let borne = Bearing::of(self, &terms.tenant).numbers(group, asked);
        if borne < asked {
            return Err(self.not_borne(terms, group, covered + borne));
        }
        Ok(())
    }

    /// Releasing what is to end already, or has ended, is no error: who asks twice gets the same answer.
    pub(super) fn decide_release_lease(
        &self,
        id: LeaseId,
        forced: bool,
        expected: Option<Seq>,
        now: Timestamp,
    ) -> Result<Decision, Denied> {
        let lease = self.known_lease(id)?;
        unchanged("lease", expected, lease.changed)?;
        let reason = match (&lease.phase, forced) {
            (LeasePhase::Ended { .. }, _) | (LeasePhase::Releasing { .. }, false) => {
                return Ok(answered(Vec::new(), lease.clone()));
            }
            (LeasePhase::Releasing { reason, .. }, true) => *reason,
            (LeasePhase::Active, true) => EndReason::Forced,
            (LeasePhase::Active, false) => EndReason::Released,
        };
        let unconfirmed = lease.occupied();
        let unconfirmed: BTreeMap<_, _> = unconfirmed
            .map(|(key, _)| (key.clone(), Unconfirmed::Forced))
            .collect();
        let (event, lease) = if forced {
            let event = Event::LeaseEnded {
                lease: id,
                reason,
                unconfirmed: unconfirmed.clone(),
            };
            (event, lease.ended(now, reason, &unconfirmed))
        } else {
            let event = self.ending(lease, reason, now);
            let after = match &event {
                Event::LeaseReleasing { deadline, .. } => {
                    lease.releasing(now, self.seq().next(), reason, *deadline)
                }
                _ => lease.ended(now, reason, &BTreeMap::new()),
            };
            (event, after)
        };
        let lease = Lease {
            changed: self.rows.seq.next(),
            ..lease
        };
        Ok(answered(vec![event], lease))
    }

    /// How a lease begins to end: one without devices has nothing that could be seen.
    pub(super) fn ending(&self, lease: &Lease, reason: EndReason, now: Timestamp) -> Event {
        if lease.devices.is_empty() {
            return Event::LeaseEnded {
                lease: lease.id,
                reason,
                unconfirmed: BTreeMap::new(),
            };
        }
        Event::LeaseReleasing {
            lease: lease.id,
            reason,
            deadline: self.waits_until(now),
        }
    }

    fn known_lease(&self, id: LeaseId) -> Result<&Lease, Denied> {
        self.lease(id)
            .ok_or_else(|| unknown("lease", &id.0.to_string()))
    }

    // Every name is resolved before anything is charged.
    fn terms_of(&self, request: &RequestLease) -> LeaseTerms {
        let quota_type = request.quota_type;
        LeaseTerms {
            tenant: request.tenant.clone(),
            region: request.region.clone(),
            gpu_model: request.gpu_model.clone(),
            quota_type: quota_type
                .unwrap_or_else(|| self.catalogue().implied_type(&request.gpu_model)),
            count: request.count,
            placement: request.placement,
            project: request.project.clone(),
            cpu_cores: request.cpu_cores,
            memory_bytes: request.memory_bytes,
            labels: request.labels.clone(),
        }
    }

    // `outside`: some of it is, or will be, elsewhere than on nodes that serve the tenant alone.
    fn check_tenant(&self, terms: &LeaseTerms, group: &Group, outside: bool) -> Result<(), Denied> {
        let tenant = &terms.tenant;
        let asked = Some(u64::from(terms.count));
        let Some(known) = self.tenant(tenant) else {
            return Err(why::denied(Explanation {
                asked,
                admit: Some(Change::AskOperator),
                ..Explanation::new(
                    Rule::UnknownTenant,
                    format!("there is no tenant {tenant}; make it known or give it a quota first"),
                )
            }));
        };
        if known.profile.frozen {
            return Err(self.frozen(tenant, group, asked));
        }
        if let Some(project) = &terms.project {
            let owner = self.tenant_of_project(project);
            if owner.is_none_or(|owner| owner.profile.tenant != *tenant) {
                let text = format!("{project} is no project of tenant {tenant}");
                return Err(why::denied(Explanation {
                    asked,
                    admit: Some(Change::AskOperator),
                    ..self.account(Rule::UnknownProject, text, tenant, group)
                }));
            }
        }
        if outside && self.is_confined(tenant) {
            let text =
                format!("tenant {tenant} is kept on its dedicated nodes; ask for type dedicated");
            return Err(why::denied(Explanation {
                asked,
                admit: Some(Change::AskOperator),
                ..self.account(Rule::Confined, text, tenant, group)
            }));
        }
        Ok(())
    }

    // All quotas that fit add up; the first in order that has room gives the lease its source.
    fn check_quotas(&self, terms: &LeaseTerms, group: &Group) -> Result<QuotaSource, Denied> {
        let tenant = &terms.tenant;
        let quotas: Vec<&Quota> = self.quotas_in(tenant, group).collect();
        let granting: Vec<&Quota> = quotas.iter().copied().filter(|q| q.in_force()).collect();
        if granting.is_empty() {
            return Err(self.no_quota(terms, group, &quotas));
        }
        let used = self.demand(tenant, group).used();
        let asked = u64::from(terms.count);
        let limit = total_limit(&granting);
        let used = if planted(Mutant::IgnoreUse) { 0 } else { used };
        if limit.is_some_and(|limit| used.saturating_add(asked) > limit) {
            return Err(self.over_quota(terms, group, &granting));
        }
        let order = in_order(self, &granting);
        let mut before: u64 = 0;
        for quota in &order {
            // Sources are filled in order, so the first whose end lies beyond what is used has room.
            before = before.saturating_add(quota.grants().room(0));
            if before > used {
                return Ok(quota.key.source);
            }
        }
        Err(self.over_quota(terms, group, &granting))
    }

    fn choose_devices(
        &self,
        request: &RequestLease,
        terms: &LeaseTerms,
        group: &Group,
    ) -> Result<BTreeMap<DeviceKey, NodeName>, Denied> {
        let chosen = self.fitting(request, terms, group);
        chosen.map_err(|not| match not {
            NotGiven::NoPlace(none) => self.no_device(request, terms, group, &none),
            NotGiven::NotBorne(borne) => self.not_borne(terms, group, borne),
        })
    }

    fn fitting(
        &self,
        request: &RequestLease,
        terms: &LeaseTerms,
        group: &Group,
    ) -> Result<BTreeMap<DeviceKey, NodeName>, NotGiven> {
        let wish = Wish {
            count: terms.count,
            spread: request.spread,
            most_nodes: request.most_nodes,
        };
        let offers = self.candidates(request, terms, group).offers();
        let chosen = match terms.quota_type {
            QuotaType::Dedicated => {
                Bearing::of(self, &terms.tenant).choose(&wish, offers, group)?
            }
            QuotaType::Flexible | QuotaType::Mig | QuotaType::Vgpu => {
                place(&wish, &offers).map_err(NotGiven::NoPlace)?
            }
        };
        let chosen = chosen
            .into_iter()
            .map(|(node, key)| (key.clone(), node.clone()));
        Ok(chosen.collect())
    }
}

fn answered(events: Vec<Event>, lease: Lease) -> Decision {
    Decision {
        events,
        outcome: Outcome::Lease(Arc::new(lease)),
    }
}

/// The sum of what quotas grant; `None` is unlimited.
pub(super) fn total_limit(quotas: &[&Quota]) -> Option<u64> {
    let mut total: u64 = 0;
    for quota in quotas {
        match quota.grants() {
            crate::limit::Limit::Unlimited => return None,
            crate::limit::Limit::Finite(limit) => total += u64::from(limit),
        }
    }
    Some(total)
}
