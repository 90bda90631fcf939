//! What placement needs: the NUMA node of each GPU, and which GPUs NVLink joins.

use std::fs;

use gpuquota_agent::gpu::reading::{GpuReading, Reading};
use gpuquota_fake_nvml::scenario::Action;

use crate::node::{Node, reading, sample_until};

fn places(seen: &Reading) -> Vec<(Option<u32>, Option<u32>)> {
    let numa = |gpu: &GpuReading| gpu.facts.as_ref().and_then(|facts| facts.numa_node);
    seen.gpus
        .iter()
        .map(|gpu| (numa(gpu), gpu.nvlink_island))
        .collect()
}

#[tokio::test]
async fn numa_nodes_and_islands_through_switches_directly_and_of_none() {
    let islands = async |name: &str| {
        let node = Node::new(name);
        let mut sampler = node.sampler();
        reading(&mut sampler).await;
        // Told once, known ever after.
        let seen = places(&reading(&mut sampler).await);
        sampler.shutdown().await;
        seen
    };
    let halves = |island| [[(Some(0), island); 4], [(Some(1), island); 4]].concat();
    assert_eq!(islands("h100x8").await, halves(Some(0)));
    assert_eq!(islands("a100-mig").await, [(Some(0), Some(0)); 4]);
    let alone = [0, 1, 2, 3].map(|own| (Some(0), Some(own)));
    assert_eq!(islands("l4x4").await, alone);
}

/// The kernel knows which processors are near; where GPUs are NUMA nodes themselves NVML names another one.
#[tokio::test]
async fn the_kernels_numa_node_comes_first_and_unknown_is_none() {
    let node = Node::new("l4x4");
    let device = |pci: &str, numa: &str| {
        let folder = node.sysfs().join("bus/pci/devices").join(pci);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("numa_node"), numa).unwrap();
    };
    device("0000:18:00.0", "7\n");
    device("0000:2a:00.0", "-1\n");
    node.edit(|scenario| {
        scenario.gpus[3].numa_node = None;
        Ok(())
    });
    let mut sampler = node.sampler();
    let seen = places(&reading(&mut sampler).await);
    let numa: Vec<_> = seen.iter().map(|(numa, _)| *numa).collect();
    assert_eq!(numa, [Some(7), Some(0), Some(0), None]);
    sampler.shutdown().await;
}

/// Links that go down part an island, a GPU that is lost keeps its number, and a new worker tells everything again.
#[tokio::test]
async fn islands_follow_the_links_and_outlive_a_lost_gpu_and_a_worker() {
    let node = Node::new("h100x4");
    let mut sampler = node.sampler();
    let all = places(&reading(&mut sampler).await);
    assert_eq!(all, [(Some(0), Some(0)); 4]);
    node.edit(|scenario| scenario.set_lost("0", true));
    let seen = places(&reading(&mut sampler).await);
    assert_eq!(seen, all, "what it is does not change with what it answers");
    node.edit(|scenario| {
        scenario.set_lost("0", false)?;
        for (gpu, others) in [(0, [2, 3]), (1, [2, 3]), (2, [0, 1]), (3, [0, 1])] {
            let cut = others.map(|other: usize| scenario.gpus[other].pci_bus_id.clone());
            for links in &mut scenario.gpus[gpu].nvlink {
                links.down = cut.contains(&links.remote);
            }
        }
        Ok(())
    });
    // The worker dies of it, and the next one looks at everything.
    node.fault("nvmlDeviceGetCount_v2", None, Action::Crash);
    sampler.sample(gpuquota_agent::clock::boottime_ms()).await;
    node.heal();
    let parted = sample_until(&mut sampler, |collected| {
        let islands = collected.reading.as_ref().map(|seen| {
            let places = places(seen);
            places.iter().map(|(_, island)| *island).collect::<Vec<_>>()
        });
        islands.as_deref() == Some(&[Some(0), Some(0), Some(2), Some(2)])
    });
    parted.await;
    sampler.shutdown().await;
}

/// A driver that knows no field values, and one that does not know what is at the other end.
#[tokio::test]
async fn without_an_answer_there_is_no_island() {
    for (function, code) in [
        ("nvmlDeviceGetFieldValues", 3),
        ("nvmlDeviceGetNvLinkRemoteDeviceType", 13),
        ("nvmlDeviceGetNvLinkRemotePciInfo_v2", 3),
    ] {
        let node = Node::new("h100x4");
        node.answer(function, None, code);
        let mut sampler = node.sampler();
        let seen = places(&reading(&mut sampler).await);
        assert_eq!(seen, [(Some(0), None); 4], "{function}");
        assert_eq!(sampler.stats().last_return_code, 0, "{function}");
        sampler.shutdown().await;
    }
    // No link answers: none is up.
    let node = Node::new("h100x4");
    node.answer("nvmlDeviceGetNvLinkState", None, 2);
    let mut sampler = node.sampler();
    let seen = places(&reading(&mut sampler).await);
    assert_eq!(seen, [0, 1, 2, 3].map(|own| (Some(0), Some(own))));
    assert_eq!(sampler.stats().last_return_code, 0);
    sampler.shutdown().await;
}
