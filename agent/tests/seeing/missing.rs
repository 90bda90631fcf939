//! GPUs that are lost or hang are told, each by what is known of it: by `devices`, and by the metrics.

use std::fs;

use gpuquota_fake_nvml::scenario::Action;
use serde_json::Value;

use crate::node::Node;
use crate::program::devices;

/// UUID and PCI bus id of a GPU.
fn name(node: &Node, gpu: usize) -> (String, String) {
    node.edit(|scenario| {
        let gpu = &scenario.gpus[gpu];
        Ok((gpu.uuid.clone(), gpu.pci_bus_id.clone()))
    })
}

fn gpu_state((uuid, pci): &(String, String), state: &str) -> String {
    format!("gpuquota_gpu_state{{uuid=\"{uuid}\",pci_bus_id=\"{pci}\",state=\"{state}\"}} 1")
}

/// The kernel's list of these GPUs, each with NVIDIA's driver.
fn on_the_bus(node: &Node) {
    let gpus = node.edit(|scenario| {
        let gpus = scenario.gpus.iter();
        Ok(gpus.map(|gpu| gpu.pci_bus_id.clone()).collect::<Vec<_>>())
    });
    for pci in gpus {
        let folder = node.sysfs().join("bus/pci/devices");
        let folder = folder.join(pci[4..].to_ascii_lowercase());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("vendor"), "0x10de\n").unwrap();
        fs::write(folder.join("class"), "0x030200\n").unwrap();
        std::os::unix::fs::symlink("../../drivers/nvidia", folder.join("driver")).unwrap();
    }
}

/// UUID, PCI bus id and state of the GPUs that are not well.
fn ill(node: &Node, more: &[&str]) -> Vec<(Value, Value, Value)> {
    let sysfs = node.sysfs();
    let all = [&["--json", "--sys-root", sysfs.to_str().unwrap()], more].concat();
    let (code, text) = devices(node, &all);
    assert_eq!(code, Some(0), "NVML answers");
    let told: Value = serde_json::from_str(&text).unwrap();
    let mut ill = Vec::new();
    for row in told["devices"].as_array().unwrap() {
        if row["state"] != "ok" {
            assert_eq!(
                (&row["kind"], &row["processes"]),
                (&"gpu".into(), &Value::Null)
            );
            let cells = ["uuid", "pci_bus_id", "state"].map(|cell| row[cell].clone());
            let [uuid, pci, state] = cells;
            ill.push((uuid, pci, state));
        }
    }
    ill
}

#[test]
fn fault_a_fault_b_rule_06_devices_leaves_out_no_gpu_that_it_cannot_name() {
    let node = Node::new("broken-node");
    on_the_bus(&node);
    let nothing = |state: &str| (Value::Null, Value::Null, state.into());
    // Two places and two states: which is whose, nobody can say.
    assert_eq!(ill(&node, &[]), [nothing("hung"), nothing("lost")]);
    let (_, table) = devices(&node, &[]);
    for state in ["hung", "lost"] {
        let row = |line: &&str| line.starts_with("GPU unknown") && line.contains(state);
        assert_eq!(table.lines().filter(row).count(), 1, "{table}");
    }
    node.heal();
    let (_, pci) = name(&node, 1);
    assert_eq!(
        ill(&node, &[]),
        [(Value::Null, pci.into(), "lost".into())],
        "it can be no other"
    );
}

#[test]
fn fault_a_fault_b_rule_06_the_agent_says_which_gpu_is_lost_and_which_hangs() {
    let node = Node::new("h100x4");
    let agent = node.run_agent("");
    agent.wait_for(&["gpuquota_gpus{state=\"ok\"} 4"]);
    let (hangs, lost) = (name(&node, 1), name(&node, 2));
    node.fault("*", Some("1"), Action::Hang);
    node.edit(|scenario| scenario.set_lost("2", true));
    let hung = gpu_state(&hangs, "hung");
    let text = agent.wait_for(&[&hung, &gpu_state(&lost, "lost"), "gpuquota_up 1"]);
    assert!(text.contains(&gpu_state(&name(&node, 0), "ok")), "{text}");
    let dir = node.agent_dir();
    let dir = ["--dir", dir.to_str().unwrap()];
    let row = |(uuid, pci): &(String, String), state: &str| {
        (uuid.as_str().into(), pci.as_str().into(), state.into())
    };
    let mut expected: Vec<(Value, Value, Value)> = vec![row(&hangs, "hung"), row(&lost, "lost")];
    expected.sort_by_key(|(uuid, _, _)| uuid.to_string());
    assert_eq!(ill(&node, &dir), expected);
    let (_, table) = devices(&node, &dir);
    for (name, state) in [(&hangs, "hung"), (&lost, "lost")] {
        let row = |line: &str| line.starts_with(&name.0) && line.contains(state);
        assert!(table.lines().any(row), "{table}");
    }
    // One that starts anew has never read them; what the one before kept still names them.
    drop(agent);
    let agent = node.run_agent("");
    let unnamed = "gpuquota_gpu_state{uuid=\"\",pci_bus_id=\"\",state=\"hung\"} 1";
    agent.wait_for(&[unnamed, "gpuquota_gpus{state=\"lost\"} 1"]);
    assert_eq!(ill(&node, &dir), expected);
    // NVML as a whole falls silent: that the others answered says nothing of now.
    node.fault("nvmlDeviceGetCount_v2", None, Action::Hang);
    let text = agent.wait_for(&["gpuquota_gpus{state=\"unknown\"} 2", "gpuquota_up 0"]);
    let unknown = gpu_state(&name(&node, 0), "unknown");
    assert!(text.contains(&unknown) && text.contains(unnamed), "{text}");
    node.edit(|scenario| scenario.set_lost("2", false));
    node.heal();
    let well = [&hangs, &lost].map(|name| gpu_state(name, "ok"));
    agent.wait_for(&[&well[0], &well[1]]);
}

#[test]
fn a_folder_that_is_not_there_is_no_node_without_rules() {
    let node = Node::new("t4x1");
    let typo = node.path().join("agnet");
    let mut command = node.agent();
    command.args(["devices", "--json", "--dir"]).arg(&typo);
    command.arg("--nvml-library").arg(node.library());
    let output = command.output().unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()));
    let error = String::from_utf8(output.stderr).unwrap();
    let said = format!("--dir {}: No such file", typo.display());
    assert!(error.contains(&said), "{error}");
    fs::create_dir(&typo).unwrap();
    let (code, _) = devices(&node, &["--dir", typo.to_str().unwrap()]);
    assert_eq!(code, Some(0));
}
