//! What a node said changes the state.

use std::collections::{BTreeMap, BTreeSet};

use imbl::OrdSet;

use crate::ban::{Banned, Readmitted};
use crate::device::{Device, DeviceKey, DeviceKind, DeviceReport};
use crate::id::{GroupName, NodeName, Region, Timestamp};
use crate::node::{Node, NodeFacts, NodeState, SpoolMark};
use crate::pool::Inventory;
use crate::state::{State, add_to, remove_from};

impl State {
    pub(super) fn declare_node(
        &mut self,
        name: &NodeName,
        region: &Region,
        groups: Option<&BTreeSet<GroupName>>,
        inventory: Option<&Inventory>,
    ) {
        let known = self.rows.nodes.get(name);
        // Of a node that came back by a token the certificates from before stay void, whatever is said of it.
        if known.is_none() {
            self.rows.gone.remove(name);
        }
        let moved = known.filter(|node| node.region != *region);
        let moved: Vec<DeviceKey> = moved
            .map(|node| node.devices.iter().cloned().collect())
            .unwrap_or_default();
        for key in &moved {
            self.unstock(key);
        }
        let entry = self.rows.nodes.entry(name.clone());
        let node = entry.or_insert_with(|| Node::new(region.clone()));
        node.region = region.clone();
        if let Some(groups) = groups {
            node.declared_groups = groups.iter().cloned().collect();
        }
        if let Some(inventory) = inventory {
            node.inventory = Some(inventory.clone());
        }
        for key in &moved {
            self.recharge_device(key);
            self.restock(key);
        }
        self.index.place_node(&self.rows, name);
    }

    pub(super) fn retire_node(&mut self, name: &NodeName, barred: bool) {
        let Some(node) = self.rows.nodes.get(name).cloned() else {
            return;
        };
        let devices = node.devices.iter().cloned().collect();
        self.forget_devices(name, &devices);
        self.forget_restrictions(name, |_| true);
        // Should it come back, nothing of a session from before must speak for it.
        self.rows.retired.insert(name.clone(), node.session);
        if barred {
            self.rows.gone.insert(name.clone(), Readmitted::default());
            self.void_join_tokens(&Banned::Node(name.clone()));
        }
        self.rows.nodes.remove(name);
        self.index.place_node(&self.rows, name);
    }

    pub(super) fn forget_devices(&mut self, name: &NodeName, devices: &BTreeSet<DeviceKey>) {
        for key in devices {
            if let Some(node) = self.rows.nodes.get_mut(name) {
                node.devices.remove(key);
            }
            if let Some(old) = self.drop_device(key) {
                self.recharge_after(key, &old);
            }
        }
        self.forget_restrictions(name, |key| devices.contains(key));
        self.index.place_node(&self.rows, name);
    }

    pub(super) fn set_node_state(&mut self, node: &NodeName, state: NodeState) {
        if let Some(node) = self.rows.nodes.get_mut(node) {
            node.state = state;
            node.settled &= state == NodeState::Up;
        }
        self.touch_node(node);
    }

    pub(super) fn settle_node(&mut self, node: &NodeName) {
        if let Some(node) = self.rows.nodes.get_mut(node) {
            node.settled = true;
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one event")]
    pub(super) fn apply_report(
        &mut self,
        name: &NodeName,
        mark: SpoolMark,
        observed_at: Timestamp,
        facts: Option<&NodeFacts>,
        full: bool,
        devices: &[DeviceReport],
        gone: &[DeviceKey],
        earlier: bool,
    ) {
        let Some(mut node) = self.rows.nodes.get(name).cloned() else {
            return;
        };
        if let Some(facts) = facts {
            node.facts = facts.clone();
        }
        node.mark_spool(mark);
        node.settled |= !earlier && node.state == NodeState::Up;
        node.observed_at = Some(observed_at);
        let removed: Vec<DeviceKey> = if full {
            let kept: OrdSet<&DeviceKey> = devices.iter().map(|device| &device.key).collect();
            let old = node.devices.iter();
            old.filter(|key| !kept.contains(key)).cloned().collect()
        } else {
            gone.to_vec()
        };
        let moved = full || self.may_change_groups(devices, gone);
        for key in &removed {
            if node.devices.remove(key).is_some()
                && let Some(old) = self.drop_device(key)
            {
                self.recharge_after(key, &old);
            }
        }
        for report in devices {
            node.devices.insert(report.key.clone());
            self.put_device(name, observed_at, report);
        }
        self.rows.nodes.insert(name.clone(), node);
        if moved {
            self.index.place_node(&self.rows, name);
        }
    }

    // Groups follow GPU products; a change of holders, the usual report, leaves them.
    pub(super) fn may_change_groups(&self, devices: &[DeviceReport], gone: &[DeviceKey]) -> bool {
        let gpu = |key: &DeviceKey| key.kind() == DeviceKind::Gpu;
        gone.iter().any(gpu)
            || devices
                .iter()
                .filter(|report| gpu(&report.key))
                .any(|report| {
                    let old = self.device(&report.key);
                    old.is_none_or(|old| old.report.model != report.model)
                })
    }

    fn put_device(&mut self, node: &NodeName, observed_at: Timestamp, report: &DeviceReport) {
        let old = self.drop_device(&report.key);
        if let Some(moved) = old.as_ref().filter(|old| old.node != *node) {
            self.forget_restrictions(&moved.node, |key| *key == report.key);
        }
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
            add_to(&mut self.index.held, tenant, report.key.clone());
        }
        if report.unattributed {
            self.index.nobodys.insert(report.key.clone());
        }
        let idle_since = match (holders.is_empty(), &old) {
            (false, _) => None,
            (true, Some(old)) => old.idle_since.or(Some(observed_at)),
            (true, None) => Some(observed_at),
        };
        let device = Device {
            node: node.clone(),
            canonical: self.index.catalogue.of_device(report),
            report: report.clone(),
            holders,
            idle_since,
        };
        self.rows.devices.insert(report.key.clone(), device);
        match &old {
            Some(old) => self.recharge_after(&report.key, old),
            None => self.recharge_device(&report.key),
        }
        self.restock(&report.key);
    }

    // Those who held it before may be charged no more, and those who hold or lease it now may be charged otherwise.
    fn recharge_after(&mut self, key: &DeviceKey, old: &Device) {
        for tenant in old.holders.keys() {
            self.recharge(tenant, key);
        }
        self.recharge_device(key);
    }

    fn drop_device(&mut self, key: &DeviceKey) -> Option<Device> {
        self.unstock(key);
        let old = self.rows.devices.remove(key)?;
        self.index.nobodys.remove(key);
        for tenant in old.holders.keys() {
            remove_from(&mut self.index.held, tenant, key);
        }
        Some(old)
    }
}
