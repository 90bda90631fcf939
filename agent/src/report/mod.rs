//! What the server must be told: the difference between the last reported view and a new observation. Pure.
//!
//! Tenants control who holds a device, so what they can make the agent send is bounded: one report an observation, and
//! letting a holder go costs a token of its device. Without one the holder lingers in the view until there is a token.
//! Joining is free, because who joins must have left before. A device disappears only when NVML says so: while NVML
//! or its GPU does not answer, or a GPU is there that cannot be identified, what was told of stays, as unknown.

pub mod bucket;
pub mod view;
pub mod wire;

use std::collections::BTreeMap;

use gpuquota_proto::DEVICES_PER_REPORT;
use gpuquota_proto::agent_v1 as message;
use gpuquota_proto::digest::{DigestRow, HolderDigest};

use crate::facts::Node;
use crate::gpu::reading::{Doubt, Health, NvmlState};
use crate::observation::{Device, DeviceKey, Observation};

use bucket::{Allowance, Bucket};
use view::DeviceView;

/// What one report says; number, scope and age are added where it is spooled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// It replaces everything the server knows of this node.
    pub full: bool,
    /// All devices (full), or those that are new or changed.
    pub devices: Vec<message::DeviceState>,
    /// Devices that are no more.
    pub gone: Vec<message::DeviceKey>,
    /// Always in full reports, else when they changed.
    pub facts: Option<message::NodeFacts>,
}

#[derive(Debug)]
struct Row {
    view: DeviceView,
    bucket: Bucket,
}

/// The last reported view, and how often it may still change.
#[derive(Debug)]
pub struct Reporter {
    node: Node,
    allowance: Allowance,
    rows: BTreeMap<DeviceKey, Row>,
    facts: Option<message::NodeFacts>,
    digest: Vec<u8>,
}

impl Reporter {
    /// Nothing was reported yet. `remembered` is the view that an earlier run of this boot reported last; it stands in
    /// for devices that NVML does not tell of because it does not answer.
    #[must_use]
    pub fn new(node: Node, allowance: Allowance, remembered: Vec<message::DeviceState>) -> Self {
        let rows = remembered
            .into_iter()
            .filter_map(wire::remembered_view)
            .map(|(key, view)| {
                let bucket = Bucket::default();
                (key, Row { view, bucket })
            })
            .collect();
        let mut reporter = Self {
            node,
            allowance,
            rows,
            facts: None,
            digest: Vec::new(),
        };
        reporter.digest = reporter.compute_digest();
        reporter
    }

    /// Takes in an observation and gives the report that it makes due, if any. With `full` there always is one, and it
    /// holds everything. The first one must be full. `unidentified` GPUs are there and cannot be told from each other.
    pub fn next(
        &mut self,
        observation: &Observation,
        unidentified: u32,
        full: bool,
    ) -> Option<Contents> {
        let mut contents = Contents::default();
        for (key, device) in &observation.devices {
            self.take_device(key, device, observation.at_boottime_ms, &mut contents);
        }
        self.take_absent(observation, unidentified, &mut contents);
        let changed = !(contents.devices.is_empty() && contents.gone.is_empty());
        self.take_facts(observation, &mut contents);
        if changed {
            self.digest = self.compute_digest();
        }
        if full {
            return Some(self.full());
        }
        (changed || contents.facts.is_some()).then_some(contents)
    }

    /// Everything that was reported so far, once more.
    #[must_use]
    pub fn full(&self) -> Contents {
        Contents {
            full: true,
            devices: self
                .rows
                .iter()
                .map(|(key, row)| wire::device_state(key, &row.view))
                .collect(),
            gone: Vec::new(),
            facts: self.facts.clone(),
        }
    }

    /// The 32 bytes by which the server notices that it knows something else.
    #[must_use]
    pub fn digest(&self) -> &[u8] {
        &self.digest
    }

    fn take_device(
        &mut self,
        key: &DeviceKey,
        device: &Device,
        now_ms: u64,
        contents: &mut Contents,
    ) {
        let allowance = self.allowance;
        if let Some(row) = self.rows.get_mut(key) {
            let bucket = &mut row.bucket;
            if row.view.update(device, || bucket.take(allowance, now_ms)) {
                contents.devices.push(wire::device_state(key, &row.view));
            }
        } else if self.rows.len() < DEVICES_PER_REPORT {
            // Beyond that many, which no node has, the wire must not break.
            let view = DeviceView::new(device);
            contents.devices.push(wire::device_state(key, &view));
            let bucket = Bucket::default();
            self.rows.insert(key.clone(), Row { view, bucket });
        }
    }

    fn take_absent(
        &mut self,
        observation: &Observation,
        unidentified: u32,
        contents: &mut Contents,
    ) {
        if self.rows.len() == observation.devices.len()
            && self.rows.keys().eq(observation.devices.keys())
        {
            return;
        }
        let all_told = observation.nvml == NvmlState::Ok && unidentified == 0;
        self.rows.retain(|key, row| {
            if observation.devices.contains_key(key) {
                return true;
            }
            if all_told && !part_of_a_silent_gpu(key, &row.view, observation) {
                contents.gone.push(wire::device_key(key));
                return false;
            }
            if row.view.forget_health() {
                contents.devices.push(wire::device_state(key, &row.view));
            }
            true
        });
    }

    // The line for a person rides along; it alone is no reason for a report.
    fn take_facts(&mut self, observation: &Observation, contents: &mut Contents) {
        let driver = observation.driver_version.as_deref();
        let (state, _) = wire::nvml_text(&observation.nvml);
        let same = self.facts.as_ref().is_some_and(|known| {
            known.nvml == state && known.driver_version == driver.unwrap_or_default()
        });
        if !same {
            let facts = wire::node_facts(&self.node, &observation.nvml, driver);
            contents.facts = Some(facts.clone());
            self.facts = Some(facts);
        }
    }

    fn compute_digest(&self) -> Vec<u8> {
        let mut rows: Vec<(String, &DeviceKey, &DeviceView)> = self
            .rows
            .iter()
            .map(|(key, row)| (key.to_string(), key, &row.view))
            .collect();
        rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut digest = HolderDigest::default();
        for (text, key, view) in &rows {
            digest.push(DigestRow {
                key: text,
                kind: key.kind(),
                gpu_model: &view.gpu_model,
                health: wire::health_text(view.health),
                partitioned: view.partitioned,
                unattributed: view.unattributed,
                tenants: &view.tenants,
                licence: view.vgpu.as_ref().map(|vgpu| vgpu.licence.as_str()),
            });
        }
        digest.finish()
    }
}

// The MIG and vGPU instances of a GPU that does not answer cannot be told. Where only vGPUs that take turns on GPU instances may
// not be asked for, one that was listed until now is told by the list.
fn part_of_a_silent_gpu(key: &DeviceKey, view: &DeviceView, observation: &Observation) -> bool {
    let parent = match key {
        DeviceKey::Gpu(_) => None,
        DeviceKey::Mig(uuid, _, _) => Some(uuid),
        DeviceKey::Vgpu(_) => view.vgpu.as_ref().map(|vgpu| &vgpu.parent),
    };
    let gpu = parent.and_then(|uuid| observation.devices.get(&DeviceKey::Gpu(uuid.clone())));
    let listed = matches!(key, DeviceKey::Vgpu(_)) && view.health == Health::Ok;
    gpu.is_some_and(|gpu| {
        gpu.health != Health::Ok && !(listed && gpu.doubts.contains(&Doubt::Vgpus))
    })
}

#[cfg(test)]
mod tests;
