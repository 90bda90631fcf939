//! The program itself: the command `devices`, and that no worker outlives its agent.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use gpuquota_fake_nvml::scenario::Action;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

use crate::node::{Node, PATIENCE};

pub(crate) fn agent(node: &Node) -> Command {
    node.agent()
}

/// How the command `devices` ends, and what it prints.
pub(crate) fn devices(node: &Node, more: &[&str]) -> (Option<i32>, String) {
    let library = node.library();
    let output: Output = agent(node)
        .arg("devices")
        .arg("--nvml-library")
        .arg(library)
        .args(more)
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

/// Waits for what must come true.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let rounds = PATIENCE.as_millis() / 20;
    for _ in 0..rounds {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{what} did not come");
}

#[test]
fn devices_tells_people_and_programs() {
    let node = Node::new("a100-mig");
    let dir = node.path().join("agent");
    let pid = node.run_on("1", Some((1, 0)));
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(dir.join("agent.toml"), "[attribution]\nregistered = true\n").unwrap();
    let dir = dir.to_str().unwrap();
    let status = agent(&node)
        .args([
            "register",
            "--dir",
            dir,
            "--tenant",
            "team-a",
            "--pid",
            &pid.to_string(),
        ])
        .status();
    assert!(status.unwrap().success());

    let (code, text) = devices(&node, &["--json", "--dir", dir]);
    assert_eq!(code, Some(0));
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["driver"], "550.90.07");
    let rows = told["devices"].as_array().unwrap();
    assert_eq!(rows.len(), 4 + 5 + 3);
    let row = rows
        .iter()
        .find(|row| row["gi"] == 1 && row["processes"][0]["pid"] == pid)
        .unwrap();
    assert_eq!(row["processes"][0]["tenant"], "team-a");
    assert_eq!(
        (&row["kind"], &row["profile"]),
        (&Value::from("mig"), &Value::from("3g.40gb"))
    );
    assert_eq!(row["gpu_model"], "nvidia.com/mig-3g.40gb");
    assert_eq!(row["nvlink_island"], 0, "as its GPU");
    assert_eq!(
        (&row["state"], &row["memory_used_bytes"]),
        (&Value::from("ok"), &Value::from(1_u64 << 30))
    );

    let (code, table) = devices(&node, &["--dir", dir]);
    assert_eq!(code, Some(0));
    assert!(
        table
            .lines()
            .any(|line| line.contains("nvidia.com/mig-3g.40gb")
                && line.ends_with("team-a(registered):1")),
        "{table}"
    );
}

#[test]
fn devices_says_why_there_are_none() {
    let node = Node::new("t4x1");
    node.edit(|scenario| {
        scenario.init_return = 18;
        Ok(())
    });
    let (code, text) = devices(&node, &["--json"]);
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, &told["error"]["state"], &told["devices"]),
        (Some(3), &Value::from("mismatch"), &Value::Array(Vec::new()))
    );
    fs::write(node.library(), "no library").unwrap();
    let (code, text) = devices(&node, &["--json"]);
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, &told["error"]["state"]),
        (Some(3), &Value::from("broken"))
    );
    let absent = agent(&node)
        .args(["devices", "--json", "--nvml-library", "/no/such/library"])
        .output()
        .unwrap();
    assert!(!absent.status.success());
}

/// The child of `agent` that is its worker.
fn worker_of(agent: &Child) -> Option<u32> {
    let pid = agent.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let worker = children
        .split_whitespace()
        .find_map(|child| child.parse::<u32>().ok())?;
    let line = fs::read(format!("/proc/{worker}/cmdline")).ok()?;
    line.windows(11)
        .any(|part| part == b"nvml-worker")
        .then_some(worker)
}

/// A worker stuck in a call cannot see the end of its input; the kernel ends it with its agent.
#[test]
fn rule_01_a_stuck_worker_ends_with_its_agent() {
    let node = Node::new("t4x1");
    node.fault("nvmlInit_v2", None, Action::Hang);
    let dir = node.path().join("agent");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(dir.join("agent.toml"), "call_deadline = \"30s\"\n").unwrap();
    let mut agent = agent(&node)
        .args(["run", "--standalone", "--metrics", "127.0.0.1:0", "--dir"])
        .arg(&dir)
        .arg("--nvml-library")
        .arg(node.library())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let worker = wait_for("the worker", || worker_of(&agent));
    let worker = Pid::from_raw(i32::try_from(worker).unwrap()).unwrap();
    // Inside the call: it has mapped the library and sleeps.
    let maps = format!("/proc/{}/maps", worker.as_raw_nonzero());
    wait_for("the library", || {
        fs::read_to_string(&maps)
            .ok()?
            .contains("libnvidia-ml")
            .then_some(())
    });
    kill_process(Pid::from_child(&agent), Signal::KILL).unwrap();
    agent.wait().unwrap();
    wait_for("the worker's end", || {
        test_kill_process(worker).is_err().then_some(())
    });
}

#[test]
fn a_named_library_that_is_not_there_is_a_node_without_nvml() {
    let node = Node::new("t4x1");
    let output = agent(&node)
        .args([
            "devices",
            "--json",
            "--nvml-library",
            "/nonexistent/library.so",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["devices"], Value::Array(Vec::new()));
    assert_eq!(told["error"]["state"], "absent");
}
