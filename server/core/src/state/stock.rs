//! Free devices: which could be given to somebody, as far as it goes for themselves.

use imbl::{OrdMap, OrdSet};

use super::State;
use crate::device::{Device, DeviceKey};
use crate::id::{NodeName, Region};
use crate::lease::Lease;
use crate::profile::CanonicalModel;

/// Free devices by what they are: on which node, which.
pub(crate) type Stock = OrdMap<(Region, CanonicalModel), OrdMap<NodeName, OrdSet<DeviceKey>>>;

impl State {
    /// Free devices of a model in a region, by node.
    pub(crate) fn stock(
        &self,
        region: &Region,
        model: &CanonicalModel,
    ) -> impl Iterator<Item = (&NodeName, &OrdSet<DeviceKey>)> {
        let nodes = self.index.stock.get(&(region.clone(), model.clone()));
        nodes.into_iter().flatten()
    }

    /// Whether a device could be given to somebody, as far as it goes for itself.
    pub(crate) fn is_free(&self, key: &DeviceKey, device: &Device) -> bool {
        let report = &device.report;
        report.readable()
            && !report.partitioned
            && !report.unattributed
            && device.holders.is_empty()
            && !self.index.lease_on.contains_key(key)
    }

    /// The live lease of the GPU that an instance is part of, or of an instance of a whole GPU. A GPU that was laid out
    /// anew under a lease is promised still.
    pub(crate) fn lease_beside(&self, key: &DeviceKey, device: &Device) -> Option<&Lease> {
        let lease = match key {
            DeviceKey::Gpu(gpu) => {
                let mut instances = self.index.lease_on.range(DeviceKey::instances(gpu));
                instances.next().map(|(_, lease)| *lease)?
            }
            DeviceKey::Mig { .. } | DeviceKey::Vgpu(_) => {
                let whole = DeviceKey::Gpu(device.report.gpu()?.to_owned());
                *self.index.lease_on.get(&whole)?
            }
        };
        self.lease(lease)
    }

    /// Whether somebody is on the GPU that an instance is part of, or on an instance of a whole GPU.
    pub(crate) fn held_beside(&self, key: &DeviceKey) -> bool {
        let held = |device: &Device| !device.holders.is_empty();
        match key {
            DeviceKey::Gpu(gpu) => self.instances_of(gpu).any(held),
            DeviceKey::Mig { gpu, .. } => {
                let whole = self.rows.devices.get(&DeviceKey::Gpu(gpu.clone()));
                whole.is_some_and(held)
            }
            DeviceKey::Vgpu(_) => false,
        }
    }

    /// A GPU as a whole and its MIG instances, as far as they are known.
    pub(crate) fn parts_of<'a>(&'a self, gpu: &str) -> impl Iterator<Item = &'a Device> {
        let whole = self.rows.devices.get(&DeviceKey::Gpu(gpu.to_owned()));
        whole.into_iter().chain(self.instances_of(gpu))
    }

    fn instances_of<'a>(&'a self, gpu: &str) -> impl Iterator<Item = &'a Device> + use<'a> {
        let instances = self.rows.devices.range(DeviceKey::instances(gpu));
        instances.map(|(_, device)| device)
    }

    /// Takes a device out of the stock, before it changes.
    pub(crate) fn unstock(&mut self, key: &DeviceKey) {
        self.touch(key);
        let Some((place, node)) = self.shelf(key) else {
            return;
        };
        if let Some(nodes) = self.index.stock.get_mut(&place) {
            if let Some(keys) = nodes.get_mut(&node) {
                keys.remove(key);
                if keys.is_empty() {
                    nodes.remove(&node);
                }
            }
            if nodes.is_empty() {
                self.index.stock.remove(&place);
            }
        }
    }

    /// Puts a device into the stock if it is free, after it changed.
    pub(crate) fn restock(&mut self, key: &DeviceKey) {
        let free = self.rows.devices.get(key);
        if free.is_none_or(|device| !self.is_free(key, device)) {
            return;
        }
        if let Some((place, node)) = self.shelf(key) {
            let nodes = self.index.stock.entry(place).or_default();
            nodes.entry(node).or_default().insert(key.clone());
        }
    }

    fn shelf(&self, key: &DeviceKey) -> Option<((Region, CanonicalModel), NodeName)> {
        let device = self.rows.devices.get(key)?;
        let region = self.node(&device.node)?.region.clone();
        Some(((region, device.canonical.clone()), device.node.clone()))
    }
}
