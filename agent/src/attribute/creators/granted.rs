//! Which pod was given which device, as the kubelet tells it: a label of metrics, never evidence of who uses it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;

use gpuquota_proto::pod_resources_v1::PodResources;
use tokio::time::timeout;

use super::{Patience, kubelet};

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPlace {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
}

/// Containers by the UUID of the GPU or MIG device that only they were given.
pub type Granted = BTreeMap<String, PodPlace>;

/// Asks the kubelet at this socket; `None` when it does not answer.
pub async fn granted(socket: PathBuf, patience: Patience) -> Option<Granted> {
    let pods = timeout(patience.request, kubelet::list(&socket)).await;
    Some(by_device(pods.ok()?.ok()?))
}

/// A device that several containers share is nobody's label.
pub(super) fn by_device(pods: Vec<PodResources>) -> Granted {
    let mut granted: BTreeMap<String, Option<PodPlace>> = BTreeMap::new();
    for pod in pods {
        for container in pod.containers {
            let place = PodPlace {
                namespace: pod.namespace.clone(),
                pod: pod.name.clone(),
                container: container.name,
            };
            let ids = container
                .devices
                .iter()
                .flat_map(|devices| &devices.device_ids);
            for uuid in ids.filter_map(|id| uuid_of(id)) {
                match granted.entry(uuid.to_owned()) {
                    Entry::Vacant(vacant) => {
                        vacant.insert(Some(place.clone()));
                    }
                    Entry::Occupied(mut other) if other.get().as_ref() != Some(&place) => {
                        other.insert(None);
                    }
                    Entry::Occupied(_) => {}
                }
            }
        }
    }
    let alone = |(uuid, place): (String, Option<PodPlace>)| Some((uuid, place?));
    granted.into_iter().filter_map(alone).collect()
}

/// NVIDIA's device plugin names devices by UUID, and replicas of a shared one with `::N` behind it.
fn uuid_of(id: &str) -> Option<&str> {
    let uuid = id.split_once("::").map_or(id, |(uuid, _)| uuid);
    let known = uuid.starts_with("GPU-") || uuid.starts_with("MIG-");
    (known && uuid.len() <= 96).then_some(uuid)
}

#[cfg(test)]
mod tests {
    use gpuquota_proto::pod_resources_v1::{ContainerDevices, ContainerResources};

    use super::*;

    fn pod(name: &str, ids: &[&str]) -> PodResources {
        PodResources {
            name: name.to_owned(),
            namespace: "ml".to_owned(),
            containers: vec![ContainerResources {
                name: "main".to_owned(),
                devices: vec![ContainerDevices {
                    resource_name: "nvidia.com/gpu".to_owned(),
                    device_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
                }],
            }],
        }
    }

    #[test]
    fn a_device_is_labelled_with_the_one_container_that_was_given_it() {
        let granted = by_device(vec![
            pod("a", &["GPU-1", "MIG-2", "GPU-3::0", "GPU-3::1"]),
            pod("b", &["GPU-4::0", "nvidia0/gi1", "0:1", ""]),
            pod("c", &["GPU-4::1"]),
            pod("d", &["GPU-4::2"]),
        ]);
        let found: Vec<_> = granted
            .iter()
            .map(|(id, place)| (id.as_str(), place.pod.as_str()))
            .collect();
        assert_eq!(found, [("GPU-1", "a"), ("GPU-3", "a"), ("MIG-2", "a")]);
        assert_eq!(granted["GPU-1"].container, "main");
    }
}
