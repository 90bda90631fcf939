//! Scans of a `/proc` of files, with the processes of real children.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Child, Command};
use std::time::Duration;

use super::*;
use crate::attribute::AttributionConfig;
use crate::clock::boottime_ms;
use crate::observation::{Device, Owner};

struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sleeper() -> Sleeper {
    Sleeper(Command::new("sleep").arg("600").spawn().unwrap())
}

/// An observer to which every process of this test's user is a tenant's.
fn observer() -> Observer {
    let uid = rustix::process::geteuid().as_raw();
    let text = format!(
        "[[rule]]\nuid_range = [{uid}, {uid}]\ntenant = \"team-a\"\nalso_in_containers = true\n"
    );
    let config: AttributionConfig = toml::from_str(&text).unwrap();
    Observer::new(&config, None).unwrap()
}

fn gpu(minor: u32, partitioned: bool, pids: &[u32]) -> (DeviceKey, Device) {
    let process = |pid: &u32| AttributedProcess {
        pid: Some(*pid),
        kind: None,
        start_time: None,
        owner: Owner::System,
        used_memory_bytes: None,
        sm: Default::default(),
    };
    let device = Device {
        health: Health::Unknown,
        model: String::new(),
        gpu_model: String::new(),
        profile: None,
        mig_uuid: None,
        minor: Some(minor),
        partitioned,
        memory: None,
        processes: pids.iter().map(process).collect(),
        vgpu: None,
        ..Device::default()
    };
    (DeviceKey::Gpu(format!("GPU-{minor}")), device)
}

fn node(nvml: NvmlState) -> Observation {
    Observation {
        hidden: Vec::new(),
        at_boottime_ms: 0,
        nvml,
        driver_version: None,
        devices: [gpu(3, false, &[]), gpu(5, true, &[]), gpu(7, false, &[1])].into(),
    }
}

fn open(root: &Path, pid: u32, minors: &[u32]) {
    let fd = root.join(pid.to_string()).join("fd");
    fs::create_dir_all(&fd).unwrap();
    // Nodes that every host has, with these minor numbers below one major number.
    fs::write(root.join("devices"), "Character devices:\n  1 nvidia\n").unwrap();
    for minor in minors {
        let node = match minor {
            3 => "/dev/null",
            5 => "/dev/zero",
            _ => "/dev/full",
        };
        symlink(node, fd.join(minor.to_string())).unwrap();
    }
}

/// Passes until the keeper has seen another scan.
async fn scanned(keeper: &mut Keeper, observer: &mut Observer) -> Observation {
    let before = Arc::clone(&keeper.opened);
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let mut observation = node(NvmlState::Mismatch(String::new()));
        let nodes = keeper.mind(&mut observation, observer, boottime_ms()).await;
        if !Arc::ptr_eq(&nodes, &before) {
            return observation;
        }
        assert!(tokio::time::Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn pids(observation: &Observation) -> Vec<Vec<u32>> {
    let of = |device: &Device| {
        device
            .processes
            .iter()
            .filter_map(|process| process.pid)
            .collect()
    };
    observation.devices.values().map(of).collect()
}

#[tokio::test]
async fn fault_c_rule_14_who_has_a_node_open_for_two_scans_is_among_the_last_holders() {
    let root = tempfile::tempdir().unwrap();
    let (stays, looks) = (sleeper(), sleeper());
    let (stays, looks) = (stays.0.id(), (looks.0.id(), looks));
    open(root.path(), stays, &[3, 5]);
    open(root.path(), looks.0, &[3, 7]);
    let mut observer = observer();
    let mut keeper = Keeper::new(root.path(), 0);
    let seen = scanned(&mut keeper, &mut observer).await;
    assert_eq!(pids(&seen), [vec![], vec![], vec![1]], "seen once only");
    let shown: Vec<_> = keeper
        .opened
        .nodes
        .iter()
        .map(|node| (node.minor, node.processes.len()))
        .collect();
    assert_eq!(shown, [(3, 2), (5, 1), (7, 1)]);
    fs::remove_dir_all(root.path().join(looks.0.to_string())).unwrap();
    // A scan may have begun before that.
    scanned(&mut keeper, &mut observer).await;
    scanned(&mut keeper, &mut observer).await;
    let seen = scanned(&mut keeper, &mut observer).await;
    assert_eq!(
        pids(&seen),
        [vec![stays], vec![], vec![1]],
        "GPU 5 is cut: who has what of it is not known"
    );
    let owner = &seen.devices[&DeviceKey::Gpu("GPU-3".into())].processes[0].owner;
    assert_eq!(owner.tenant(), Some("team-a"));

    let mut fine = node(NvmlState::Ok);
    let nodes = keeper.mind(&mut fine, &mut observer, boottime_ms()).await;
    assert!(*nodes == Opened::default() && keeper.scan.is_none() && pids(&fine)[0].is_empty());
}

#[tokio::test]
async fn rule_14_proc_is_read_in_that_state_only_and_not_at_each_pass() {
    let root = tempfile::tempdir().unwrap();
    let mut observer = observer();
    let mut keeper = Keeper::new(root.path(), EVERY_MS);
    for nvml in [NvmlState::Ok, NvmlState::Absent(String::new())] {
        keeper.mind(&mut node(nvml), &mut observer, 100_000).await;
        assert!(keeper.scan.is_none());
    }
    let mut blind = node(NvmlState::Broken(String::new()));
    keeper.mind(&mut blind, &mut observer, 100_000).await;
    keeper.scan.take().unwrap().await.unwrap();
    keeper.mind(&mut blind, &mut observer, 104_999).await;
    assert!(keeper.scan.is_none());
    keeper.mind(&mut blind, &mut observer, 105_000).await;
    assert!(keeper.scan.is_some());
}

/// Case 68: between the scan and the question the pid went to somebody else.
#[test]
fn fault_i_rule_07_a_process_that_began_after_the_scan_is_not_the_opener() {
    let mut observer = observer();
    let began_ms = boottime_ms();
    let late = loop {
        let late = sleeper();
        let start = crate::process::procfs::start_time(late.0.id()).unwrap();
        if start * 10 > began_ms {
            break late;
        }
    };
    let found = Openers {
        minors: [(late.0.id(), [3].into())].into(),
        ..Openers::default()
    };
    let mut nodes = |began_ms| {
        let names = BTreeMap::new();
        let nodes = attributed(&found, &names, &mut observer, began_ms, boottime_ms());
        nodes[0].processes.len()
    };
    assert_eq!((nodes(began_ms), nodes(boottime_ms() + 10)), (0, 1));
    assert_eq!(nodes(began_ms), 0, "also when it is known by then");
}
