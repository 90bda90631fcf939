//! How a journal row changes the state. Never fails, reads no clock; an event that contradicts the state is a broken
//! invariant and panics, which makes the server read-only.

mod change;
mod directory;
mod drain;
mod incarnation;
mod join;
mod judged;
mod lease;
mod licence;
mod meter;
mod node;
mod steps;

use crate::ban::Ban;
use crate::command::{Answer, Outcome};
use crate::event::{Event, KeptAnswer, Record};
use crate::id::{OpId, QuotaId, Seq, Timestamp};
use crate::lease::{Lease, LeasePhase};
use crate::node::{Node, NodeState, SpoolMark};
use crate::quota::Quota;
use crate::state::{Operation, REPLAY_WINDOW_MS, State};
use crate::tenant::TenantProfile;

impl State {
    /// Folds one journal row in.
    ///
    /// # Panics
    /// When the row is not the next one, goes back in time, or contradicts the state.
    pub fn apply(&mut self, seq: Seq, at: Timestamp, op: Option<&OpId>, record: &Record) {
        assert_eq!(seq, self.rows.seq.next(), "journal row out of order");
        assert!(at >= self.rows.at, "journal row goes back in time");
        self.rows.seq = seq;
        self.rows.at = at;
        for event in &record.events {
            self.note_change(seq, event);
            self.apply_event(at, event);
        }
        self.meter_touched(at);
        self.forget_holds(at);
        if let (Some(op), Some(replay)) = (op, &record.replay) {
            let operation = Operation {
                at,
                fingerprint: replay.fingerprint.clone(),
                answer: self.answered(&replay.answer),
            };
            if let Some(old) = self.rows.operations.insert(op.clone(), operation) {
                self.index.operations.remove(&(old.at, op.clone()));
            }
            self.index.operations.insert((at, op.clone()));
        }
        self.forget(at);
    }

    fn answered(&self, kept: &KeptAnswer) -> Answer {
        match kept {
            KeptAnswer::Whole(answer) => answer.clone(),
            KeptAnswer::Granted(id) => {
                let lease = self.rows.leases.get(id).cloned();
                assert!(lease.is_some(), "a replay of a lease that is not there");
                Answer::Granted(lease.map_or(Outcome::Done, Outcome::Lease))
            }
        }
    }

    // What is too old to matter is dropped by the time of rows, so that every fold drops the same.
    fn forget(&mut self, at: Timestamp) {
        let kept_since = at.before(REPLAY_WINDOW_MS);
        while let Some(oldest) = self.index.operations.get_min().cloned()
            && oldest.0 <= kept_since
        {
            self.index.operations.remove(&oldest);
            self.rows.operations.remove(&oldest.1);
        }
        while let Some(oldest) = self.index.revoked.get_min().cloned()
            && oldest.0 <= at
        {
            self.index.revoked.remove(&oldest);
            self.rows.revoked.remove(&oldest.1);
        }
        self.forget_join_tokens(at);
    }

    // What is in force is changed, not the terms.
    fn put_in_force(&mut self, id: QuotaId, change: impl FnOnce(&mut Quota)) {
        let Some(old) = self.rows.quotas.get(&id).cloned() else {
            return;
        };
        let mut new = old.clone();
        change(&mut new);
        self.index.remove_quota(&self.rows, &old);
        self.touch_quota(Some(&old), Some(&new));
        self.index.add_quota(&self.rows, &new);
        self.rows.quotas.insert(id, new);
        if !old.nodes.is_empty() {
            self.recharge_tenant(&old.key.tenant);
        }
    }

    pub(crate) fn apply_event(&mut self, at: Timestamp, event: &Event) {
        match event {
            Event::TenantCreated { tenant } => {
                assert!(self.tenant(tenant).is_none(), "tenant created twice");
                let profile = TenantProfile::new(tenant.clone(), self.free_number());
                self.set_tenant(at, &profile);
            }
            Event::TenantSet(profile) => self.set_tenant(at, profile),
            Event::RegionSet(region) => {
                let name = region.region.clone();
                self.rows.regions.insert(name, region.clone());
            }
            Event::GroupSet(group) => {
                self.rows.groups.insert(group.group.clone(), group.clone());
            }
            Event::GroupRemoved { group } => self.remove_group(group),
            Event::CardLimitSet { key, cards } => self.set_card_limit(key, *cards),
            Event::HostResourceSet(resource) => {
                let name = resource.resource.clone();
                self.rows.host_resources.insert(name, resource.clone());
            }
            Event::HostResourceRemoved { resource } => self.remove_host_resource(resource),
            Event::HostLimitSet { key, limit } => self.set_host_limit(key, *limit),
            Event::ModelSet(entry) => {
                let model = entry.gpu_model.clone();
                self.rows.models.insert(model, entry.clone());
                self.name_models_again();
            }
            Event::ModelRemoved { gpu_model } => {
                self.rows.models.remove(gpu_model);
                self.name_models_again();
            }
            Event::CounterSet(set) => {
                self.set_counter(
                    &set.project,
                    set.site.as_ref(),
                    &set.kind,
                    set.counter.as_ref(),
                );
            }
            Event::ProductSet(product) => {
                self.rows.products.insert(product.id, product.clone());
            }
            Event::ProductRemoved { product } => {
                self.rows.products.remove(product);
            }
            Event::LicenceQuotaSet(terms) => self.set_licence_quota(at, terms),
            Event::LicenceQuotaExpired { quota } => self.expire_licence_quota(*quota),
            Event::SeatSet(seat) => self.set_seat(seat),
            Event::SeatReleased { seat } | Event::SeatExpired { seat } => self.end_seat(*seat),
            Event::QuotaSet {
                quota: id,
                key,
                limit,
                expires_at,
                reference,
                nodes,
            } => {
                let old = self.rows.quotas.get(id).cloned();
                let old_nodes = old.as_ref().is_some_and(|old| !old.nodes.is_empty());
                if let Some(old) = &old {
                    self.index.remove_quota(&self.rows, old);
                }
                let quota = Quota {
                    id: *id,
                    key: key.clone(),
                    model: self.index.catalogue.canonical(&key.gpu_model),
                    limit: *limit,
                    expires_at: *expires_at,
                    expired: expires_at.is_some_and(|end| end <= at),
                    reference: *reference,
                    nodes: nodes.clone(),
                    switched_off: old.as_ref().is_some_and(|old| old.switched_off),
                    noticed: old
                        .as_ref()
                        .filter(|old| old.expires_at == *expires_at)
                        .and_then(|old| old.noticed),
                    enforcement: old.as_ref().and_then(|old| old.enforcement.clone()),
                    created_at: old.as_ref().map_or(at, |old| old.created_at),
                    updated_at: at,
                };
                self.touch_quota(old.as_ref(), Some(&quota));
                self.index.add_quota(&self.rows, &quota);
                self.rows.next_quota = self.rows.next_quota.max(id.0 + 1);
                self.rows.quotas.insert(*id, quota);
                if !nodes.is_empty() || old_nodes {
                    self.recharge_tenant(&key.tenant);
                }
            }
            Event::QuotaExpired { quota } => {
                self.put_in_force(*quota, |quota| quota.expired = true);
            }
            Event::QuotaSwitched { quota, active } => self.put_in_force(*quota, |quota| {
                quota.switched_off = !active;
                quota.updated_at = at;
            }),
            Event::QuotaReleased { quota, forced: _ } => {
                if let Some(old) = self.rows.quotas.remove(quota) {
                    self.index.remove_quota(&self.rows, &old);
                    self.touch_quota(Some(&old), None);
                    if !old.nodes.is_empty() {
                        self.recharge_tenant(&old.key.tenant);
                    }
                }
            }
            Event::NodeDeclared {
                node,
                region,
                groups,
                inventory,
            } => self.declare_node(node, region, groups.as_ref(), inventory.as_ref()),
            Event::SessionOpened {
                node,
                region,
                session,
                boot_id: _,
                agent_version: _,
                owner,
            } => {
                let entry = self.rows.nodes.entry(node.clone());
                let entry = entry.or_insert_with(|| Node::new(region.clone()));
                assert!(*session > entry.session, "session numbers grow");
                entry.session = *session;
                entry.state = NodeState::Up;
                entry.settled = false;
                entry.owner.clone_from(owner);
                self.touch_node(node);
            }
            Event::NodeReported {
                node,
                spool,
                number,
                observed_at,
                full,
                facts,
                devices,
                gone,
                earlier,
            } => self.apply_report(
                node,
                SpoolMark {
                    spool: spool.clone(),
                    number: *number,
                },
                *observed_at,
                facts.as_ref(),
                *full,
                devices,
                gone,
                *earlier,
            ),
            Event::NodeSettled { node } => self.settle_node(node),
            Event::NodeSilent { node, reason: _ } => self.set_node_state(node, NodeState::Silent),
            Event::NodeRetired { node, barred } => self.retire_node(node, *barred),
            Event::DevicesForgotten { node, devices } => self.forget_devices(node, devices),
            Event::NodeHeard { node } => self.set_node_state(node, NodeState::Up),
            Event::SettingsSet(settings) => self.rows.settings = settings.clone(),
            Event::LeaseGranted {
                lease,
                terms,
                source,
                devices,
                makes,
                epoch,
                expires_at,
            } => self.grant_lease(Lease {
                id: *lease,
                terms: terms.clone(),
                model: self.index.catalogue.canonical(&terms.gpu_model),
                source: *source,
                devices: devices.clone(),
                makes: makes.clone(),
                epoch: *epoch,
                granted_at: at,
                expires_at: *expires_at,
                leave_by: None,
                phase: LeasePhase::Active,
                changed: self.rows.seq,
            }),
            Event::LeaseRenewed { lease, expires_at } => self.renew_lease(*lease, *expires_at),
            Event::LeaseToLeave { lease, leave_by } => self.tell_to_leave(*lease, *leave_by),
            Event::LeaseReleasing {
                lease,
                reason,
                deadline,
            } => self.release_lease(at, *lease, *reason, *deadline),
            Event::LeaseFreed {
                lease,
                devices,
                unconfirmed,
            } => self.free_leased(*lease, devices, unconfirmed),
            Event::LeaseWaiting { lease, deadline } => self.wait_for_lease(*lease, *deadline),
            Event::LeaseEnded {
                lease,
                reason,
                unconfirmed,
            } => self.end_lease(at, *lease, *reason, unconfirmed),
            Event::QuotaNoticed {
                quota,
                days,
                expires_at: _,
            } => self.note_notice(*quota, *days),
            Event::DrainBegun {
                tenant,
                group,
                cause,
                deadline,
            } => self.begin_drain(at, tenant, group, *cause, *deadline),
            Event::DrainEnforced { tenant, group } => self.enforce_drain(at, tenant, group),
            Event::DrainEnded {
                tenant,
                group,
                reason: _,
            } => self.end_drain(tenant, group),
            Event::QuotaEnforcementSet { quota, enforcement } => {
                if let Some(quota) = self.rows.quotas.get_mut(quota) {
                    quota.enforcement.clone_from(enforcement);
                    quota.updated_at = at;
                }
            }
            Event::StepsBegun(begun) => self.begin_steps(at, begun),
            Event::StepsHeld(held) => self.hold_steps(at, held),
            Event::StepsConfirmed(it) => self.confirm_steps(it.tenant.as_ref(), it.until),
            Event::StepEnded(ended) => self.end_step(at, ended),
            Event::TokenRevoked { token, until } => {
                if let Some(old) = self.rows.revoked.insert(token.clone(), *until) {
                    self.index.revoked.remove(&(old, token.clone()));
                }
                self.index.revoked.insert((*until, token.clone()));
            }
            Event::JoinTokenMade(token) => self.make_join_token(token),
            Event::NodeCertified(certified) => self.certified(at, certified),
            Event::Banned(Ban { who }) => {
                self.rows.bans.insert(who.clone(), at);
                self.void_join_tokens(who);
            }
            Event::Unbanned(Ban { who }) => {
                self.rows.bans.remove(who);
            }
            Event::SnapshotTaken { seq, digest: _ } => self.rows.snapshot = Some(*seq),
            Event::HourClosed { from, to } => self.close_hours(at, *from, *to),
            Event::UsageStored { through } => self.usage_stored(*through),
            // Where the rows are kept changes nothing of what they say.
            Event::Archived(_) => {}
            Event::Restored {
                incarnation,
                replaced: _,
            } => self.begin(*incarnation),
        }
    }
}
