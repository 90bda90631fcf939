//! Small clusters, and what a placement on them took.

use std::collections::{BTreeMap, BTreeSet};

use gpuquota_core::device::DeviceKey;
use gpuquota_core::id::NodeName;
use gpuquota_core::placement::{NoPlace, Offer, Slot, Wish, place};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// A free device.
#[derive(Clone, Debug)]
pub(crate) struct Free {
    pub(crate) key: DeviceKey,
    pub(crate) gpu: String,
    pub(crate) siblings_in_use: u32,
    pub(crate) siblings: u32,
    pub(crate) numa: Option<u32>,
    pub(crate) nvlink: Option<u32>,
}

impl Free {
    fn slot(&self) -> Slot<'_> {
        Slot {
            key: &self.key,
            gpu: &self.gpu,
            siblings_in_use: self.siblings_in_use,
            siblings: self.siblings,
            numa: self.numa,
            nvlink: self.nvlink,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: NodeName,
    pub(crate) room: u32,
    pub(crate) in_use: u32,
    pub(crate) free: Vec<Free>,
}

impl Node {
    pub(crate) fn offer(&self) -> Offer<'_> {
        Offer {
            node: &self.name,
            room: self.room,
            devices_in_use: self.in_use,
            free: self.free.iter().map(Free::slot).collect(),
        }
    }

    pub(crate) fn free(&self) -> u32 {
        u32::try_from(self.free.len()).unwrap()
    }

    pub(crate) fn admitted(&self) -> u32 {
        self.free().min(self.room)
    }
}

/// What was taken from each node; every device is free, stands there and was taken once, in ascending order.
pub(crate) type Taken<'n> = Vec<(&'n Node, Vec<&'n Free>)>;

pub(crate) fn placed<'n>(wish: &Wish, nodes: &'n [Node]) -> Result<Taken<'n>, NoPlace> {
    let offers: Vec<Offer<'_>> = nodes.iter().map(Node::offer).collect();
    let chosen = place(wish, &offers)?;
    assert!(chosen.is_sorted());
    assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
    let mut taken: BTreeMap<&NodeName, (&Node, Vec<&Free>)> = BTreeMap::new();
    for (name, key) in chosen {
        let node = nodes.iter().find(|node| node.name == *name).unwrap();
        let free = node.free.iter().find(|free| free.key == *key).unwrap();
        taken.entry(name).or_insert((node, Vec::new())).1.push(free);
    }
    Ok(taken.into_values().collect())
}

pub(crate) fn wish(count: u32) -> Wish {
    Wish {
        count,
        spread: false,
        most_nodes: None,
    }
}

/// Nodes of full GPUs, with holes in what is known about them and names that say nothing about it.
pub(crate) fn of_gpus(nodes: usize, gpus: usize) -> impl Strategy<Value = Vec<Node>> {
    let gpu = (
        any::<u16>(),
        option::weighted(0.8, 0..2_u32),
        option::weighted(0.8, 0..3_u32),
    );
    let room = prop_oneof![3 => Just(u32::MAX), 1 => 0..4_u32];
    let node = (room, prop_oneof![Just(0), 1..4_u32], vec(gpu, 0..=gpus));
    vec(node, 0..=nodes).prop_map(|nodes| {
        let nodes = nodes
            .into_iter()
            .enumerate()
            .map(|(number, (room, in_use, gpus))| Node {
                name: name(number),
                room,
                in_use,
                free: gpus
                    .into_iter()
                    .enumerate()
                    .map(|(gpu, (salt, numa, nvlink))| {
                        let uuid = format!("GPU-{salt}-{number}-{gpu}");
                        Free {
                            key: DeviceKey::gpu(&uuid).unwrap(),
                            gpu: uuid,
                            siblings_in_use: 0,
                            siblings: 0,
                            numa,
                            nvlink,
                        }
                    })
                    .collect(),
            });
        nodes.collect()
    })
}

/// Nodes of MIG instances or vGPUs, each instance free, in use, or neither.
pub(crate) fn of_instances(nodes: usize, gpus: usize) -> impl Strategy<Value = Vec<Node>> {
    let instance = prop_oneof![4 => Just(Some(true)), 2 => Just(Some(false)), 1 => Just(None)];
    let gpu = (any::<u16>(), any::<bool>(), vec(instance, 1..=5));
    let room = prop_oneof![3 => Just(u32::MAX), 1 => 0..6_u32];
    vec((room, vec(gpu, 0..=gpus)), 0..=nodes).prop_map(|nodes| {
        let nodes = nodes.into_iter().enumerate().map(|(number, (room, gpus))| {
            let mut node = Node {
                name: name(number),
                room,
                in_use: 0,
                free: Vec::new(),
            };
            for (gpu, (salt, vgpu, instances)) in gpus.into_iter().enumerate() {
                let uuid = format!("GPU-{salt}-{number}-{gpu}");
                let used = instances
                    .iter()
                    .filter(|free| **free == Some(false))
                    .count();
                let used = u32::try_from(used).unwrap();
                node.in_use += used;
                let siblings = u32::try_from(instances.len()).unwrap() - 1;
                for (gi, _) in (0..)
                    .zip(&instances)
                    .filter(|(_, free)| **free == Some(true))
                {
                    let key = if vgpu {
                        DeviceKey::vgpu(&format!("{gi}-{uuid}"))
                    } else {
                        DeviceKey::mig(&uuid, gi, 0)
                    };
                    node.free.push(Free {
                        key: key.unwrap(),
                        gpu: uuid.clone(),
                        siblings_in_use: used,
                        siblings,
                        numa: None,
                        nvlink: None,
                    });
                }
            }
            node
        });
        nodes.collect()
    })
}

fn name(number: usize) -> NodeName {
    NodeName::new(&format!("node{number}")).unwrap()
}

/// Every way to give each bin a share up to what it holds, so that all shares make `sum`.
pub(crate) fn shares(holds: &[u32], sum: u32) -> Vec<Vec<u32>> {
    let Some((first, rest)) = holds.split_first() else {
        return if sum == 0 {
            vec![Vec::new()]
        } else {
            Vec::new()
        };
    };
    let with = |share: u32| {
        let others = shares(rest, sum - share).into_iter();
        others.map(move |others| [vec![share], others].concat())
    };
    (0..=sum.min(*first)).flat_map(with).collect()
}
