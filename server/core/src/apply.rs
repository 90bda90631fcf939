//! How a journal row changes the state. Never fails, reads no clock; an event that contradicts the state is a broken
//! invariant and panics, which makes the server read-only.

use std::collections::BTreeMap;

use imbl::OrdSet;

use crate::device::{Device, DeviceKey, DeviceReport};
use crate::event::{Event, Record};
use crate::id::{NodeName, OpId, Seq, Timestamp};
use crate::node::{Node, NodeFacts, NodeState, SpoolMark};
use crate::profile::CanonicalModel;
use crate::quota::Quota;
use crate::state::{Operation, REPLAY_WINDOW_MS, State, Tenant, remove_from};

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
            self.apply_event(at, event);
        }
        if let (Some(op), Some(replay)) = (op, &record.replay) {
            let operation = Operation {
                at,
                fingerprint: replay.fingerprint.clone(),
                answer: replay.answer.clone(),
            };
            if let Some(old) = self.rows.operations.insert(op.clone(), operation) {
                self.index.operations.remove(&(old.at, op.clone()));
            }
            self.index.operations.insert((at, op.clone()));
        }
        self.forget(at);
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
    }

    fn apply_event(&mut self, at: Timestamp, event: &Event) {
        match event {
            Event::TenantCreated { tenant } => {
                let number = self.rows.tenants.len() as u64 + 1;
                let created = Tenant {
                    number,
                    created_at: at,
                };
                let known = self.rows.tenants.insert(tenant.clone(), created);
                assert!(known.is_none(), "tenant created twice");
            }
            Event::QuotaSet {
                quota: id,
                key,
                limit,
                expires_at,
                reference,
                nodes,
            } => {
                let old = self.rows.quotas.get(id).cloned();
                if let Some(old) = &old {
                    self.index.remove_quota(old);
                }
                let quota = Quota {
                    id: *id,
                    key: key.clone(),
                    model: CanonicalModel::of(&key.gpu_model),
                    limit: *limit,
                    expires_at: *expires_at,
                    expired: expires_at.is_some_and(|end| end <= at),
                    reference: *reference,
                    nodes: nodes.clone(),
                    created_at: old.map_or(at, |old| old.created_at),
                    updated_at: at,
                };
                self.index.add_quota(&quota);
                self.rows.next_quota = self.rows.next_quota.max(id.0 + 1);
                self.rows.quotas.insert(*id, quota);
            }
            Event::QuotaExpired { quota } => {
                if let Some(old) = self.rows.quotas.get(quota).cloned() {
                    self.index.remove_quota(&old);
                    let expired = Quota {
                        expired: true,
                        ..old
                    };
                    self.index.add_quota(&expired);
                    self.rows.quotas.insert(*quota, expired);
                }
            }
            Event::QuotaReleased { quota, forced: _ } => {
                if let Some(old) = self.rows.quotas.remove(quota) {
                    self.index.remove_quota(&old);
                }
            }
            Event::NodeDeclared { node, region } => {
                let entry = self.rows.nodes.entry(node.clone());
                entry.or_insert_with(|| Node::new(region.clone())).region = region.clone();
            }
            Event::SessionOpened {
                node,
                region,
                session,
                boot_id: _,
                agent_version: _,
            } => {
                let entry = self.rows.nodes.entry(node.clone());
                let entry = entry.or_insert_with(|| Node::new(region.clone()));
                assert!(*session > entry.session, "session numbers grow");
                entry.session = *session;
                entry.state = NodeState::Up;
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
            ),
            Event::NodeSilent { node, reason: _ } => self.set_node_state(node, NodeState::Silent),
            Event::NodeHeard { node } => self.set_node_state(node, NodeState::Up),
            Event::TokenRevoked { token, until } => {
                if let Some(old) = self.rows.revoked.insert(token.clone(), *until) {
                    self.index.revoked.remove(&(old, token.clone()));
                }
                self.index.revoked.insert((*until, token.clone()));
            }
            Event::SnapshotTaken { seq, digest: _ } => self.rows.snapshot = Some(*seq),
        }
    }

    fn set_node_state(&mut self, node: &NodeName, state: NodeState) {
        if let Some(node) = self.rows.nodes.get_mut(node) {
            node.state = state;
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one event")]
    fn apply_report(
        &mut self,
        name: &NodeName,
        mark: SpoolMark,
        observed_at: Timestamp,
        facts: Option<&NodeFacts>,
        full: bool,
        devices: &[DeviceReport],
        gone: &[DeviceKey],
    ) {
        let Some(mut node) = self.rows.nodes.get(name).cloned() else {
            return;
        };
        if let Some(facts) = facts {
            node.facts = facts.clone();
        }
        if node
            .spool
            .as_ref()
            .is_some_and(|old| old.spool != mark.spool)
        {
            node.previous_spool = node.spool.take();
        }
        node.spool = Some(mark);
        node.observed_at = Some(observed_at);
        let removed: Vec<DeviceKey> = if full {
            let kept: OrdSet<&DeviceKey> = devices.iter().map(|device| &device.key).collect();
            let old = node.devices.iter();
            old.filter(|key| !kept.contains(key)).cloned().collect()
        } else {
            gone.to_vec()
        };
        for key in &removed {
            if node.devices.remove(key).is_some() {
                self.drop_device(key);
            }
        }
        for report in devices {
            node.devices.insert(report.key.clone());
            self.put_device(name, observed_at, report);
        }
        self.rows.nodes.insert(name.clone(), node);
    }

    fn put_device(&mut self, node: &NodeName, observed_at: Timestamp, report: &DeviceReport) {
        let old = self.drop_device(&report.key);
        let since = |tenant| {
            let held = old.as_ref().and_then(|old| old.holders.get(tenant));
            held.copied().unwrap_or(observed_at)
        };
        let holders: BTreeMap<_, _> = report
            .tenants
            .iter()
            .map(|tenant| (tenant.clone(), since(tenant)))
            .collect();
        for tenant in holders.keys() {
            let held = self.index.held.entry(tenant.clone()).or_default();
            held.insert(report.key.clone());
        }
        let device = Device {
            node: node.clone(),
            canonical: CanonicalModel::of(&report.gpu_model),
            report: report.clone(),
            holders,
        };
        self.rows.devices.insert(report.key.clone(), device);
    }

    fn drop_device(&mut self, key: &DeviceKey) -> Option<Device> {
        let old = self.rows.devices.remove(key)?;
        for tenant in old.holders.keys() {
            remove_from(&mut self.index.held, tenant, key);
        }
        Some(old)
    }
}
