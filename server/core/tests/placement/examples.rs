//! The rules by example, and what only an example shows: ties, large numbers, words.

use gpuquota_core::device::DeviceKey;
use gpuquota_core::id::NodeName;
use gpuquota_core::placement::{NoPlace, Wish};

use crate::cluster::{Free, Node, Taken, placed, wish};

/// `gpus`: key, island and NUMA node.
fn node(name: &str, in_use: u32, gpus: &[(&str, Option<u32>, Option<u32>)]) -> Node {
    let free = |(uuid, nvlink, numa): &(&str, Option<u32>, Option<u32>)| Free {
        key: DeviceKey::gpu(uuid).unwrap(),
        gpu: (*uuid).to_owned(),
        siblings_in_use: 0,
        siblings: 0,
        numa: *numa,
        nvlink: *nvlink,
    };
    Node {
        name: NodeName::new(name).unwrap(),
        room: u32::MAX,
        in_use,
        free: gpus.iter().map(free).collect(),
    }
}

/// So many free GPUs on one island.
fn plain(name: &str, in_use: u32, gpus: u32) -> Node {
    let uuids: Vec<String> = (0..gpus).map(|gpu| format!("GPU-{name}-{gpu}")).collect();
    let gpus: Vec<_> = uuids
        .iter()
        .map(|uuid| (uuid.as_str(), Some(0), Some(0)))
        .collect();
    node(name, in_use, &gpus)
}

fn mig(gpu: &str, in_use: u32, free: &[u32], siblings: u32) -> Vec<Free> {
    let slot = |gi: &u32| Free {
        key: DeviceKey::mig(gpu, *gi, 0).unwrap(),
        gpu: gpu.to_owned(),
        siblings_in_use: in_use,
        siblings,
        numa: None,
        nvlink: None,
    };
    free.iter().map(slot).collect()
}

fn nodes(taken: &Taken<'_>) -> Vec<(String, usize)> {
    let of = |(node, slots): &(&Node, Vec<_>)| (node.name.to_string(), slots.len());
    taken.iter().map(of).collect()
}

fn keys(taken: &Taken<'_>) -> Vec<String> {
    let slots = taken.iter().flat_map(|(_, slots)| slots);
    slots.map(|slot| slot.key.to_string()).collect()
}

#[track_caller]
fn packs(cluster: &[Node], wish: Wish, expected: &[(&str, usize)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect();
    assert_eq!(nodes(&placed(&wish, cluster).unwrap()), expected);
}

#[test]
fn a_cluster_is_packed_from_its_used_nodes() {
    let cluster = [
        plain("a", 0, 8),
        plain("b", 6, 2),
        plain("c", 4, 4),
        plain("d", 5, 3),
        plain("e", 0, 8),
    ];
    packs(&cluster, wish(1), &[("b", 1)]);
    packs(&cluster, wish(3), &[("d", 3)]);
    packs(&cluster, wish(5), &[("a", 5)]);
    packs(&cluster, wish(10), &[("a", 8), ("b", 2)]);
    packs(&cluster, wish(16), &[("a", 8), ("e", 8)]);
    packs(&cluster, wish(18), &[("a", 8), ("b", 2), ("e", 8)]);
    let spread = |count, most_nodes| Wish {
        count,
        spread: true,
        most_nodes,
    };
    packs(&cluster, spread(3, None), &[("b", 1), ("c", 1), ("d", 1)]);
    packs(
        &cluster,
        spread(4, None),
        &[("a", 1), ("b", 1), ("c", 1), ("d", 1)],
    );
    packs(
        &cluster,
        spread(12, None),
        &[("a", 2), ("b", 2), ("c", 3), ("d", 3), ("e", 2)],
    );
    packs(&cluster, spread(6, Some(2)), &[("c", 3), ("d", 3)]);
}

#[test]
fn with_several_nodes_the_smallest_is_exchanged_first() {
    let cluster = [
        plain("a", 1, 9),
        plain("b", 1, 8),
        plain("c", 1, 6),
        plain("d", 1, 4),
    ];
    packs(&cluster, wish(13), &[("a", 9), ("d", 4)]);
    packs(&cluster, wish(12), &[("b", 8), ("d", 4)]);
}

#[test]
fn a_node_that_gives_all_it_may_leaves_its_other_free_devices_over() {
    let mut roomy = plain("a", 2, 6);
    roomy.room = 2;
    packs(&[roomy, plain("b", 5, 3)], wish(2), &[("b", 2)]);

    let mut roomy = plain("a", 1, 9);
    roomy.room = 5;
    let cluster = [roomy, plain("b", 1, 5), plain("c", 1, 3)];
    packs(&cluster, wish(8), &[("b", 5), ("c", 3)]);
}

#[test]
fn equals_go_by_node_name_and_device_key() {
    let gpus = [
        ("GPU-z", Some(0), Some(0)),
        ("GPU-b", Some(1), Some(1)),
        ("GPU-c", Some(1), Some(1)),
    ];
    let gpus = [&gpus[..], &[("GPU-y", Some(0), Some(0))]].concat();
    let cluster = [node("n2", 1, &gpus), node("n10", 1, &gpus)];
    let taken = placed(&wish(2), &cluster).unwrap();
    assert_eq!(nodes(&taken), [("n10".to_owned(), 2)]);
    assert_eq!(keys(&taken), ["GPU-b", "GPU-c"]);
    assert_eq!(keys(&placed(&wish(1), &cluster).unwrap()), ["GPU-b"]);
    assert_eq!(
        keys(&placed(&wish(3), &cluster).unwrap()),
        ["GPU-b", "GPU-c", "GPU-y"]
    );
}

#[test]
fn of_equally_full_gpus_the_one_with_fewer_free_instances_goes_first() {
    let mut host = plain("a", 4, 0);
    host.free = [
        mig("GPU-1", 2, &[2, 3], 3),
        mig("GPU-2", 2, &[3], 3),
        mig("GPU-3", 1, &[5], 6),
    ]
    .concat();
    let taken = |count| keys(&placed(&wish(count), std::slice::from_ref(&host)).unwrap());
    assert_eq!(taken(1), ["GPU-2/3/0"]);
    assert_eq!(taken(2), ["GPU-1/2/0", "GPU-2/3/0"]);
    assert_eq!(
        taken(4),
        ["GPU-1/2/0", "GPU-1/3/0", "GPU-2/3/0", "GPU-3/5/0"]
    );
}

#[test]
fn what_is_there_is_said_in_numbers_and_words() {
    let mut cluster = [plain("a", 0, 8), plain("b", 0, 4), plain("c", 0, 2)];
    cluster[0].room = 3;
    let wish = Wish {
        count: u32::MAX,
        spread: false,
        most_nodes: Some(2),
    };
    let there_is = NoPlace {
        free: 14,
        admitted: 9,
        most_on_one_node: 4,
        within_most_nodes: 7,
    };
    assert_eq!(placed(&wish, &cluster).unwrap_err(), there_is);
    assert_eq!(
        there_is.to_string(),
        "14 devices are free, 9 of them within the limits of their nodes, 4 on one node, 7 on as many nodes as the wish allows"
    );
    assert!(
        placed(
            &Wish {
                count: 1,
                most_nodes: Some(0),
                ..wish
            },
            &cluster
        )
        .is_err()
    );
    assert!(placed(&wish, &[]).is_err());
}
