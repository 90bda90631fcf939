//! Answers as somebody could shape them who may name and label what a runtime, a kubelet or Slurm tells of.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gpuquota_proto::cri_v1::{
    ContainerStatusResponse, ListPodSandboxResponse, PodSandbox, PodSandboxMetadata,
};
use gpuquota_proto::pod_resources_v1::{
    ContainerDevices, ContainerResources, ListPodResourcesResponse, PodResources,
};
use proptest::collection::{btree_map, hash_map, vec};
use proptest::prelude::*;
use prost::Message as _;
use serde_json::Value;

use super::cri::Cri;
use super::{LABEL_LIMIT, Patience, engine, granted, kubelet, slurm};
use crate::fuzz;
use crate::observation::Reason;
use crate::process::workload::PodUid;

const ID: &str = "3f4e5d6c7b8a99887766554433221100ffeeddccbbaa00112233445566778899";
const UID: &str = "1b2c3d4e-0a1b-4c2d-8e3f-a0b1c2d3e4f5";

fn wanted() -> BTreeSet<String> {
    BTreeSet::from(["tenant".to_owned(), "other/tenant".to_owned()])
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("tenant"),
        Just("other/tenant"),
        Just("Id"),
        Just("Name"),
        Just("Config"),
        Just("Labels"),
        Just("config"),
        Just("Tenant"),
        Just("tenant "),
        Just("tenant\u{0}"),
    ]
    .prop_map(str::to_owned)
    .boxed()
    .prop_union("\\PC{0,12}".boxed())
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(ID.to_owned()),
        Just("team-a".to_owned()),
        Just("x".repeat(LABEL_LIMIT + 1)),
        "\\PC{0,20}"
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any_value().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(any_key(), inner, 0..5).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn any_sandbox() -> impl Strategy<Value = PodSandbox> {
    let uid = prop_oneof![3 => Just(UID.to_owned()), 1 => Just(String::new()), 1 => "\\PC{0,12}"];
    let namespace = prop_oneof![3 => Just("team-a".to_owned()), 1 => Just("team-b".to_owned()), 1 => "\\PC{0,8}"];
    let metadata =
        (uid, namespace, 0_u32..3).prop_map(|(uid, namespace, attempt)| PodSandboxMetadata {
            name: "train-0".to_owned(),
            uid,
            namespace,
            attempt,
        });
    (
        proptest::option::weighted(0.9, metadata),
        hash_map(any_key(), any_value(), 0..4),
    )
        .prop_map(
            |(metadata, labels): (_, HashMap<String, String>)| PodSandbox {
                id: ID.to_owned(),
                metadata,
                labels,
            },
        )
}

fn any_pods() -> impl Strategy<Value = Vec<PodResources>> {
    let name = || {
        prop_oneof![
            Just("team-a".to_owned()),
            Just("train-0".to_owned()),
            Just("..".to_owned()),
            Just("../..".to_owned()),
            Just(format!("team-a_train-0_{UID}")),
            "\\PC{0,8}",
        ]
    };
    let device = prop_oneof![
        Just("GPU-1".to_owned()),
        Just("GPU-1::0".to_owned()),
        Just("MIG-2".to_owned()),
        Just("GPU-1::x::y".to_owned()),
        "\\PC{0,8}",
    ];
    let container = (name(), vec(device, 0..4)).prop_map(|(name, device_ids)| ContainerResources {
        name,
        devices: vec![ContainerDevices {
            resource_name: "nvidia.com/gpu".to_owned(),
            device_ids,
        }],
    });
    let pod = (name(), name(), vec(container, 0..3)).prop_map(|(namespace, name, containers)| {
        PodResources {
            name,
            namespace,
            containers,
        }
    });
    vec(pod, 0..5)
}

/// Bytes that begin as a message does and are then changed.
fn torn(message: Vec<u8>, at: prop::sample::Index, byte: u8) -> Vec<u8> {
    let mut bytes = message;
    let length = bytes.len().max(1);
    if let Some(there) = bytes.get_mut(at.index(length)) {
        *there = byte;
    }
    bytes
}

proptest! {
    #![proptest_config(fuzz::config())]

    /// Of Docker's and Podman's answers only one about this very container counts, with labels that rules name and of a length
    /// that a tenant's name can have; whatever else is in it.
    #[test]
    fn inspected_containers(json in any_json(), labels in btree_map(any_key(), any_value(), 0..5), name in any_value(), junk in vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let wanted = wanted();
        let _ = engine::facts(&junk, ID, &wanted);
        match engine::facts(json.to_string().as_bytes(), ID, &wanted) {
            Ok(facts) => {
                prop_assert_eq!(json["Id"].as_str(), Some(ID));
                let told = json["Config"]["Labels"].as_object();
                for (key, value) in &facts.labels {
                    prop_assert_eq!(told.and_then(|told| told[key].as_str()), Some(value.as_str()));
                }
            }
            Err(reason) => prop_assert!(matches!(reason, Reason::AnswerUnreadable | Reason::ContainerUnknown)),
        }
        let good = serde_json::json!({"Id": ID, "Name": format!("/{name}"), "Config": {"Labels": labels, "Env": ["TENANT=x"]}, "More": json});
        let facts = engine::facts(good.to_string().as_bytes(), ID, &wanted).unwrap();
        let counts = |(key, value): &(&String, &String)| wanted.contains(*key) && value.len() <= LABEL_LIMIT;
        let expected: BTreeMap<&String, &String> = labels.iter().filter(counts).collect();
        prop_assert_eq!(facts.labels.iter().collect::<BTreeMap<_, _>>(), expected);
        let _ = engine::facts(&torn(good.to_string().into_bytes(), at, byte), ID, &wanted);
    }

    /// Of a runtime's answers only sandboxes of this very pod count, and only when all of them name one namespace.
    #[test]
    fn sandboxes_of_a_runtime(items in vec(any_sandbox(), 0..6), junk in vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let uid = PodUid::parse(UID).unwrap();
        let second = Duration::from_secs(1);
        let patience = Patience { request: second, command: second, pause: (second, second) };
        let cri = Cri::new("/none".into(), Arc::new(wanted()), patience);
        let own: Vec<&PodSandboxMetadata> = items
            .iter()
            .filter_map(|item| item.metadata.as_ref())
            .filter(|metadata| metadata.uid == UID && !metadata.namespace.is_empty())
            .collect();
        let namespaces: BTreeSet<&str> = own.iter().map(|metadata| metadata.namespace.as_str()).collect();
        let message = ListPodSandboxResponse { items: items.clone() }.encode_to_vec();
        match cri.facts_of(items.clone(), &uid) {
            Ok(facts) => {
                prop_assert_eq!(facts.namespace.as_deref(), namespaces.first().copied());
                prop_assert_eq!(namespaces.len(), 1);
                let newest = own.iter().map(|metadata| metadata.attempt).max();
                let from = |item: &&PodSandbox| {
                    let own = item.metadata.as_ref().filter(|metadata| metadata.uid == UID && !metadata.namespace.is_empty());
                    own.map(|metadata| metadata.attempt) == newest
                };
                let from: Vec<_> = items.iter().filter(from).collect();
                for (key, value) in &facts.labels {
                    prop_assert!(from.iter().all(|item| item.labels.get(key) == Some(value)));
                }
            }
            Err(reason) => prop_assert_eq!(reason, Reason::PodUnknown),
        }
        for bytes in [junk, torn(message, at, byte)] {
            if let Ok(answer) = ListPodSandboxResponse::decode(&*bytes) {
                let _ = cri.facts_of(answer.items, &uid);
            }
            let _ = ContainerStatusResponse::decode(&*bytes);
        }
    }

    /// The kubelet's pods lead to a namespace only by the folder that the kubelet made for that pod, and a device to a pod only
    /// when it was given to no other.
    #[test]
    fn pods_of_a_kubelet(pods in any_pods(), junk in vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let logs = tempfile::tempdir().unwrap();
        std::fs::create_dir(logs.path().join(format!("team-a_train-0_{UID}"))).unwrap();
        let uid = PodUid::parse(UID).unwrap();
        let there = pods.iter().any(|pod| pod.namespace == "team-a" && pod.name == "train-0");
        let found = kubelet::namespace(&pods, logs.path(), &uid);
        prop_assert_eq!(found.as_deref(), there.then_some("team-a"));
        for (uuid, place) in granted::by_device(pods.clone()) {
            prop_assert!(uuid.starts_with("GPU-") || uuid.starts_with("MIG-"));
            for pod in &pods {
                for container in &pod.containers {
                    let ids = container.devices.iter().flat_map(|devices| &devices.device_ids);
                    let has = ids.filter_map(|id| id.split("::").next()).any(|id| id == uuid);
                    let is = (&pod.namespace, &pod.name, &container.name) == (&place.namespace, &place.pod, &place.container);
                    prop_assert!(is || !has);
                }
            }
        }
        let message = ListPodResourcesResponse { pod_resources: pods }.encode_to_vec();
        for bytes in [junk, torn(message, at, byte)] {
            if let Ok(answer) = ListPodResourcesResponse::decode(&*bytes) {
                let _ = kubelet::namespace(&answer.pod_resources, logs.path(), &uid);
                let _ = granted::by_device(answer.pod_resources);
            }
        }
    }

    /// What a command prints of a job is one user and one account, each one word, or nothing.
    #[test]
    fn jobs_of_slurm(lines in vec(prop_oneof![Just("alice phys".to_owned()), Just("bob bio".to_owned()), "[a-c\t\u{b}]{1,3} [ab]{1,3}", "[ a-c\\t\\PC]{0,12}"], 0..4), junk in vec(any::<u8>(), 0..200)) {
        let _ = slurm::parse(&junk);
        let text = lines.join("\n");
        let Some(facts) = slurm::parse(text.as_bytes()) else { return Ok(()) };
        let user = facts.user.unwrap();
        let line = format!("{user} {}", facts.account.as_deref().unwrap_or("(null)"));
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        prop_assert!(text.lines().all(|told| told.trim().is_empty() || words(told) == words(&line)));
        prop_assert!(!user.is_empty() && !user.contains(|c: char| c.is_whitespace() || c.is_control()));
    }
}
