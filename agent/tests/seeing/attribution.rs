//! From a reading to tenants, with the kernel's own answers.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use gpuquota_agent::attribute::{AttributionConfig, Observer};
use gpuquota_agent::clock::boottime_ms;
use gpuquota_agent::observation::{DeviceKey, Observation, Owner, Reason, Source};
use gpuquota_agent::registered::{register, unregister};

use crate::node::Node;

fn config(text: &str) -> AttributionConfig {
    toml::from_str(text).unwrap()
}

fn owners(observation: &Observation, key: &DeviceKey) -> Vec<Owner> {
    observation.devices[key]
        .processes
        .iter()
        .map(|process| process.owner.clone())
        .collect()
}

/// A process starts, is registered, and ends: the device has no holder, then one, then none; never a flicker in between.
#[tokio::test]
async fn a_registered_process_holds_its_device_until_it_ends() {
    let node = Node::new("a100-mig");
    let state = node.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    let mut sampler = node.sampler();
    let mut observer = Observer::new(&config("registered = true"), Some(&state)).unwrap();
    let mut previous = None;
    let mut look = async || {
        let collected = sampler.sample(boottime_ms()).await;
        let seen = observer.observe(collected, previous.as_ref(), boottime_ms());
        previous = Some(seen.clone());
        seen
    };
    let uuid = look().await.devices.keys().find_map(|key| match key {
        DeviceKey::Mig(uuid, 1, 0) => Some(uuid.clone()),
        _ => None,
    });
    let uuid = uuid.unwrap();
    let key = DeviceKey::Mig(uuid.clone(), 1, 0);
    let pid = node.run_on(&uuid, Some((1, 0)));
    assert_eq!(
        owners(&look().await, &key),
        [Owner::Unattributed(Reason::NoRule)]
    );
    register(&state, pid, "team-a").unwrap();
    let seen = look().await;
    assert_eq!(
        owners(&seen, &key),
        [Owner::Tenant {
            name: "team-a".to_owned(),
            source: Source::Registered
        }]
    );
    assert_eq!(
        seen.devices[&key].processes[0].used_memory_bytes,
        Some(1 << 30)
    );
    assert!(
        seen.devices[&DeviceKey::Gpu(uuid)].tenants().is_empty(),
        "the instance's, not the GPU's"
    );
    unregister(&state, pid).unwrap();
    assert_eq!(
        owners(&look().await, &key),
        [Owner::Unattributed(Reason::NoRule)]
    );
    register(&state, pid, "team-a").unwrap();
    look().await;
    // The driver forgets to clean up: what it still lists of a dead process is at first just late, then nobody's.
    node.edit(|scenario| {
        scenario.processes[0].phantom = true;
        Ok(())
    });
    node.kill(pid);
    assert_eq!(owners(&look().await, &key), []);
    assert_eq!(
        owners(&look().await, &key),
        [Owner::Unattributed(Reason::Gone)]
    );
    node.edit(|scenario| Ok(scenario.remove_process(pid)));
    assert_eq!(owners(&look().await, &key), []);
    sampler.shutdown().await;
}

/// Case 70: neither its name nor its environment makes a process another tenant's or the system's.
#[tokio::test]
async fn rule_08_only_the_kernel_names_the_tenant() {
    let node = Node::new("t4x1");
    let uid = rustix::process::getuid().as_raw();
    let rules = format!(
        "[[rule]]\nslice = \"tenant-{{tenant}}.slice\"\n[[rule]]\nuid = {uid}\ntenant = \"by-uid\"\n"
    );
    let mut observer = Observer::new(&config(&rules), None).unwrap();
    let forged = node.path().join("nvidia-cuda-mps-server");
    // Copied by a child: a copy that this process had open for writing could not be run while another test forks.
    let copied = std::process::Command::new("cp")
        .arg("/bin/sleep")
        .arg(&forged)
        .status();
    assert!(copied.unwrap().success());
    let mut child = std::process::Command::new(&forged)
        .arg("600")
        .env("TENANT", "other")
        .env("SLURM_JOB_ACCOUNT", "other")
        .spawn()
        .unwrap();
    let process = gpuquota_fake_nvml::scenario::Process::new("0", child.id());
    node.edit(|scenario| scenario.add_process(process));
    let mut sampler = node.sampler();
    let seen = observer.observe(sampler.sample(boottime_ms()).await, None, boottime_ms());
    child.kill().unwrap();
    child.wait().unwrap();
    let key = seen.devices.keys().next().unwrap();
    assert_eq!(
        owners(&seen, key),
        [Owner::Tenant {
            name: "by-uid".to_owned(),
            source: Source::User
        }]
    );
    sampler.shutdown().await;
}
