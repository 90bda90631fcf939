//! Rule 7: a pid means a process only where the agent, `/proc` and the driver mean the same one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use gpuquota_fake_nvml::SCENARIO_VARIABLE;
use serde_json::Value;

use crate::node::Node;
use crate::skip::skipped;

fn unshare(arguments: &[&str], node: &Node) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(arguments)
        .env(SCENARIO_VARIABLE, node.scenario())
        .env_remove("LD_LIBRARY_PATH");
    command
}

/// In a pid namespace of its own, with a `/proc` of its own or with the host's, the agent gives no pid to anybody, although a
/// rule would fit every process there is.
#[test]
fn rule_07_in_a_foreign_pid_namespace_no_pid_is_anybodys() {
    let node = Node::new("t4x1");
    let pid = node.run_on("0", None);
    // In the other namespace the driver lists it all the same.
    node.edit(|scenario| {
        scenario.processes[0].phantom = true;
        Ok(())
    });
    let dir = node.path().join("agent");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    let rule = "[[attribution.rule]]\nuid_range = [0, 4294967295]\ntenant = \"all\"\nalso_in_containers = true\n";
    fs::write(dir.join("agent.toml"), rule).unwrap();
    let look = |mut command: Command| -> Value {
        let output = command
            .args(["devices", "--json", "--dir"])
            .arg(&dir)
            .arg("--nvml-library")
            .arg(node.library())
            .output()
            .unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        let process = told["devices"][0]["processes"][0].clone();
        assert_eq!(process["pid"], pid);
        process
    };
    let here = look(crate::program::agent(&node));
    assert_eq!(
        (&here["tenant"], &here["source"]),
        (&"all".into(), &"user".into())
    );
    for arguments in [
        &["--pid", "--fork", "--mount-proc"][..],
        &["--pid", "--fork"],
    ] {
        let possible = unshare(arguments, &node).arg("true").output();
        if !possible.is_ok_and(|output| output.status.success()) {
            skipped(
                "rule_07_in_a_foreign_pid_namespace",
                "no pid namespace can be made here",
            );
            continue;
        }
        let mut command = unshare(arguments, &node);
        command.arg(env!("CARGO_BIN_EXE_gpuquota-agent"));
        let there = look(command);
        assert_eq!(there["tenant"], Value::Null, "{arguments:?}");
        assert_eq!(there["reason"], "foreign_pid_namespace", "{arguments:?}");
    }
}
