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
    let mut last_ms = 0;
    let mut look = async || {
        // Lists of one millisecond are one list to the observer.
        while boottime_ms() == last_ms {
            tokio::task::yield_now().await;
        }
        let collected = sampler.sample(boottime_ms()).await;
        last_ms = boottime_ms();
        let seen = observer.observe(collected, previous.as_ref(), last_ms);
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
        "[[rule]]\nslice = \"tenant-{{tenant}}.slice\"\n[[rule]]\nuid = {uid}\ntenant = \"by-uid\"\nalso_in_containers = true\n"
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

/// A directory service that is away when somebody asks, and one that answers; the host's own users come first, and the question
/// never keeps the program waiting for long.
#[test]
fn rule_08_a_directory_service_that_is_away_gives_nothing_to_another_tenant() {
    let node = Node::new("t4x1");
    let pid = node.run_on("0", None);
    let uid = rustix::process::getuid().as_raw();
    let dir = node.agent_dir();
    let rules = format!(
        "[[attribution.rule]]\nuser = \"gpuquota-ann\"\ntenant = \"own\"\nalso_in_containers = true\n\
         [[attribution.rule]]\nuid = {uid}\ntenant = \"other\"\nalso_in_containers = true\n"
    );
    fs::write(dir.join("agent.toml"), rules).unwrap();
    // Made by a child: what this process had open for writing could not be run while another test forks.
    let script = "cd \"$1\" && echo '#!/bin/sh' >getent && echo '. \"${0%/*}/answer\"' >>getent && chmod 755 getent";
    let made = std::process::Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(node.path())
        .status();
    assert!(made.unwrap().success());
    let found = |script: &str| {
        fs::write(node.path().join("answer"), script).unwrap();
        let path = format!(
            "{}:{}",
            node.path().display(),
            std::env::var("PATH").unwrap()
        );
        let mut agent = node.agent();
        agent.env("PATH", path).args(["devices", "--json", "--dir"]);
        let output = agent
            .arg(&dir)
            .arg("--nvml-library")
            .arg(node.library())
            .output();
        let told: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        let process = told["devices"][0]["processes"][0].clone();
        assert_eq!(process["pid"], pid);
        process
    };
    let begun = boottime_ms();
    for away in ["exit 2", "exec sleep 600"] {
        let process = found(away);
        assert_eq!(
            (&process["tenant"], &process["reason"], &process["detail"]),
            (
                &serde_json::Value::Null,
                &"unresolved".into(),
                &"user gpuquota-ann".into()
            )
        );
    }
    assert!(boottime_ms() - begun < 60_000);
    let answers =
        format!("[ \"$3\" = gpuquota-ann ] && echo \"gpuquota-ann:x:{uid}:1::/:/bin/sh\"");
    assert_eq!(found(&answers)["tenant"], "own");
    assert_eq!(
        found("echo \"gpuquota-ann:x:64321:1::/:/bin/sh\"")["tenant"],
        "other"
    );
}
